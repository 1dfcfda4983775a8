package phrase_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/phrase"
)

func TestArgumentsAreAsTheSentenceWritesThem(t *testing.T) {
	for _, c := range []struct {
		format string
		args   []any
		text   string
		want   []string
	}{
		{"only %.0f %% work, for %d hours", []any{49.6, 6}, "only 50 % work, for 6 hours", []string{"50", "6"}},
		{"%s turns %+.2f %% slower", []any{"fan1", 3.14159}, "fan1 turns +3.14 % slower", []string{"fan1", "+3.14"}},
		{"nothing is known", nil, "nothing is known", nil},
	} {
		if p := phrase.Of("c", c.format, c.args...); p.Code != "c" || p.Text != c.text || !slices.Equal(p.Args, c.want) {
			t.Errorf("%q: %+v", c.format, p)
		}
	}
}

func TestEachLanguageCountsAsItDoes(t *testing.T) {
	words := map[string]string{"all": "many", "all_one": "one", "all_few": "few", "plain": "plain"}
	for lang, want := range map[string]string{"en": "many one many many many many many many", "de": "many one many many many many many many",
		"pl": "many one few many many few many many", "zh": "many many many many many many many many"} {
		var got []string
		for _, n := range []string{"0", "1", "2", "5", "12", "22", "112", "no number"} {
			text, ok := phrase.Pick(words, lang, "all", n)
			if !ok {
				t.Fatalf("%s: nothing for %s", lang, n)
			}
			got = append(got, text)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: %v, want %s", lang, got, want)
		}
	}
	if text, ok := phrase.Pick(words, "pl", "plain", "2"); text != "plain" || !ok {
		t.Errorf("a sentence without forms: %q, %v", text, ok)
	}
	if _, ok := phrase.Pick(words, "pl", "none", "2"); ok {
		t.Error("a sentence that nobody has was found")
	}
}

// TestAVersionThatWasReadIsNoFigure: German writes 1.10 as 1,10.
func TestAVersionThatWasReadIsNoFigure(t *testing.T) {
	var r phrase.Reader
	r.Know("slow", "%s needs %.1f ms")
	p := r.Read("1.10 needs 31.5 ms")
	if in, name := p.In[0]; p.Code != "slow" || !name || in.Code != "" || len(p.In) != 1 {
		t.Errorf("%+v, want the first argument as a name and the second as a figure", p)
	}
}
