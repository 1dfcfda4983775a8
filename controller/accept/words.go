package accept

import (
	"embed"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// The languages of a report.
const (
	English = "en"
	German  = "de"
	Polish  = "pl"
	Chinese = "zh"
)

// Languages returns all of them.
func Languages() []string { return []string{English, German, Polish, Chinese} }

//go:embed words/*.json
var wordFiles embed.FS

// dictionary has the words of a language by their code: those of the document
// itself, and those of acceptance.Words, which are in English already.
type dictionary struct {
	lang  string
	words map[string]string
}

// read has the dictionaries of all languages; it never changes.
var read = sync.OnceValues(func() (map[string]dictionary, error) {
	out := map[string]dictionary{}
	for _, lang := range Languages() {
		data, err := wordFiles.ReadFile("words/" + lang + ".json")
		if err != nil {
			return nil, err
		}
		d := dictionary{lang, map[string]string{}}
		if err := json.Unmarshal(data, &d.words); err != nil {
			return nil, fmt.Errorf("words of %s: %w", lang, err)
		}
		if lang == English {
			for code, text := range acceptance.Words {
				d.words[code] = text
			}
		}
		out[lang] = d
	}
	return out, nil
})

// word is the word of a code; the code itself when nobody knows it.
func (d dictionary) word(code string, args ...any) string {
	text, ok := d.words[code]
	if !ok {
		return code[strings.IndexByte(code, '.')+1:]
	}
	if len(args) > 0 {
		text = fmt.Sprintf(text, args...)
	}
	return text
}

// say writes a phrase. One that is not known, as of a newer box, is shown as the
// box wrote it.
func (d dictionary) say(p phrase.Phrase) string {
	first := ""
	if len(p.Args) > 0 {
		first = p.Args[0]
	}
	format, ok := phrase.Pick(d.words, d.lang, p.Code, first)
	if !ok || d.lang == English || strings.Count(format, "%s")+strings.Count(format, "]s") != len(p.Args) {
		return p.Text
	}
	args := make([]any, len(p.Args))
	for i, a := range p.Args {
		args[i] = a
		if p.Code != "expect.exactly" || strings.Contains(a, " ") { // a version is no number
			args[i] = d.number(a)
		}
	}
	return fmt.Sprintf(format, args...)
}

var numberForm = regexp.MustCompile(`^[-+]?\d+\.\d+( \S+)?$`)

// number writes a number as the language does, and leaves all else alone:
// versions have more points, or no number at all.
func (d dictionary) number(s string) string {
	if (d.lang == German || d.lang == Polish) && numberForm.MatchString(s) {
		return strings.Replace(s, ".", ",", 1)
	}
	return s
}

// value writes what was measured.
func (d dictionary) value(v acceptance.Measured) string {
	if v.Number == nil {
		return v.Text
	}
	text := d.number(acceptance.FormatNumber(*v.Number))
	if v.Unit != "" {
		text += " " + v.Unit
	}
	if v.Text != "" {
		text += " · " + v.Text
	}
	return text
}

// title is the name of a check, with its part.
func (d dictionary) title(c acceptance.Check) string {
	title := d.word("title." + c.ID)
	if c.Part == "" {
		return title
	}
	part := c.Part
	if c.ID == "temperature" {
		part = d.word("role." + part)
	}
	return title + " " + part
}
