package store_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// moving opens an empty database of each engine, with a clock that the test
// moves.
func moving(t *testing.T, f func(t *testing.T, s *store.Store, now *time.Time)) {
	t.Helper()
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			opts := e.place(t)
			now := time.UnixMilli(epoch)
			opts.WallClock = func() time.Time { return now }
			s := openAt(t, opts)
			enrolTwo(t, s)
			f(t, s, &now)
		})
	}
}

func TestTroubleAddsUpAndIsForgottenAfterAMonth(t *testing.T) {
	moving(t, func(t *testing.T, s *store.Store, now *time.Time) {
		entry := func(cause fault.Cause, n int64, text string) fault.Entry {
			ms := now.UnixMilli()
			return fault.Entry{Box: boxA, Cause: cause, Count: n, FirstMs: ms, LastMs: ms + 5, Text: text}
		}
		check(t, s.KeepFaults(ctx, []fault.Entry{entry(fault.BadSeal, 3, "one"), {Box: "d-ccccccccccccc", Cause: fault.Flood, Count: 1}}))
		*now = now.Add(time.Hour)
		check(t, s.KeepFaults(ctx, []fault.Entry{entry(fault.BadSeal, 4, "two \x00"), entry(fault.Bomb, 1, "three")}))
		got, err := s.Faults(ctx, boxA)
		check(t, err)
		if len(got) != 2 || got[0].Cause != fault.BadSeal || got[0].Count != 7 || got[0].FirstMs != epoch || got[0].LastMs != now.UnixMilli()+5 || got[1].Text != "three" {
			t.Errorf("trouble %+v", got)
		}
		for _, id := range []string{string(boxB), "d-ccccccccccccc"} {
			if n := rowCount(t, s, `SELECT count(*) FROM fault WHERE box = ?`, id); n != 0 {
				t.Errorf("%d rows of %s", n, id)
			}
		}
		*now = now.AddDate(0, 0, 31)
		if got, err := s.Faults(ctx, boxA); err != nil || len(got) != 0 {
			t.Errorf("after a month %+v, %v", got, err)
		}
		check(t, s.KeepFaults(ctx, []fault.Entry{entry(fault.BadSeal, 1, "again")}))
		if got, err := s.Faults(ctx, boxA); err != nil || len(got) != 1 || got[0].Count != 1 || got[0].FirstMs != now.UnixMilli() {
			t.Errorf("a month later %+v, %v", got, err)
		}
	})
}

// TestACopiedDiskIsFoundOutByWhatItsProcessesAnswer, and a box that is rebooted,
// repaired or badly connected never is. A step is a HELLO: of which process, with
// which number of starts, on which machine; whether it answers the last question,
// and how long after the step before it comes.
func TestACopiedDiskIsFoundOutByWhatItsProcessesAnswer(t *testing.T) {
	type step struct {
		life    byte
		starts  uint64
		serial  string
		answers bool
		after   time.Duration
	}
	stories := []struct {
		name  string
		steps []step
		why   string // what the last step brings to light; "": nothing
	}{
		{"a box says HELLO every hour", []step{{1, 5, "a", false, 0}, {1, 5, "a", false, time.Hour}, {1, 5, "a", false, time.Hour}}, ""},
		{"a box is rebooted again and again", []step{{1, 5, "a", false, 0}, {2, 6, "a", false, time.Minute}, {2, 6, "a", true, time.Second}, {3, 7, "a", false, time.Second}, {3, 7, "a", true, time.Second}, {3, 7, "a", false, time.Hour}}, ""},
		{"the last words of a process come after the next one", []step{{1, 5, "a", false, 0}, {2, 6, "a", false, time.Minute}, {1, 5, "a", false, time.Second}, {2, 6, "a", true, time.Second}}, ""},
		{"a process answers, and is ended", []step{{1, 5, "a", false, 0}, {2, 6, "a", false, time.Minute}, {2, 6, "a", true, time.Second}, {3, 7, "a", false, time.Second}, {2, 6, "a", false, time.Second}, {3, 7, "a", true, time.Second}}, ""},
		{"a disk forgets its last start", []step{{1, 5, "a", false, 0}, {2, 5, "a", false, time.Minute}, {2, 5, "a", true, time.Second}}, ""},
		{"an agent that counts nothing is started again", []step{{1, 0, "a", false, 0}, {2, 0, "a", false, time.Minute}, {2, 0, "a", true, time.Second}}, ""},
		{"a board is changed", []step{{1, 5, "a", false, 0}, {2, 6, "b", false, time.Hour}, {2, 6, "b", true, time.Second}}, ""},
		{"a copy is started beside its original", []step{{1, 5, "a", false, 0}, {2, 6, "a", false, time.Hour}, {1, 5, "a", true, time.Second}}, "10.0.0.1 (v p, serial \"a\", boot 0100000000000000, start 5 of its agent) comes after 10.0.0.2 (v p, serial \"a\", boot 0200000000000000, start 6 of its agent)"},
		{"both are started from one image", []step{{1, 5, "a", false, 0}, {2, 5, "a", false, time.Second}, {1, 5, "a", true, time.Second}, {2, 5, "a", true, time.Second}}, "two machines are this box at the same time"},
		{"both count nothing", []step{{1, 0, "a", false, 0}, {2, 0, "a", false, time.Hour}, {2, 0, "a", true, time.Second}, {1, 0, "a", true, time.Second}}, "two machines are this box at the same time"},
		{"a copy ran days ago, elsewhere", []step{{1, 6, "b", false, 0}, {2, 6, "a", false, 100 * time.Hour}, {2, 6, "a", true, time.Second}}, "comes after 10.0.0.1"},
		{"an old disk is put back", []step{{1, 50, "a", false, 0}, {2, 51, "a", false, time.Hour}, {2, 51, "a", true, time.Second}, {3, 40, "a", false, time.Hour}, {3, 40, "a", true, time.Second}}, "start 40 of its agent) comes after 10.0.0.2"},
		{"the first question was lost", []step{{1, 5, "a", false, 0}, {2, 6, "a", false, time.Hour}, {1, 5, "a", false, time.Hour}, {1, 5, "a", true, time.Second}}, "comes after 10.0.0.2"},
	}
	moving(t, func(t *testing.T, s *store.Store, now *time.Time) {
		for _, c := range stories {
			var asked uint64
			for i, step := range c.steps {
				*now = now.Add(step.after)
				h := wire.Hello{SID: sid(step.life), Starts: step.starts, Inventory: wire.Inventory{Vendor: "v", Product: "p", Serial: step.serial}, Clock: wire.Clock{Boot: wire.BootID{step.life}}}
				if step.answers {
					h.Answers = asked
				}
				got, err := s.Claim(ctx, boxA, h, fmt.Sprintf("10.0.0.%d", step.life))
				check(t, err)
				if got.Ask != 0 {
					asked = got.Ask
				}
				want := c.why != "" && i == len(c.steps)-1
				if got.Began != want || want && !strings.Contains(got.Why, c.why) {
					t.Fatalf("%s, step %d: %+v, want %q", c.name, i, got, c.why)
				}
			}
			m, err := s.Membership(ctx, boxA)
			check(t, err)
			if (m.State == store.StateQuarantined) != (c.why != "") {
				t.Errorf("%s: the box is %s: %s", c.name, m.State, m.Why)
			}
			// Who decides that it is this one has it begin anew: for the next story, too.
			for _, to := range []store.State{store.StateQuarantined, store.StateActive} {
				_, err = s.ChangeStanding(ctx, store.Change{Box: boxA, To: to, By: "anna"})
				check(t, err)
			}
		}
	})
}

// TestABoxOfManyProcessesIsNotAskedForEach: a question goes to all controllers, and
// a box in other hands makes up as many processes as it may send messages.
func TestABoxOfManyProcessesIsNotAskedForEach(t *testing.T) {
	moving(t, func(t *testing.T, s *store.Store, now *time.Time) {
		asked := 0
		for life := range byte(25) {
			*now = now.Add(time.Millisecond)
			c, err := s.Claim(ctx, boxA, wire.Hello{SID: sid(life + 1), Starts: uint64(life) + 1}, "")
			check(t, err)
			if c.Ask != 0 {
				asked++
			}
		}
		if asked != 15 {
			t.Errorf("asked %d times, want once for each of the 2nd to 16th process", asked)
		}
		*now = now.Add(time.Minute)
		if c, err := s.Claim(ctx, boxA, wire.Hello{SID: sid(25), Starts: 25}, ""); err != nil || c.Ask == 0 {
			t.Errorf("the last one is not asked a minute later: %+v, %v", c, err)
		}
	})
}

// TestOldHellosAreKnown by the count of connections of their process.
func TestOldHellosAreKnown(t *testing.T) {
	moving(t, func(t *testing.T, s *store.Store, _ *time.Time) {
		for i, c := range []struct {
			life  byte
			conn  uint64
			older bool
		}{{1, 4, false}, {1, 4, false}, {1, 3, true}, {1, 5, false}, {2, 1, false}, {1, 5, false}} {
			h := wire.Hello{SID: sid(c.life), Conn: c.conn}
			older, err := s.Reconnects(ctx, boxA, h)
			check(t, err)
			if (older != nil) != c.older {
				t.Errorf("HELLO %d: %v", i, older)
			}
			if older == nil {
				check(t, s.Hello(ctx, boxA, h))
			}
		}
	})
}
