package i18n_test

import (
	"testing"

	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/web/src/i18n"
)

// TestSentencesAreSaidAsPagesSayThem: the cases are those of
// web/test/unit/phrase.test.ts.
func TestSentencesAreSaidAsPagesSayThem(t *testing.T) {
	for _, c := range []struct {
		language string
		p        phrase.Phrase
		want     string
	}{
		{"de", phrase.Phrase{Code: "compared-by", Args: []string{"its own inlet", "its power", "no fan", "412"}}, "verglichen nach: Luft laut eigener Zuluft; seine Leistung; kein Lüfter; sauberer Zustand aus 412 h gelernt"},
		{"de", phrase.Phrase{Code: "last-reading", Args: []string{"die 93 °C, inlet 24 °C, 5200 rpm"}}, "letzter Messwert: Chip 93 °C, Zuluft 24 °C, 5200 rpm"},
		{"de", phrase.Of("step", "the resistance rose by %.1f %% within hours; dust takes weeks", 31.5), "der Widerstand stieg binnen Stunden um 31,5 %; Staub braucht Wochen"},
		{"pl", phrase.Phrase{Text: "back to normal"}, "znów w normie"},
		{"de", phrase.Phrase{Text: "its air is not measured any more"}, "seine Luft wird nicht mehr gemessen"},
		{"zh", phrase.Phrase{Code: "of-a-newer-box", Text: "as it is"}, "as it is"},
		{"en", phrase.Phrase{Code: "step", Text: "as it is"}, "as it is"},
	} {
		d, err := i18n.Open(c.language)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Say(c.p); got != c.want {
			t.Errorf("%s: %q, want %q", c.language, got, c.want)
		}
	}
	halted := phrase.Of("halted", "Halted in wave %d of %d: %s", 1, 3, phrase.Of("breach-count", "%s failed, the plan allows %d. %s",
		phrase.Of("n-boxes", "%d boxes", 1), 0, phrase.Of("one-says", "%s: %s", "1043", "disk")))
	de, _ := i18n.Open("de")
	if got := de.Put(halted); got != "Angehalten in Welle 1 von 3: 1 Box gescheitert, der Plan erlaubt 0. 1043: disk" {
		t.Errorf("a sentence within a sentence: %q", got)
	}
	if got := de.Put(phrase.Of("needs-care", "needs care (%s): %s", "ticket", phrase.Word("airflow"))); got != "braucht Pflege (ticket): Filter oder Kühlrippen verstopft" {
		t.Errorf("a word within a sentence: %q", got)
	}
	if got := de.Put(phrase.Of("box-at-site", "%s at %s", "load", "die")); got != "load in die" {
		t.Errorf("names were translated: %q", got)
	}
	if _, err := i18n.Open("../phrases.de"); err == nil {
		t.Error("a language that there is not was opened")
	}
}
