package agent

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// takeAll takes results until there are no more.
func takeAll(t *testing.T, a *Agent) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = a.takeResults(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
}

// stored returns the cursors of all results in the spool of a, sorted.
func stored(t *testing.T, a *Agent) []uint64 {
	t.Helper()
	var out []uint64
	for _, b := range blocks(t, a, wire.KindResults) {
		list, err := wire.DecodeResults(b.Payload)
		if err != nil {
			t.Fatal(err)
		}
		if b.SpanMs > maxResultSpan.Milliseconds() || int(b.Count) != len(list) {
			t.Errorf("block of %d results spans %d ms and counts %d", len(list), b.SpanMs, b.Count)
		}
		for _, r := range list {
			if r.WallMs < b.WallMs || r.WallMs > b.WallMs+b.SpanMs {
				t.Errorf("result at %d outside its block %d+%d", r.WallMs, b.WallMs, b.SpanMs)
			}
			out = append(out, r.Cursor)
		}
	}
	slices.Sort(out)
	return out
}

func upTo(n uint64) []uint64 {
	var out []uint64
	for i := range n {
		out = append(out, i+1)
	}
	return out
}

func TestResultsAreTakenOverOnceAndInWhole(t *testing.T) {
	w := newWorld(t)
	long := strings.Repeat("x", 1000)
	w.runner.add(maxResults+50, runnerapi.Result{Item: "short", Score: 5000, LatencyMs: -1})
	w.runner.add(150, runnerapi.Result{Item: long, Text: long, Want: long}) // three times too long for one block
	w.runner.add(1, runnerapi.Result{Models: make([]string, 500)})
	a := w.open()
	takeAll(t, a)
	n := uint64(len(w.runner.records))
	if got := stored(t, a); !slices.Equal(got, upTo(n)) {
		t.Errorf("%d results stored, want 1 to %d once each", len(got), n)
	}
	if w.runner.acked != n {
		t.Errorf("acknowledged %d of %d", w.runner.acked, n)
	}
}

func TestTheCursorMovesOnlyWithTheCommit(t *testing.T) {
	w := newWorld(t)
	w.runner.add(10, runnerapi.Result{})
	a := w.open()
	if err := a.spool.Close(); err != nil {
		t.Fatal(err)
	}
	if more, err := a.takeResults(t.Context()); err == nil || more {
		t.Errorf("more %v, %v on a disk that takes nothing", more, err)
	}
	if w.runner.acked != 0 {
		t.Fatalf("acknowledged %d that are not stored", w.runner.acked)
	}
	b := w.open()
	takeAll(t, b)
	if got := stored(t, b); !slices.Equal(got, upTo(10)) {
		t.Errorf("stored %v", got)
	}
}

func TestALostAckDoublesNothing(t *testing.T) {
	w := newWorld(t)
	w.runner.add(10, runnerapi.Result{})
	w.runner.acksFail = true
	a := w.open()
	for range 3 {
		_, _ = a.takeResults(t.Context()) // the acknowledgement fails
	}
	if err := a.spool.Close(); err != nil { // the agent dies
		t.Fatal(err)
	}
	w.runner.acksFail = false
	w.runner.add(5, runnerapi.Result{})
	b := w.open()
	takeAll(t, b)
	if got := stored(t, b); !slices.Equal(got, upTo(15)) {
		t.Errorf("stored %v, want 1 to 15 once each", got)
	}
}

func TestAnOutboxThatWasReplacedIsReadFromItsBeginning(t *testing.T) {
	w := newWorld(t)
	w.runner.add(10, runnerapi.Result{})
	a := w.open()
	takeAll(t, a)
	*w.runner = outbox{id: "two"}
	w.runner.add(12, runnerapi.Result{})
	takeAll(t, a)
	if got := stored(t, a); len(got) != 22 || w.runner.acked != 12 {
		t.Errorf("%d stored, %d acknowledged; want 10 and all 12 of the new outbox", len(got), w.runner.acked)
	}
}

func TestARunnerThatIsAwayCostsNothing(t *testing.T) {
	w := newWorld(t)
	w.runner.down = true
	a := w.open()
	before := a.spool.Buffer().Blocks
	for range 50 {
		if more, err := a.takeResults(t.Context()); more || err == nil {
			t.Fatalf("more %v, %v from nobody", more, err)
		}
		a.askRunner(t.Context())
	}
	if n := a.spool.Buffer().Blocks - before; n != 0 {
		t.Errorf("%d blocks written", n)
	}
}

func TestResultsOfDaysStayReadable(t *testing.T) {
	w := newWorld(t)
	now := time.Now()
	for i := range 40 { // four days, as an agent that was away finds them
		w.runner.add(1, runnerapi.Result{UnixMs: now.Add(time.Duration(i-40) * 5 * time.Hour).UnixMilli()})
	}
	a := w.open()
	// The box is enrolled, and up, for longer than that.
	a.id.Certificate.Leaf.NotBefore = now.AddDate(0, 0, -10)
	a.clock.uptime, a.clock.floor = func() time.Duration { return 20 * 24 * time.Hour }, 0
	takeAll(t, a)
	if got := stored(t, a); !slices.Equal(got, upTo(40)) {
		t.Errorf("stored %v", got)
	}
	if n := len(blocks(t, a, wire.KindResults)); n < 8 {
		t.Errorf("%d blocks for four days", n)
	}
}

func TestAResultFromBeforeTheClockWasSetIsOneOfNow(t *testing.T) {
	w := newWorld(t)
	now := time.Now().Truncate(time.Millisecond) // as blocks tell it
	for name, made := range map[string]time.Time{"1970": time.Unix(300, 0), "next year": now.AddDate(1, 0, 0)} {
		w.runner.add(1, runnerapi.Result{Item: name, UnixMs: made.UnixMilli()})
	}
	a := w.open()
	takeAll(t, a)
	for _, b := range blocks(t, a, wire.KindResults) {
		if off := time.UnixMilli(b.WallMs).Sub(now); off < 0 || off > time.Hour {
			t.Errorf("block is %s off", off)
		}
	}
}

func TestHowFarTheStampOfAResultIsBelieved(t *testing.T) {
	a := newWorld(t).open()
	today := a.id.Certificate.Leaf.NotBefore.AddDate(0, 0, 10).UnixMilli()
	const hour, day = int64(3_600_000), 24 * int64(3_600_000)
	for _, c := range []struct {
		name           string
		made, wall, up int64 // up: milliseconds since boot
		quality        wire.TimeQuality
		want           int64
	}{
		{"a moment ago", today - 5000, today, hour, wire.TimeUnknown, today - 5000},
		{"before a reboot", today - 3*hour, today, hour, wire.TimeUnknown, today - 3*hour},
		{"days before a boot, by a clock that was synchronised", today - 5*day, today, hour, wire.TimeSynced, today - 5*day},
		{"days before a boot, by a clock that nobody vouches for", today - 5*day, today, hour, wire.TimeUnknown, today},
		{"days ago, in a boot as old", today - 5*day, today, 6 * day, wire.TimeUnknown, today - 5*day},
		{"before the box was enrolled", 300_000, today, hour, wire.TimeSynced, today},
		{"in the future", today + hour, today, hour, wire.TimeSynced, today},
		{"in 1970, where the clock still is", 300_000, 400_000, hour, wire.TimeUnknown, 300_000},
		{"of today, before the clock fell back to 1970", today, 400_000, hour, wire.TimeUnknown, 400_000},
	} {
		if got := a.stamp(c.made, wire.Clock{WallMs: c.wall, MonoMs: c.up, Quality: c.quality}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestNumbersBeyondTheWireAreCut(t *testing.T) {
	for _, c := range []struct {
		v    float64
		want uint32
	}{{-1, 0}, {0, 0}, {0.5, 500_000}, {1e9, 1<<32 - 1}} {
		if got := millionths(c.v); got != c.want {
			t.Errorf("%v: %d, want %d", fmt.Sprint(c.v), got, c.want)
		}
	}
}
