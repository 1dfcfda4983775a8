package witness

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/wire"
)

func head(seq uint64, hash string, minute int) Head {
	return Head{
		Seq: seq, Hash: strings.Repeat(hash, 32), Time: time.Date(2027, 1, 1, 0, minute, 0, 0, time.UTC),
		Proof: &Proof{Key: "00112233aabbccdd", Sig: bytes.Repeat([]byte{byte(seq)}, wire.AuditSigBytes)},
	}
}

func open(t *testing.T, path string) *Witness {
	t.Helper()
	w, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// T30: what was seen is not given up for a head that contradicts it, whatever
// comes and however often the agent starts.
func TestT30ABoxKeepsWhatItHasSeenOfTheAuditLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "witness.json")
	for i, c := range []struct {
		name string
		show Head
		want string // of the contradiction
		now  uint64 // the newest then
	}{
		{"the first", head(10, "aa", 0), "", 10},
		{"the same again", head(10, "aa", 1), "", 10},
		{"one that goes on", head(20, "bb", 2), "", 20},
		{"an older one that was asked for before", head(15, "cc", 1), "", 20},
		{"a log that was cut", head(15, "cc", 3), "cut", 20},
		{"a log that was forked", head(20, "dd", 4), "forked", 20},
		{"an old number with another hash", head(10, "ee", 0), "forked", 20},
		{"on past it", head(21, "ff", 5), "", 21},
	} {
		w := open(t, path) // each time another start
		err := w.See(c.show)
		var bad *Contradiction
		if (c.want == "") != (err == nil) || c.want != "" && (!errors.As(err, &bad) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%d %s: %v", i, c.name, err)
		}
		heads := open(t, path).Heads()
		if heads[len(heads)-1].Seq != c.now || heads[0].Seq != 10 {
			t.Errorf("%d %s: holds %v", i, c.name, heads)
		}
	}
}

func TestFewHeadsReachFarBack(t *testing.T) {
	w := open(t, filepath.Join(t.TempDir(), "witness.json"))
	for i := range 500 {
		if err := w.See(head(uint64(i+1), fmt.Sprintf("%02x", i%256), i)); err != nil {
			t.Fatal(err)
		}
	}
	got := w.Heads()
	if len(got) != wire.MaxAuditHeads || got[0].Seq != 1 || got[len(got)-1].Seq != 500 || got[len(got)-2].Seq < 495 {
		t.Errorf("%v", got)
	}
	for i := 1; i < len(got); i++ {
		if back, gap := 500-got[i-1].Seq, got[i].Seq-got[i-1].Seq; gap > back*3/4+2 {
			t.Errorf("nothing between %d and %d of 500", got[i-1].Seq, got[i].Seq)
		}
	}
	if _, err := wire.Encode(wire.Hello{V: wire.Version, Heads: got}); err != nil {
		t.Error(err)
	}
}

func TestADamagedFileIsToldAndBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "witness.json")
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w, err := Open(path)
	if err == nil || w == nil || len(w.Heads()) != 0 {
		t.Errorf("%v, %v", w, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"v":1,"seq":7,"hash":"` + strings.Repeat("0a", 32) + `","time":"2027-01-01T00:00:00Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := Parse(data)
		if err != nil {
			if h != (Head{}) {
				t.Errorf("an error and %+v", h)
			}
			return
		}
		h.Proof = head(1, "", 0).Proof
		told, ok := h.wire()
		if _, err := wire.Encode(wire.Hello{V: wire.Version, Heads: []wire.AuditHead{told}}); !ok || err != nil || told.Seq != h.Seq {
			t.Errorf("%+v: %+v, %v", h, told, err)
		}
	})
}
