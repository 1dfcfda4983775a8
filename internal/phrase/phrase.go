// Package phrase makes sentences that other languages can say as well.
//
// A phrase is an English sentence with a code and the arguments that stand in
// it, as they are written there: "13.2", "fan1", "its own inlet". The command
// line and chats show the sentence. Pages look the code up in their language and
// put the arguments in, numbers as that language writes them and words by their
// own translation; a code that they do not know is shown in English.
//
// The one rule a caller can break: a code means one sentence with the same
// arguments in the same places, for ever, since boxes of older versions say it.
package phrase

import (
	"fmt"
	"strings"
)

// Phrase is one sentence.
type Phrase struct {
	Code string   `json:"code,omitempty"`
	Args []string `json:"args,omitempty"`
	Text string   `json:"text"`
}

// Of makes the phrase of a format of package fmt, each verb of which takes one
// argument.
func Of(code, format string, args ...any) Phrase {
	p := Phrase{Code: code, Text: fmt.Sprintf(format, args...)}
	rest := strings.ReplaceAll(format, "%%", "")
	for _, a := range args {
		_, after, ok := strings.Cut(rest, "%")
		if !ok {
			break
		}
		end := strings.IndexAny(after, "dfgqsv") + 1
		p.Args = append(p.Args, fmt.Sprintf("%"+after[:end], a))
		rest = after[end:]
	}
	return p
}
