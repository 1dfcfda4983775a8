package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
	"rsc.io/qr"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/qrtext"
)

// prints are the forms in which a token leaves the controller.
type prints struct {
	png, pdf, stick string
	copies          int
	noQR            bool
}

func (p *prints) flags(f *pflag.FlagSet) {
	f.StringVar(&p.png, "png", "", "write the QR code to this file")
	f.StringVar(&p.pdf, "labels", "", "write a sheet of labels to this PDF file")
	f.IntVar(&p.copies, "copies", 1, "labels on the sheet")
	f.StringVar(&p.stick, "stick", "", "write a USB kit into this folder: the agent finds it there")
	f.BoolVar(&p.noQR, "no-qr", false, "show no QR code")
}

func (c *cli) printToken(made fleetapi.EnrolTokenMade, p prints) error {
	code, err := qr.Encode(made.Token, qr.M)
	if err != nil {
		return fmt.Errorf("draw the QR code: %w", err)
	}
	token, err := enrol.ParseToken(made.Token)
	if err != nil {
		return err
	}
	claim, err := qr.Encode(token.ClaimURL(), qr.Q)
	if err != nil {
		return fmt.Errorf("draw the QR code: %w", err)
	}
	if !p.noQR && c.output == "table" {
		fmt.Fprint(c.words, qrtext.Draw(code))
	}
	for _, f := range []struct {
		path string
		data func() []byte
	}{
		{p.png, func() []byte { code.Scale = 8; return code.PNG() }},
		{p.pdf, func() []byte { return labelSheet(label{made, code, claim}, p.copies) }},
	} {
		if f.path == "" {
			continue
		}
		if err := durable.WriteFile(f.path, f.data(), 0o600); err != nil {
			return err
		}
		c.say("wrote %s", f.path)
	}
	if p.stick == "" {
		return nil
	}
	if info, err := os.Stat(p.stick); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is not a folder: is the stick mounted there?", p.stick)
	}
	text := fmt.Sprintf("# %s, %s until %s; id %s\n%s\n", made.Site, plural(made.Uses, "machine", "machines"), made.Expires.UTC().Format("2006-01-02 15:04 UTC"), made.ID, made.Token)
	return c.writeFiles(filepath.Join(p.stick, enrol.KitDir), []outFile{
		{enrol.KitToken, []byte(text), 0o600}, {"README.txt", []byte(kitText), 0o644},
	})
}

const kitText = `edgeherd enrolment kit

Plug this stick into the box, mount it, and run as root:

    edgeherd-agent enroll

It finds token.txt here, makes a key that never leaves the box, and asks the
controller. When the box has no network, run

    edgeherd-agent enroll --offline

which writes a request file onto this stick, and bring the stick to somebody
who runs "edgeherd enroll sign" on that file; then, on the box,

    edgeherd-agent enroll --import FILE

A stick with a token that is still good is a key to the fleet: keep it so.
`

// Labels on an A4 sheet, in points of 1/72 inch.
const (
	sheetWidth, sheetHeight = 595, 842
	labelColumns, labelRows = 2, 5
	labelWidth, labelHeight = 270, 150
	sheetMargin             = 27
	codeSide                = 120.0
	claimSide               = 54.0 // 19 mm: 29 or 33 modules of 0.6 mm
)

// label is what one says: the token for the machine, and the address at which a
// phone claims it.
type label struct {
	made        fleetapi.EnrolTokenMade
	code, claim *qr.Code
}

// labelSheet draws labels as PDF 1.4 (ISO 32000-1): rectangles, and text in one
// of the fonts that every reader has.
func labelSheet(l label, copies int) []byte {
	copies = max(1, min(copies, 1000))
	var pages []string
	for left := copies; left > 0; left -= labelColumns * labelRows {
		var page strings.Builder
		for i := range min(left, labelColumns*labelRows) {
			x := sheetMargin + (i%labelColumns)*labelWidth
			y := sheetHeight - sheetMargin - (i/labelColumns+1)*labelHeight
			l.draw(&page, float64(x), float64(y))
		}
		pages = append(pages, page.String())
	}
	return pdf(pages)
}

func (l label) draw(b *strings.Builder, x, y float64) {
	top := y + (labelHeight+codeSide)/2
	drawCode(b, l.code, codeSide, x+8, top)
	drawCode(b, l.claim, claimSide, x+codeSide+20, top-codeSide+claimSide)
	m := l.made
	lines := []string{"edgeherd", m.Site, "token " + m.ID, plural(m.Uses, "machine", "machines"), "until " + m.Expires.UTC().Format("2006-01-02 15:04") + " UTC"}
	for i, line := range lines {
		size := 9
		if i < 2 {
			size = 12
		}
		fmt.Fprintf(b, "BT /F1 %d Tf %.2f %.2f Td (%s) Tj ET\n", size, x+codeSide+20, top-10-float64(i)*12.5, pdfText(line))
	}
	for i, line := range []string{"claim it", "by phone"} {
		fmt.Fprintf(b, "BT /F1 9 Tf %.2f %.2f Td (%s) Tj ET\n", x+codeSide+26+claimSide, top-codeSide+16-float64(i)*12, line)
	}
}

// drawCode draws a QR code whose upper left corner is at x and top.
func drawCode(b *strings.Builder, code *qr.Code, side, x, top float64) {
	side /= float64(code.Size)
	for row := range code.Size {
		for col := 0; col < code.Size; col++ {
			begin := col
			for col < code.Size && code.Black(col, row) {
				col++
			}
			if n := col - begin; n > 0 {
				fmt.Fprintf(b, "%.2f %.2f %.2f %.2f re\n", x+float64(begin)*side, top-float64(row+1)*side, float64(n)*side, side)
			}
		}
	}
	b.WriteString("f\n")
}

// pdfText is a string in a PDF: what is not ASCII, and its own signs, differ.
func pdfText(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '(' || r == ')' || r == '\\':
			b.WriteString(`\` + string(r))
		case r < ' ' || r > '~':
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// pdf is a file of pages that hold drawing operators.
func pdf(pages []string) []byte {
	var b bytes.Buffer
	var at []int
	object := func(format string, args ...any) {
		at = append(at, b.Len())
		fmt.Fprintf(&b, "%d 0 obj\n%s\nendobj\n", len(at), fmt.Sprintf(format, args...))
	}
	b.WriteString("%PDF-1.4\n")
	var kids []string
	for i := range pages {
		kids = append(kids, fmt.Sprintf("%d 0 R", 4+2*i))
	}
	object("<< /Type /Catalog /Pages 2 0 R >>")
	object("<< /Type /Pages /Count %d /Kids [%s] >>", len(pages), strings.Join(kids, " "))
	object("<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>")
	for i, text := range pages {
		object("<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Resources << /Font << /F1 3 0 R >> >> /Contents %d 0 R >>", sheetWidth, sheetHeight, 5+2*i)
		object("<< /Length %d >>\nstream\n%sendstream", len(text), text)
	}
	table := b.Len()
	fmt.Fprintf(&b, "xref\n0 %d\n0000000000 65535 f \n", len(at)+1)
	for _, offset := range at {
		fmt.Fprintf(&b, "%010d 00000 n \n", offset)
	}
	fmt.Fprintf(&b, "trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n", len(at)+1, table)
	return b.Bytes()
}
