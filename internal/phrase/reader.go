package phrase

import (
	"regexp"
	"strings"
)

// Reader finds the phrase of sentences that others wrote as text, by the formats
// that they write them with: boxes send their errors so.
type Reader []sentence

type sentence struct {
	code string
	form *regexp.Regexp
	args []string // the verb of each
}

// verb is one of a format: a whole number, a figure, a text or a sentence.
var verb = regexp.MustCompile(`%%|%[dsv]|%[+]?\.[0-9]f`)

// Know adds a sentence with its format. %s is a text, %v a sentence that is looked
// for as well, %d and %.1f are figures. What was added first is found first.
func (r *Reader) Know(code, format string) {
	s, form, at := sentence{code: code}, "(?s)^", 0
	for _, m := range verb.FindAllStringIndex(format, -1) {
		form += regexp.QuoteMeta(format[at:m[0]])
		at = m[1]
		switch v := format[m[0]:m[1]]; {
		case v == "%%":
			form += "%"
			continue
		case v == "%d":
			form += `([+-]?\d+)`
		case strings.HasSuffix(v, "f"):
			form += `([+-]?\d+(?:\.\d+)?)`
		default:
			form += "(.+?)"
		}
		s.args = append(s.args, format[m[0]:m[1]])
	}
	s.form = regexp.MustCompile(form + regexp.QuoteMeta(format[at:]) + "$")
	*r = append(*r, s)
}

// Read is the phrase of a text; one that is not known is plain.
func (r Reader) Read(text string) Phrase {
	for _, s := range r {
		m := s.form.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		p := Phrase{Code: s.code, Args: m[1:], Text: text}
		for i, verb := range s.args {
			switch {
			case verb == "%v":
				p.put(i, r.Read(p.Args[i]))
			case verb == "%s" && numeric.MatchString(p.Args[i]):
				p.put(i, Phrase{}) // version 1.10 is no figure
			}
		}
		return p
	}
	return Plain(text)
}
