package loadgen

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func TestABlockMadeAgainIsTheSameBlock(t *testing.T) {
	m, err := newMaker(1)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[wire.H64]bool{}
	for v := range variants {
		h := held{sid: wire.SID{1}, boot: wire.BootID{2}, seq: 3, variant: uint8(v), monoMs: 4, wallMs: 5}
		if err := m.seal(&h); err != nil {
			t.Fatal(err)
		}
		first, again := m.block(&h), m.block(&h)
		if err := first.Verify(); err != nil || first.Key != again.Key || !bytes.Equal(first.Payload, again.Payload) {
			t.Fatalf("variant %d: %v", v, err)
		}
		if s, err := wire.DecodeSamples(m.schema, first.Payload, rows); err != nil || len(s.TimesMs) != rows {
			t.Fatalf("variant %d: %v", v, err)
		}
		seen[h.h64] = true
	}
	if len(seen) != variants {
		t.Errorf("%d different blocks of %d", len(seen), variants)
	}
}

func TestQuantilesAreCloseToTheTruth(t *testing.T) {
	var h histogram
	var all []float64
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		d := time.Duration(math.Exp(rng.NormFloat64()*2+8)) * time.Microsecond
		h.add(d)
		all = append(all, float64(d))
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		if got := float64(h.quantile(q)); math.Abs(got/want-1) > 0.035 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
}

func key(n uint64) wire.Key {
	return wire.Key{SID: wire.SID{1}, Lane: 1, Seq: n, H64: wire.H64{byte(n)}}
}

func TestTheLedgerTellsLostFromDoubled(t *testing.T) {
	box := identity.ID("d-aaaaaaaaaaaaa")
	var file bytes.Buffer
	l, err := NewLedger(&file, []identity.ID{box})
	if err != nil {
		t.Fatal(err)
	}
	for n := uint64(1); n <= 4; n++ {
		l.book(entryMade, 0, key(n))
	}
	for n := uint64(1); n <= 3; n++ {
		l.book(entryAcked, 0, key(n))
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		have Stored
		want Verdict
	}{
		{"all", Stored{map[wire.Key]int{key(1): 1, key(2): 1, key(3): 1, key(4): 1}, 4 * rows}, Verdict{Made: 4, Acked: 3, Stored: 4}},
		{"one was not acked", Stored{map[wire.Key]int{key(1): 1, key(2): 1, key(3): 1}, 3 * rows}, Verdict{Made: 4, Acked: 3, Stored: 3, Missing: 1}},
		{"one is lost", Stored{map[wire.Key]int{key(1): 1, key(3): 1, key(4): 1}, 3 * rows}, Verdict{Made: 4, Acked: 3, Stored: 3, Lost: 1}},
		{"one is there twice", Stored{map[wire.Key]int{key(1): 2, key(2): 1, key(3): 1, key(4): 1}, 4 * rows}, Verdict{Made: 4, Acked: 3, Stored: 4, Doubled: 1}},
		{"samples are there twice", Stored{map[wire.Key]int{key(1): 1, key(2): 1, key(3): 1, key(4): 1}, 5 * rows}, Verdict{Made: 4, Acked: 3, Stored: 4, Doubled: rows}},
		{"one is of somebody else", Stored{map[wire.Key]int{key(1): 1, key(2): 1, key(3): 1, key(4): 1, key(9): 1}, 5 * rows}, Verdict{Made: 4, Acked: 3, Stored: 4, Foreign: 1}},
	} {
		books, err := ReadLedger(bytes.NewReader(file.Bytes()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := books.Check(func(identity.ID) (Stored, error) { return tc.have, nil })
		if err != nil || got != tc.want {
			t.Errorf("%s: %+v, %v, want %+v", tc.name, got, err, tc.want)
		}
	}
}

// FuzzLedger: what is read is books of the boxes in the head, or an error.
func FuzzLedger(f *testing.F) {
	var file bytes.Buffer
	l, err := NewLedger(&file, []identity.ID{"d-aaaaaaaaaaaaa", "d-bbbbbbbbbbbbb"})
	if err != nil {
		f.Fatal(err)
	}
	l.book(entryMade, 0, key(1))
	l.book(entryAcked, 1, key(2))
	if err := l.Flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Add([]byte("{}\n"))
	f.Add([]byte(`{"version":1,"boxes":["x"]}` + "\n\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		books, err := ReadLedger(bytes.NewReader(data))
		if err != nil && books != nil {
			t.Fatal("an error comes with books")
		}
		n := 0
		for _, of := range books {
			n += len(of)
		}
		if n*entryBytes > len(data) {
			t.Fatalf("%d blocks in %d bytes", n, len(data))
		}
	})
}

func TestFaultsAreRead(t *testing.T) {
	if f, err := ParseFaults("drop=0.1,cut=0.25"); err != nil || f != (Faults{Drop: 0.1, Cut: 0.25}) {
		t.Errorf("%+v, %v", f, err)
	}
	for _, bad := range []string{"drop", "drop=1", "drop=-1", "fire=0.1", "drop=0.1,,", "drop=NaN"} {
		if f, err := ParseFaults(bad); err == nil {
			t.Errorf("%q is read as %+v", bad, f)
		}
	}
}

// What has no device must not be served, and what waits longest is due first.
func TestTheQueueHasWhatIsDueFirst(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	all := make([]device, 200)
	for i := range all {
		all[i].dialAt, all[i].makeAt, all[i].answerAt = rng.Int64N(1000), never, never
	}
	q := newQueue(all)
	for range 2000 {
		first := q.first()
		for i := range all {
			if all[i].nextDue() < first.nextDue() {
				t.Fatalf("device %d is due at %d, the first at %d", i, all[i].nextDue(), first.nextDue())
			}
		}
		first.dialAt += 1 + rng.Int64N(500)
		q.settle(first)
	}
}
