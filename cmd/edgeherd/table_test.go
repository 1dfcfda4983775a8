package main

import (
	"bytes"
	"testing"
)

// TestColumnsStandUnderEachOther: Chinese names take two columns a character.
func TestColumnsStandUnderEachOther(t *testing.T) {
	c, out := testCLI(nil, false)
	c.table(sheet{head: []string{"SITE", "STATE"}, rows: [][]string{{"苏州（北）", "live"}, {"berlin-1", "late"}, {"Łódź", "live"}}})
	want := "SITE        STATE\n苏州（北）  live\nberlin-1    late\nŁódź        live\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestATextIsFoldedIntoWhatRoomAScreenHas(t *testing.T) {
	rows := [][]string{{"box-1", "the die rises 30 % further above the air"}, {"box-2", "-"}}
	for _, c := range []struct {
		name    string
		columns int
		brief   bool
		want    string
	}{
		{"a pipe", 0, false, "NAME   WHY\nbox-1  the die rises 30 % further above the air\nbox-2  -\n"},
		{"a wide screen", 200, true, "NAME   WHY\nbox-1  the die rises 30 % further above the air\nbox-2  -\n"},
		{"a narrow screen", 27, false, "NAME   WHY\nbox-1  the die rises 30 %\n       further above the\n       air\nbox-2  -\n"},
		{"a narrow screen, cut", 27, true, "NAME   WHY\nbox-1  the die rises 30 % …\nbox-2  -\n"},
		{"no room at all", 20, false, "NAME   WHY\nbox-1  the die rises 30 % further above the air\nbox-2  -\n"},
	} {
		cl, out := testCLI(nil, false)
		cl.columns = c.columns
		cl.table(sheet{head: []string{"NAME", "WHY"}, rows: rows, brief: c.brief})
		if out.String() != c.want {
			t.Errorf("%s: got\n%swant\n%s", c.name, out, c.want)
		}
	}
}

func TestAnEmptyListSaysSo(t *testing.T) {
	c, out := testCLI(nil, false)
	var words bytes.Buffer
	c.words = &words
	c.table(sheet{head: []string{"TICKET"}, none: "No ticket is open."})
	if out.Len() != 0 || words.String() != "No ticket is open.\n" {
		t.Errorf("data %q, words %q", out.String(), words.String())
	}
}
