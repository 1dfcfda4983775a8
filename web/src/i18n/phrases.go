// Package i18n holds the dictionaries of sentences, for pages (index.ts) and for
// what chats and mails are told.
//
// Vocabulary: a phrase is a sentence with a code and arguments (internal/phrase).
// A Dictionary says phrases in one language; what it does not know is said in
// English. Files: phrases.LANGUAGE.json, each with all codes and words.
//
// The one rule a caller can break: Say translates arguments that are words.
// Names of boxes, sites and people go through Put, or a box called "load" gets
// another name abroad.
package i18n

import (
	"embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/phrase"
)

//go:embed phrases.*.json
var files embed.FS

// Languages are those that there are dictionaries of, English first.
func Languages() []string { return []string{"en", "de", "pl", "zh"} }

// Dictionary says sentences in one language. nil says them in English.
type Dictionary struct {
	language string
	Phrase   map[string]string `json:"phrase"`
	Words    map[string]string `json:"word"`
}

// Open reads the dictionary of a language; "" is English, whose sentences are
// in the phrases themselves.
func Open(language string) (*Dictionary, error) {
	if language == "" || language == "en" {
		return nil, nil
	}
	if !slices.Contains(Languages(), language) {
		return nil, fmt.Errorf("language %q: want one of %s", language, strings.Join(Languages(), ", "))
	}
	data, err := files.ReadFile("phrases." + language + ".json")
	if err != nil {
		return nil, err
	}
	d := &Dictionary{language: language}
	if err := json.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("read the dictionary of %s: %w", language, err)
	}
	return d, nil
}

var (
	hole    = regexp.MustCompile(`\{\{([a-h])\}\}`)
	numeric = regexp.MustCompile(`^[+-]?\d+(\.\d+)?$`)
	other   = regexp.MustCompile(`[^a-z0-9]+`)
	reading = regexp.MustCompile(`^([a-z]+) (\S+(?: \S+)?)$`)
)

// Say is a sentence with its words translated.
func (d *Dictionary) Say(p phrase.Phrase) string { return d.fill(p, d.word) }

// Put is a sentence whose arguments stay as they are, but for numbers.
func (d *Dictionary) Put(p phrase.Phrase) string { return d.fill(p, d.number) }

// Word is a word or clause of the dictionary, or else itself.
func (d *Dictionary) Word(text string) string {
	if d != nil {
		if w, ok := d.Words[strings.Trim(other.ReplaceAllString(strings.ToLower(text), "-"), "-")]; ok {
			return w
		}
	}
	return text
}

func (d *Dictionary) fill(p phrase.Phrase, say func(string) string) string {
	if d == nil {
		return p.Text
	}
	if p.Code == "" {
		return d.Word(p.Text)
	}
	first := ""
	if len(p.Args) > 0 {
		first = p.Args[0]
	}
	form, ok := phrase.Pick(d.Phrase, d.language, p.Code, first)
	if !ok {
		return p.Text
	}
	if p.Code == "word" {
		say = d.word
	}
	return hole.ReplaceAllStringFunc(form, func(h string) string {
		i := int(h[2] - 'a')
		if i >= len(p.Args) {
			return ""
		}
		in, ok := p.In[i]
		if !ok {
			return say(p.Args[i])
		}
		if in.Text = p.Args[i]; in.Code == "" {
			return in.Text
		}
		return d.fill(in, say)
	})
}

// number writes a number with the decimal point of the language.
func (d *Dictionary) number(arg string) string {
	if numeric.MatchString(arg) && (d.language == "de" || d.language == "pl") {
		return strings.Replace(arg, ".", ",", 1)
	}
	return arg
}

func (d *Dictionary) word(arg string) string {
	if numeric.MatchString(arg) {
		return d.number(arg)
	}
	if w := d.Word(arg); w != arg {
		return w
	}
	if strings.Contains(arg, ", ") {
		parts := strings.Split(arg, ", ")
		for i := range parts {
			parts[i] = d.word(parts[i])
		}
		return strings.Join(parts, ", ")
	}
	if m := reading.FindStringSubmatch(arg); m != nil && d.Word(m[1]) != m[1] {
		return d.Word(m[1]) + " " + m[2]
	}
	return arg
}
