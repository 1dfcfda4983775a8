package accept

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/paper"
)

// A4 in millimetres, and sizes of text in points.
const (
	paperWidth, paperHeight = 210.0, 297.0
	margin                  = 16.0
	bodyWidth               = paperWidth - 2*margin
	foot                    = 18.0 // below which nothing but the number of the page stands
	textSize, smallSize     = 9.5, 8.5
	lineHeight              = 4.6
)

type colour struct{ r, g, b int }

var (
	ink  = colour{31, 35, 40}
	soft = colour{87, 96, 106}
	rule = colour{208, 215, 222}
)

var tones = map[string]colour{
	"pass": {17, 99, 41}, "passed": {17, 99, 41}, "warn": {125, 78, 0}, "passed-with-remarks": {125, 78, 0},
	"fail": {179, 29, 40}, "failed": {179, 29, 40}, "skipped": soft, "aborted": soft,
}

// PDF writes a report to print and hand over. The same report gives the same bytes.
func PDF(a fleetapi.AcceptanceReport, lang string) ([]byte, error) {
	d, err := inLanguage(lang)
	if err != nil {
		return nil, err
	}
	v := d.view(a)
	// Once to count the pages and to learn whether a character is missing, then in earnest.
	first, err := draw(v, a.Ended, 0, false)
	if err != nil {
		return nil, err
	}
	last, err := draw(v, a.Ended, first.PDF.PageCount(), first.Missing)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := last.PDF.Output(&out); err != nil {
		return nil, fmt.Errorf("write acceptance report: %w", err)
	}
	return out.Bytes(), nil
}

// sheet draws on pages, with y as far as it has come.
type sheet struct {
	*paper.Pen
	view  view
	pages int // in all; 0 not known yet
	y     float64
}

func draw(v view, made time.Time, pages int, note bool) (*sheet, error) {
	pen, err := paper.New("mm", made)
	if err != nil {
		return nil, err
	}
	s := &sheet{Pen: pen, view: v, pages: pages}
	s.PDF.SetTitle(v.Title+" – "+v.Facts[0].Value, true)
	s.newPage()
	s.header()
	s.facts()
	for _, l := range v.Levels {
		s.level(l)
	}
	s.curve()
	s.signature(note)
	return s, nil
}

func (s *sheet) newPage() {
	s.PDF.AddPage()
	s.y = margin
	was, bold := s.Size, s.Bold
	s.font(8, false)
	s.colour(soft)
	text := s.view.Page(s.PDF.PageNo(), max(s.pages, s.PDF.PageNo()))
	s.Write(paperWidth-margin-s.Width(text), paperHeight-11, text)
	s.Write(margin, paperHeight-11, s.view.Title+" · "+s.view.Facts[0].Value+" · "+s.view.Facts[9].Value)
	s.Size, s.Bold = was, bold
	s.colour(ink)
}

// room begins a page when there is no room for so much.
func (s *sheet) room(height float64) {
	if s.y+height > paperHeight-foot {
		s.newPage()
	}
}

func (s *sheet) font(size float64, bold bool) { s.Size, s.Bold = size, bold }
func (s *sheet) colour(c colour)              { s.PDF.SetTextColor(c.r, c.g, c.b) }

// wrap breaks a text into lines: at blanks, beside Chinese characters, and
// anywhere in a word that is longer than a line.
func (s *sheet) wrap(text string, width float64) (lines []string) {
	current := ""
	for _, word := range words(text) {
		if s.Width(strings.TrimRight(current+word, " ")) <= width {
			current += word
			continue
		}
		if current != "" {
			lines = append(lines, strings.TrimRight(current, " "))
			current = ""
		}
		for _, r := range word {
			if s.Width(current+string(r)) > width && current != "" {
				lines = append(lines, current)
				current = ""
			}
			current += string(r)
		}
	}
	if current = strings.TrimRight(current, " "); current != "" {
		lines = append(lines, current)
	}
	return lines
}

// words cuts a text where a line may end. Chinese punctuation does not begin one.
func words(text string) (out []string) {
	from, runes := 0, []rune(text)
	for i := 1; i < len(runes); i++ {
		before, r := runes[i-1], runes[i]
		if (before == ' ' || before >= 0x2e80 || r >= 0x2e80) && r != ' ' && !strings.ContainsRune("，。；：、）！？”", r) && before != '（' {
			out = append(out, string(runes[from:i]))
			from = i
		}
	}
	return append(out, string(runes[from:]))
}

// column writes lines below y and returns how high they are.
func (s *sheet) column(x, y float64, lines []string) float64 {
	for i, l := range lines {
		s.Write(x, y+float64(i)*lineHeight+3.4, l)
	}
	return float64(len(lines)) * lineHeight
}

func (s *sheet) rule(y, width float64, c colour) {
	s.PDF.SetDrawColor(c.r, c.g, c.b)
	s.PDF.SetLineWidth(width)
	s.PDF.Line(margin, y, paperWidth-margin, y)
}

func (s *sheet) header() {
	v := s.view
	s.font(20, true)
	s.Write(margin, s.y+8, v.Title)
	tone := tones[v.Tone]
	s.font(12, true)
	wide := s.Width(v.Verdict) + 10
	s.PDF.SetDrawColor(tone.r, tone.g, tone.b)
	s.PDF.SetLineWidth(0.6)
	s.PDF.RoundedRect(paperWidth-margin-wide, s.y, wide, 10, 1.5, "1234", "D")
	s.colour(tone)
	s.Write(paperWidth-margin-wide+5, s.y+6.6, v.Verdict)
	s.colour(ink)
	s.y += 14
	s.rule(s.y, 0.5, ink)
	s.y += 3
	s.paragraph(v.VerdictText, ink)
	s.paragraph(v.Count, soft)
	if v.Simulated == "" {
		return
	}
	s.font(textSize, true)
	lines := s.wrap(v.Simulated+" – "+v.SimulatedText, bodyWidth-8)
	height := float64(len(lines))*lineHeight + 5
	s.y += 2
	c := tones["warn"]
	s.PDF.SetDrawColor(c.r, c.g, c.b)
	s.PDF.SetLineWidth(0.5)
	s.PDF.SetDashPattern([]float64{1.6, 1}, 0)
	s.PDF.RoundedRect(margin, s.y, bodyWidth, height, 1.5, "1234", "D")
	s.PDF.SetDashPattern([]float64{}, 0)
	s.colour(c)
	s.column(margin+4, s.y+2.5, lines)
	s.colour(ink)
	s.y += height
}

func (s *sheet) paragraph(text string, c colour) {
	s.font(textSize, false)
	lines := s.wrap(text, bodyWidth)
	s.room(float64(len(lines)) * lineHeight)
	s.colour(c)
	s.y += s.column(margin, s.y, lines)
	s.colour(ink)
}

// facts are told in two columns.
func (s *sheet) facts() {
	s.y += 3
	const gap, name = 8.0, 31.0
	wide := (bodyWidth - gap) / 2
	for i := 0; i < len(s.view.Facts); i += 2 {
		height := lineHeight
		pair := s.view.Facts[i:min(i+2, len(s.view.Facts))]
		s.font(textSize, false)
		for j, f := range pair {
			x := margin + float64(j)*(wide+gap)
			s.colour(soft)
			h := s.column(x, s.y+0.8, s.wrap(f.Name, name-2))
			s.colour(ink)
			height = max(height, h, s.column(x+name, s.y+0.8, s.wrap(f.Value, wide-name)))
		}
		s.y += height + 1.8
		s.PDF.SetDrawColor(rule.r, rule.g, rule.b)
		s.PDF.SetLineWidth(0.2)
		for j := range pair {
			x := margin + float64(j)*(wide+gap)
			s.PDF.Line(x, s.y, x+wide, s.y)
		}
	}
	s.y += 2
}

// title begins a section, with so much room below it.
func (s *sheet) title(text string, below float64) {
	s.y += 5
	s.room(10 + below)
	s.font(13, true)
	s.Write(margin, s.y+5, text)
	s.y += 8
}

// Columns of a table: check, measured, expected, result.
var columns = [4]float64{0.31, 0.28, 0.24, 0.17}

func (s *sheet) tableHead() {
	s.font(smallSize, true)
	s.colour(soft)
	x := margin
	for i, h := range s.view.Head {
		s.column(x, s.y, []string{h})
		x += columns[i] * bodyWidth
	}
	s.colour(ink)
	s.y += lineHeight + 0.8
	s.rule(s.y, 0.3, ink)
}

func (s *sheet) level(l level) {
	s.title(l.Title, 20)
	if l.Note != "" {
		s.paragraph(l.Note, soft)
		return
	}
	s.tableHead()
	for i, r := range l.Rows {
		s.font(textSize, false)
		cells := [4][]string{}
		height := 0.0
		for j, text := range []string{r.Check, r.Measured, r.Expected, r.Result} {
			s.font(textSize, j == 3)
			cells[j] = s.wrap(text, columns[j]*bodyWidth-3)
			height = max(height, float64(len(cells[j]))*lineHeight)
		}
		s.font(smallSize, false)
		var say []string
		if r.Say != "" {
			say = s.wrap("→ "+r.Say, bodyWidth-6)
		}
		height += float64(len(say)) * lineHeight
		if s.y+height+2.4 > paperHeight-foot {
			s.newPage()
			s.tableHead()
		} else if i > 0 {
			s.rule(s.y, 0.15, rule)
		}
		s.y += 1.2
		x, deep := margin, 0.0
		for j, lines := range cells {
			s.font(textSize, j == 3)
			if j == 3 {
				s.colour(tones[string(r.Tone)])
			}
			deep = max(deep, s.column(x, s.y, lines))
			x += columns[j] * bodyWidth
		}
		s.font(smallSize, false)
		s.colour(soft)
		s.y += deep + s.column(margin, s.y+deep, say) + 1.2
		s.colour(ink)
	}
}

func (s *sheet) curve() {
	const high, left, gap = 38.0, 14.0, 14.0
	if len(s.view.Panels) == 0 {
		return
	}
	s.title(s.view.CurveTitle, float64(len(s.view.Panels))*(high+gap))
	wide := bodyWidth - left
	for _, p := range s.view.Panels {
		s.font(smallSize, false)
		x := margin
		for _, l := range p.Lines {
			c := parseColour(l.Colour)
			s.PDF.SetFillColor(c.r, c.g, c.b)
			s.PDF.Rect(x, s.y+1.6, 6, 0.9, "F")
			text := l.Name + " (" + p.Unit + ")"
			s.column(x+8, s.y, []string{text})
			x += 14 + s.Width(text)
		}
		s.y += lineHeight + 2
		s.colour(soft)
		s.PDF.SetLineWidth(0.15)
		s.PDF.SetDrawColor(rule.r, rule.g, rule.b)
		for _, m := range p.Marks {
			at := s.y + m.At*high
			s.PDF.Line(margin+left, at, margin+bodyWidth, at)
			s.Write(margin+left-2-s.Width(m.Text), at+1.1, m.Text)
		}
		for _, m := range s.view.Times {
			text := s.Width(m.Text)
			s.Write(min(max(margin+left+m.At*wide-text/2, margin+left), margin+bodyWidth-text), s.y+high+4.2, m.Text)
		}
		s.colour(ink)
		s.PDF.SetLineWidth(0.45)
		for _, l := range p.Lines {
			c := parseColour(l.Colour)
			s.PDF.SetDrawColor(c.r, c.g, c.b)
			for _, points := range l.Parts {
				s.PDF.MoveTo(margin+left+points[0].X*wide, s.y+points[0].Y*high)
				for _, q := range points[1:] {
					s.PDF.LineTo(margin+left+q.X*wide, s.y+q.Y*high)
				}
				s.PDF.DrawPath("D")
			}
		}
		s.y += high + gap - lineHeight
	}
}

func parseColour(hex string) colour {
	n, err := strconv.ParseUint(strings.TrimPrefix(hex, "#"), 16, 32)
	if err != nil {
		return ink // our own table
	}
	return colour{int(n >> 16 & 255), int(n >> 8 & 255), int(n & 255)}
}

func (s *sheet) signature(note bool) {
	s.title(s.view.SignatureTitle, 62)
	s.paragraph(s.view.Signed, ink)
	s.paragraph(s.view.Key, ink)
	s.y += 1
	s.paragraph(s.view.Verified, ink)
	if note {
		s.paragraph(s.view.MissingGlyphs, soft)
	}
	s.y += 24
	const gap = 14.0
	wide := (bodyWidth - gap) / 2
	for i, who := range []string{s.view.HandedOver, s.view.TakenOver} {
		x := margin + float64(i)*(wide+gap)
		s.PDF.SetDrawColor(ink.r, ink.g, ink.b)
		s.PDF.SetLineWidth(0.3)
		s.PDF.Line(x, s.y, x+wide, s.y)
		s.font(textSize, false)
		s.column(x, s.y+0.8, []string{who})
		s.font(smallSize, false)
		s.colour(soft)
		s.column(x, s.y+0.8+lineHeight, []string{s.view.NameDate})
		s.colour(ink)
	}
}
