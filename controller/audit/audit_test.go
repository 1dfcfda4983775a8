package audit

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func chain(t *testing.T, n int) ([][]byte, Head) {
	t.Helper()
	h := Empty()
	var lines [][]byte
	for i := range n {
		line, next, err := h.Append(Record{Time: time.UnixMilli(int64(i)), Actor: "anna", Source: "192.0.2.1", Verb: "site.set", Object: fmt.Sprint("site-", i), Note: "<b>&"})
		if err != nil {
			t.Fatal(err)
		}
		lines, h = append(lines, line), next
	}
	return lines, h
}

func verify(lines [][]byte, head Head) error {
	var v Verifier
	for _, l := range lines {
		if err := v.Add(l); err != nil {
			return err
		}
	}
	return v.End(head)
}

func TestAnUnbrokenChainIsVerified(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7} {
		lines, head := chain(t, n)
		if err := verify(lines, head); err != nil {
			t.Errorf("%d records: %v", n, err)
		}
	}
}

// T30: somebody on the controller edits history.
func TestT30AFlippedByteIsNamed(t *testing.T) {
	lines, head := chain(t, 5)
	for i := range lines {
		for at := range lines[i] {
			bad := slices.Clone(lines)
			bad[i] = bytes.Clone(lines[i])
			bad[i][at] ^= 1
			var b *Broken
			if err := verify(bad, head); !errors.As(err, &b) || b.Seq != int64(i+1) {
				t.Errorf("byte %d of record %d (%q): %v", at, i+1, bad[i], err)
			}
		}
	}
}

func TestT30RecordsCannotBeLeftOutAddedOrSwapped(t *testing.T) {
	lines, head := chain(t, 5)
	swapped := slices.Clone(lines)
	swapped[1], swapped[2] = swapped[2], swapped[1]
	more, _, err := head.Append(Record{Verb: "x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		lines [][]byte
		seq   int64
	}{
		{"the first is gone", lines[1:], 1},
		{"one in the middle is gone", slices.Delete(slices.Clone(lines), 2, 3), 3},
		{"the last is gone", lines[:4], 5},
		{"all are gone", nil, 1},
		{"two are swapped", swapped, 2},
		{"one was added at the end", append(slices.Clone(lines), more), 6},
	} {
		var b *Broken
		if err := verify(c.lines, head); !errors.As(err, &b) || b.Seq != c.seq {
			t.Errorf("%s: %v, want record %d named", c.name, err, c.seq)
		}
	}
}

func TestRecordsAreBoundedAndReadable(t *testing.T) {
	line, _, err := Empty().Append(Record{Actor: strings.Repeat("ä", 1000), Object: "a\x00b\xff", Note: "<script>"})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(line)
	if err != nil || len(r.Actor) > maxText+3 || r.Object != "a\uFFFDb\uFFFD" || !bytes.Contains(line, []byte("<script>")) {
		t.Errorf("%s: %+v, %v", line, r, err)
	}
	if _, err := Parse([]byte(`{"seq":1,"extra":2}`)); err == nil {
		t.Error("a field that is no field of a record is read over")
	}
}

func FuzzParse(f *testing.F) {
	line, _, err := Empty().Append(Record{Actor: "anna", Verb: "v", Time: time.UnixMilli(0)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Fuzz(func(t *testing.T, line []byte) {
		var v Verifier
		if err := v.Add(line); err == nil && v.Passed() != (Head{1, Hash(line)}) {
			t.Errorf("%q is taken for %+v", line, v.Passed())
		}
	})
}
