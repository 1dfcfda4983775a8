// Package phrase makes sentences that other languages can say as well.
//
// A phrase is an English sentence with a code and the arguments that stand in
// it, as they are written there: "13.2", "fan1", "its own inlet". The command
// line and chats show the sentence. Pages look the code up in their language and
// put the arguments in, numbers as that language writes them and words by their
// own translation; a code that they do not know is shown in English. An argument
// may be a phrase itself: its text is the argument, and In has the rest of it.
//
// The one rule a caller can break: a code means one sentence with the same
// arguments in the same places, for ever, since boxes of older versions say it.
package phrase

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Phrase is one sentence.
type Phrase struct {
	Code string   `json:"code,omitempty"`
	Args []string `json:"args,omitempty"`
	// In are those arguments, by their index, that are phrases, without their text.
	// One without a code is a name that looks like a number, and stays as it is.
	In map[int]Phrase `json:"in,omitempty"`
	// Text is the sentence in English; empty where it stands beside the phrase.
	Text string `json:"text,omitempty"`
}

// String is the sentence in English.
func (p Phrase) String() string { return p.Text }

// Beside is the phrase for a field beside the one that has its text; nil when it
// has no code, which says nothing that the text does not.
func (p Phrase) Beside() *Phrase {
	if p.Code == "" {
		return nil
	}
	p.Text = ""
	return &p
}

// Word is one of the words that the dictionaries have, such as the name of a cause.
func Word(text string) Phrase { return Of("word", "%s", text) }

// Plain is a sentence that no other language has.
func Plain(text string) Phrase { return Phrase{Text: text} }

var numeric = regexp.MustCompile(`^[+-]?\d+(\.\d+)?$`)

// Of makes the phrase of a format of package fmt, each verb of which takes one
// argument.
func Of(code, format string, args ...any) Phrase {
	p := Phrase{Code: code, Text: fmt.Sprintf(format, args...)}
	rest := strings.ReplaceAll(format, "%%", "")
	for i, a := range args {
		_, after, ok := strings.Cut(rest, "%")
		if !ok {
			break
		}
		end := strings.IndexAny(after, "dfgqsv") + 1
		p.Args = append(p.Args, fmt.Sprintf("%"+after[:end], a))
		rest = after[end:]
		switch a := a.(type) {
		case Phrase:
			p.put(i, a)
		case string:
			if numeric.MatchString(a) {
				p.put(i, Phrase{})
			}
		}
	}
	return p
}

// put makes an argument a phrase. One without a code is only its text.
func (p *Phrase) put(i int, arg Phrase) {
	if arg.Code == "" && !numeric.MatchString(p.Args[i]) {
		return
	}
	if p.In == nil {
		p.In = map[int]Phrase{}
	}
	arg.Text = ""
	p.In[i] = arg
}

// Form is the plural form that a language has for a whole number: one, few, many
// or other (Unicode CLDR 48, cardinals). It knows en, de, pl and zh.
func Form(lang string, n uint64) string {
	switch {
	case lang == "zh":
		return "other"
	case n == 1:
		return "one"
	case lang != "pl":
		return "other"
	case n%10 >= 2 && n%10 <= 4 && (n%100 < 12 || n%100 > 14):
		return "few"
	}
	return "many"
}

// Pick finds the sentence of a code in the words of a language. Where the words
// have code_one, code_few and so on as well, the first argument counts; a form
// that they lack is that of the code itself.
func Pick(words map[string]string, lang, code, first string) (string, bool) {
	if n, err := strconv.ParseUint(first, 10, 64); err == nil {
		if text, ok := words[code+"_"+Form(lang, n)]; ok {
			return text, true
		}
	}
	text, ok := words[code]
	return text, ok
}
