package inputs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

func open(t testing.TB, path string, maxBytes int64) *outbox {
	t.Helper()
	o, err := openOutbox(path, maxBytes, time.Now, testLog())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { o.close() })
	return o
}

func item(n int) runnerapi.Result {
	return runnerapi.Result{Item: fmt.Sprintf("item %d", n), Text: strings.Repeat("x", 100), Score: 0.5, Models: []string{"m:1"}}
}

// put adds and commits items from … to−1.
func put(t testing.TB, o *outbox, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := o.add(item(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
}

func all(t testing.TB, o *outbox) runnerapi.Results {
	t.Helper()
	r, err := o.results(0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResultsStayUntilAcknowledged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o := open(t, path, 1<<20)
	if r := all(t, o); len(r.Records) != 0 || r.Next != 0 || r.Outbox == "" {
		t.Fatalf("new outbox: %+v", r)
	}
	put(t, o, 0, 10)
	first, err := o.results(0, 4)
	if err != nil || len(first.Records) != 4 || first.Next != 4 || first.Records[3].Cursor != 4 {
		t.Fatalf("first four: %+v, %v", first, err)
	}
	rest, err := o.results(first.Next, 100)
	if err != nil || len(rest.Records) != 6 || rest.Next != 10 || rest.Records[0].Item != "item 4" {
		t.Fatalf("the rest: %+v, %v", rest, err)
	}
	for range 2 { // the second is a repeated request
		if err := o.ack(first.Outbox, 4); err != nil {
			t.Fatal(err)
		}
	}
	if err := o.ack("another", 10); !errors.Is(err, ErrOtherOutbox) {
		t.Errorf("ack for another outbox: %v", err)
	}
	if err := o.ack(first.Outbox, 11); !errors.Is(err, ErrCursor) {
		t.Errorf("ack from the future: %v", err)
	}
	if n, _ := o.counts(); n != 6 {
		t.Errorf("%d results wait, want 6", n)
	}
	if err := o.ack(first.Outbox, 10); err != nil {
		t.Fatal(err)
	}
	// All are gone; a cursor still never repeats, also in the next process.
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	o = open(t, path, 1<<20)
	put(t, o, 10, 11)
	if r := all(t, o); len(r.Records) != 1 || r.Next != 11 || r.Outbox != first.Outbox {
		t.Errorf("after reopening: %+v, want one result at cursor 11 of outbox %s", r, first.Outbox)
	}
}

func TestFullBatchCommitsByItself(t *testing.T) {
	o := open(t, filepath.Join(t.TempDir(), "outbox.db"), 1<<20)
	for i := range commitRecords {
		if r := all(t, o); len(r.Records) != 0 {
			t.Fatalf("%d results committed after %d", len(r.Records), i)
		}
		if err := o.add(item(i)); err != nil {
			t.Fatal(err)
		}
	}
	if r := all(t, o); len(r.Records) != commitRecords {
		t.Errorf("%d results committed after %d", len(r.Records), commitRecords)
	}
}

func TestFullOutboxDropsTheOldestAndCountsThem(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	const bound = 200_000
	o := open(t, path, bound)
	const n = 4000 // about 250 bytes each
	put(t, o, 0, n)
	check := func(when string) {
		t.Helper()
		r := all(t, o)
		kept := len(r.Records)
		if kept == 0 || kept == n || uint64(kept)+r.Dropped != n {
			t.Errorf("%s: %d kept and %d dropped of %d", when, kept, r.Dropped, n)
		}
		if r.Records[kept-1].Item != fmt.Sprintf("item %d", n-1) || r.Records[0].Cursor != r.Dropped+1 {
			t.Errorf("%s: kept %s to %s", when, r.Records[0].Item, r.Records[kept-1].Item)
		}
		if o.bytes > bound || o.bytes < bound*9/10 {
			t.Errorf("%s: %d bytes, the bound is %d", when, o.bytes, bound)
		}
	}
	check("at once")
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	o = open(t, path, bound)
	check("reopened")
	if info, err := os.Stat(path); err != nil || info.Size() > bound*3/2+2*outboxGrowth {
		t.Errorf("file has %d bytes (%v) for a bound of %d", info.Size(), err, bound)
	}
}

// TestCommittedResultsSurviveTheKill stops a real process at a random moment
// and opens its file: everything whose commit had returned is there, in order,
// without a gap.
func TestCommittedResultsSurviveTheKill(t *testing.T) {
	seed := assets.Seed(t)
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "outbox.db")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var told, acked int
	id := ""
	for range 6 {
		cmd := exec.Command(self, "fill-outbox", path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// The process names the cursor after each commit.
		for range 3 + rng.IntN(20) {
			if _, err := fmt.Fscanln(out, &told); err != nil {
				t.Fatalf("read from the process: %v", err)
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		o := open(t, path, 1<<20)
		r := all(t, o)
		if id == "" {
			id = r.Outbox
		}
		if r.Outbox != id || r.Dropped != 0 || r.Next < uint64(told) {
			t.Fatalf("outbox %s (was %s) ends at %d, the process had committed %d, %d dropped", r.Outbox, id, r.Next, told, r.Dropped)
		}
		for i, rec := range r.Records {
			if want := uint64(acked + i + 1); rec.Cursor != want {
				t.Fatalf("record %d has cursor %d, want %d", i, rec.Cursor, want)
			}
		}
		acked += len(r.Records) / 2
		if err := o.ack(id, uint64(acked)); err != nil {
			t.Fatal(err)
		}
		if err := o.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// fillOutbox is the body of the process that is killed.
func fillOutbox(path string) error {
	o, err := openOutbox(path, 1<<20, time.Now, testLog())
	if err != nil {
		return err
	}
	for {
		for i := range 5 {
			if err := o.add(item(i)); err != nil {
				return err
			}
		}
		if err := o.commit(); err != nil {
			return err
		}
		fmt.Println(o.last)
	}
}

func TestDamagedOutboxIsSetAside(t *testing.T) {
	sound := soundOutbox(t, 300)
	tests := []struct {
		name   string
		damage func(b []byte) []byte
	}{
		{"text", func([]byte) []byte { return []byte("no database") }},
		{"zeros", func(b []byte) []byte { return make([]byte, len(b)) }},
		{"cut to one page", func(b []byte) []byte { return b[:os.Getpagesize()] }},
		{"cut in the tree", func(b []byte) []byte { return b[:5*os.Getpagesize()] }},
		{"every data page zero", func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b }},
		{"one bit of each record", func(b []byte) []byte {
			for i := 0; i+9 < len(b); i++ {
				if string(b[i:i+9]) == `"item 17"` {
					b[i+2] ^= 1
				}
			}
			return b
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "outbox.db")
			if err := os.WriteFile(path, tt.damage(append([]byte(nil), sound...)), 0o600); err != nil {
				t.Fatal(err)
			}
			o := open(t, path, 1<<20)
			put(t, o, 0, 3)
			if r := all(t, o); len(r.Records) != 3 || r.Next != 3 {
				t.Errorf("new outbox: %+v", r)
			}
			aside, err := filepath.Glob(path + ".corrupt-*")
			if err != nil || len(aside) != 1 {
				t.Errorf("set aside: %v, %v; want one file", aside, err)
			}
		})
	}
}

func TestForeignOutboxVersionIsNotTouched(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o := open(t, path, 1<<20)
	header, err := seal(outboxHeader{V: 9, ID: "later"})
	if err != nil {
		t.Fatal(err)
	}
	err = o.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(bucketMeta).Put(keyHeader, header) })
	if err != nil || o.close() != nil {
		t.Fatal(err)
	}
	if _, err := openOutbox(path, 1<<20, time.Now, testLog()); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("version 9 opens with %v", err)
	}
	if aside, _ := filepath.Glob(path + ".corrupt-*"); len(aside) != 0 {
		t.Errorf("it was set aside: %v", aside)
	}
}

func TestOutboxInUseIsNotDamage(t *testing.T) {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o := open(t, path, 1<<20)
	put(t, o, 0, 1)
	if _, err := openOutbox(path, 1<<20, time.Now, testLog()); err == nil {
		t.Error("opened twice")
	}
	if r := all(t, o); len(r.Records) != 1 {
		t.Errorf("%d records after the second open", len(r.Records))
	}
}

// TestFailedCommitIsTriedAgain takes the file away from under the outbox.
func TestFailedCommitIsTriedAgain(t *testing.T) {
	o := open(t, filepath.Join(t.TempDir(), "outbox.db"), 1<<20)
	put(t, o, 0, 2)
	if err := o.db.Close(); err != nil { // every transaction fails now
		t.Fatal(err)
	}
	if err := o.add(item(2)); err != nil {
		t.Fatal(err)
	}
	if err := o.commit(); err == nil {
		t.Fatal("commit to a closed file succeeded")
	}
	if _, err := o.results(0, 10); err == nil {
		t.Error("results of a closed file")
	}
	if err := o.commit(); err != nil {
		t.Fatal(err)
	}
	if r := all(t, o); len(r.Records) != 3 || r.Next != 3 {
		t.Errorf("%+v, want three records", r)
	}
}

// soundOutbox returns the bytes of a file with n results.
func soundOutbox(t testing.TB, n int) []byte {
	path := filepath.Join(t.TempDir(), "outbox.db")
	o := open(t, path, 1<<20)
	put(t, o, 0, n)
	if err := o.close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// FuzzOutboxFile damages a sound file in one place. Whatever is there, opening
// neither fails nor ends the process, and the outbox works afterwards.
func FuzzOutboxFile(f *testing.F) {
	sound := soundOutbox(f, 300)
	f.Add(uint32(0), uint64(0), uint8(0))
	f.Add(uint32(os.Getpagesize()+16+16), uint64(7), uint8(3))
	for page := range len(sound) / os.Getpagesize() {
		f.Add(uint32(page*os.Getpagesize()+10), uint64(0xffff), uint8(4))
	}
	f.Fuzz(func(t *testing.T, at uint32, value uint64, width uint8) {
		b := append([]byte(nil), sound...)
		for i := range int(width % 9) {
			b[(int(at)+i)%len(b)] = byte(value >> (8 * i))
		}
		path := filepath.Join(t.TempDir(), "outbox.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		o := open(t, path, 1<<20)
		before := all(t, o)
		put(t, o, 0, 40)
		after := all(t, o)
		if len(after.Records) != len(before.Records)+40 {
			t.Fatalf("%d records became %d with 40 more", len(before.Records), len(after.Records))
		}
		if err := o.ack(after.Outbox, after.Next); err != nil {
			t.Fatal(err)
		}
	})
}
