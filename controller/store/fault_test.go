package store_test

import (
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

func machineSays(serial string, boot byte) wire.Hello {
	return wire.Hello{Inventory: wire.Inventory{Vendor: "v", Product: "p", Serial: serial}, Clock: wire.Clock{Boot: wire.BootID{boot}}}
}

// TestTwoMachinesWithOneIdentityAreToldFromOneThatWasRebooted walks through
// HELLOs as they come when each machine is asked for one.
func TestTwoMachinesWithOneIdentityAreToldFromOneThatWasRebooted(t *testing.T) {
	moving(t, func(t *testing.T, s *store.Store, now *time.Time) {
		says := func(after time.Duration, h wire.Hello) store.Contest {
			t.Helper()
			*now = now.Add(after)
			c, err := s.Claim(ctx, boxA, h)
			check(t, err)
			held, err := s.Contested(ctx, boxA)
			check(t, err)
			if held != c.Now {
				t.Errorf("contested %t, said %+v", held, c)
			}
			return c
		}
		quiet := func(what string, c store.Contest) {
			t.Helper()
			if c.Now || c.Began || c.Ended {
				t.Errorf("%s: %+v", what, c)
			}
		}
		a, a2, clone := machineSays("1", 1), machineSays("1", 2), machineSays("2", 3)
		quiet("first", says(0, a))
		quiet("an hour later", says(time.Hour, a))
		// The power fails: the session of before stays open, and says nothing.
		c := says(40*time.Second, a2)
		quiet("rebooted", c)
		if want := now.Add(65 * time.Second); !c.Ask.Equal(want) {
			t.Errorf("asked at %v, want %v", c.Ask, want)
		}
		quiet("asked", says(65*time.Second, a2))
		quiet("much later", says(3*time.Hour, a2))

		quiet("a clone comes", says(10*time.Minute, clone))
		quiet("the clone answers", says(65*time.Second, clone))
		c = says(time.Second, a2)
		if !c.Now || !c.Began || len(c.Machines) != 2 || c.Ask.IsZero() {
			t.Errorf("both answered: %+v", c)
		}
		for range 3 {
			c = says(time.Minute, clone)
			if c = says(time.Second, a2); !c.Now || c.Began || c.Ended {
				t.Errorf("asked again: %+v", c)
			}
		}
		// The clone is taken away.
		for range 4 {
			if c = says(time.Minute, a2); !c.Now {
				t.Errorf("too early: %+v", c)
			}
		}
		if c = says(2*time.Minute, a2); c.Now || !c.Ended {
			t.Errorf("one is left: %+v", c)
		}
		quiet("afterwards", says(time.Hour, a2))
		events, err := s.Events(ctx, boxA, time.UnixMilli(0), now.Add(time.Hour), 10)
		check(t, err)
		if len(events) != 2 || events[0].Body != `{"kind":"duplicate-identity","active":false}` || events[1].Body != `{"kind":"duplicate-identity","active":true}` {
			t.Errorf("events %+v", events)
		}
		if held, err := s.Contested(ctx, boxB); err != nil || held {
			t.Errorf("another box: %t, %v", held, err)
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
