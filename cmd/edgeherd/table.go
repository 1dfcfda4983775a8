package main

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// printable takes from a text what would move the cursor or colour the terminal
// of whoever reads it: texts of boxes are as their boxes like them.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
}

// table writes columns as wide as their widest cell. Colours do not count.
func (c *cli) table(s sheet) {
	if len(s.rows) == 0 && s.none != "" {
		c.say("%s", s.none)
		return
	}
	n := len(s.head)
	if s.narrow > 0 && c.output != "wide" {
		n = s.narrow
	}
	rows := slices.Clone(s.rows)
	head := !c.noHeaders && !s.bare
	if head {
		rows = append([][]string{s.head}, rows...)
	}
	width := make([]int, n)
	for i, row := range rows {
		rows[i] = slices.Clone(row[:n])
		for j, cell := range rows[i] {
			rows[i][j] = printable(cell)
			width[j] = max(width[j], columns(rows[i][j]))
		}
	}
	left := 2 * (n - 1)
	for _, w := range width[:n-1] {
		left += w
	}
	colour := c.colourful(c.color)
	for r, row := range rows {
		last := fold(row[n-1], c.columns-left, s.brief)
		var line strings.Builder
		for i, cell := range append(row[:n-1], last[0]) {
			pad := width[i] - columns(cell)
			if colour && (r > 0 || !head) {
				cell = paint(cell)
			}
			line.WriteString(cell)
			if i < n-1 {
				line.WriteString(strings.Repeat(" ", pad+2))
			}
		}
		fmt.Fprintln(c.out, strings.TrimRight(line.String(), " "))
		for _, more := range last[1:] {
			fmt.Fprintln(c.out, strings.Repeat(" ", left)+more)
		}
	}
}

// leastRoom is how many columns a text must have left to be folded into them;
// in fewer, the terminal's own line breaks read better.
const leastRoom = 16

// fold breaks a text at blanks into lines of at most room columns, or cuts it.
// It stays whole where the width is not known: files and pipes get all of it.
func fold(text string, room int, cut bool) []string {
	if room < leastRoom || columns(text) <= room {
		return []string{text}
	}
	var lines []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		switch {
		case line == "":
			line = word
		case cut && columns(line)+1+columns(word)+2 > room:
			return []string{line + " …"}
		case columns(line)+1+columns(word) > room:
			lines, line = append(lines, line), word
		default:
			line += " " + word
		}
	}
	return append(lines, line)
}

// columns is how much room a text takes: Chinese characters take two columns,
// and marks that stand over another character none.
func columns(text string) int {
	n := 0
	for _, r := range text {
		switch {
		case unicode.In(r, unicode.Mn, unicode.Me):
		case unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul),
			r >= 0x3000 && r <= 0x303f, r >= 0xff01 && r <= 0xff60: // their full stops, brackets and wide Latin
			n += 2
		default:
			n++
		}
	}
	return n
}

// paint colours the words that say how something is.
func paint(word string) string {
	colour := map[string]string{
		"live": "32", "healthy": "32", "verified": "32", "ok": "32", "current": "32", "done": "32", "passed": "32", "succeeded": "32", "active": "32",
		"late": "33", "watch": "33", "ticket": "33", "reopened": "33", "updating": "33", "running": "33", "paused": "33", "unreachable": "33", "enrolled": "33", "quarantined": "33",
		"silent": "31", "urgent": "31", "failed": "31", "halted": "31", "revoked": "31",
	}[word]
	if colour == "" {
		return word
	}
	return "\x1b[" + colour + "m" + word + "\x1b[0m"
}
