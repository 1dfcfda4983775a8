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
	says []bool // of each argument, whether it is a sentence, too
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
		s.says = append(s.says, format[m[0]:m[1]] == "%v")
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
		for i, says := range s.says {
			if says {
				p.put(i, r.Read(m[1+i]))
			}
		}
		return p
	}
	return Plain(text)
}
