package phrase_test

import (
	"slices"
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
