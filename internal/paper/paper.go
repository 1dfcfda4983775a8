// Package paper writes PDF pages in all languages of edgeherd: reports of
// acceptance tests and labels. Its fonts go into the file, so that a printer needs
// none.
//
// Files in it: font/ holds a part of Noto Sans SC (SIL Open Font License 1.1,
// font/LICENSE): the 6763 characters of GB 2312 and ASCII. All else is written in
// the Go fonts. What neither has is shown as a box, and Missing says so.
//
// Fonts are chosen for each character: choose size and weight by the fields of a
// Pen and write by its methods, not by SetFont and Text of the PDF.
package paper

import (
	"fmt"
	"time"

	"codeberg.org/go-pdf/fpdf"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/sfnt"
)

// Pen writes on A4 pages.
type Pen struct {
	PDF     *fpdf.Fpdf
	Size    float64 // of letters, in points
	Bold    bool
	Missing bool // a character was shown as a box

	faces faces
	buf   sfnt.Buffer
}

// New begins a file without pages whose lengths are in a unit: mm or pt. The same
// pages made at the same time give the same bytes.
func New(unit string, made time.Time) (*Pen, error) {
	f, err := loadFaces()
	if err != nil {
		return nil, err
	}
	p := fpdf.New("P", unit, "A4", "")
	p.SetCreationDate(made.UTC())
	p.SetModificationDate(made.UTC())
	p.SetCatalogSort(true)
	p.SetProducer("edgeherd", true)
	p.SetAutoPageBreak(false, 0)
	p.AddUTF8FontFromBytes(latinFace, "", goregular.TTF)
	p.AddUTF8FontFromBytes(latinFace, "B", gobold.TTF)
	p.AddUTF8FontFromBytes(chineseFace, "", f.chinese)
	if err := p.Error(); err != nil {
		return nil, fmt.Errorf("begin a PDF: %w", err)
	}
	return &Pen{PDF: p, faces: f}, nil
}

// part is text in one font.
type part struct{ face, text string }

// parts cuts a text by the fonts that have its characters.
func (p *Pen) parts(text string) (out []part) {
	for _, r := range text {
		face := p.faces.face(&p.buf, r)
		if face == "" {
			r, face, p.Missing = missing, chineseFace, true
		}
		if n := len(out); n > 0 && out[n-1].face == face {
			out[n-1].text += string(r)
		} else {
			out = append(out, part{face, string(r)})
		}
	}
	return out
}

func (p *Pen) use(face string) {
	style := ""
	if p.Bold && face == latinFace {
		style = "B"
	}
	p.PDF.SetFont(face, style, p.Size)
}

// Width is how long a text is.
func (p *Pen) Width(text string) (w float64) {
	for _, t := range p.parts(text) {
		p.use(t.face)
		w += p.PDF.GetStringWidth(t.text)
	}
	return w
}

// Write puts one line on its base line.
func (p *Pen) Write(x, y float64, text string) {
	for _, t := range p.parts(text) {
		p.use(t.face)
		p.PDF.Text(x, y, t.text)
		if p.Bold && t.face == chineseFace {
			p.PDF.Text(x+p.PDF.PointConvert(boldShift), y, t.text) // the one weight, made heavier
		}
		x += p.PDF.GetStringWidth(t.text)
	}
}

// boldShift is how far apart a heavier character is written twice, in points: 0.12 mm.
const boldShift = 0.34
