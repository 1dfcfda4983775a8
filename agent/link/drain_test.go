package link_test

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/link"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// minutes appends blocks of samples, one a minute.
func (r *rig) minutes(n int) (keys []wire.Key) {
	r.t.Helper()
	schema := wire.Schema{Metrics: []wire.Metric{{Name: "temp", Scale: 1}}}
	for range n {
		payload, err := wire.EncodeSamples(wire.Samples{Schema: schema, TimesMs: []int64{0, 10_000}, Values: [][]float64{{61.5, 61.7}}})
		if err != nil {
			r.t.Fatal(err)
		}
		k, err := r.spool.Append(spool.Draft{Lane: wire.LaneTelemetry, Kind: wire.KindSamples, Schema: &schema, Count: 2, SpanMs: 10_000, MonoMs: time.Since(r.began).Milliseconds(), Payload: payload})
		if err != nil {
			r.t.Fatal(err)
		}
		keys = append(keys, k...)
		time.Sleep(time.Minute)
	}
	return keys
}

// offline starts a link whose controller does not answer yet.
func offline(t *testing.T, f *fake) *rig {
	f.silent = true
	r := start(t, f, link.Options{MaxBackoff: 10 * time.Second})
	return r
}

// events appends events of about size bytes.
func (r *rig) events(n, size int) {
	r.t.Helper()
	for range n {
		if _, err := r.spool.Append(spool.Draft{Lane: wire.LaneEvents, Kind: wire.KindEvents, Count: 1, Payload: make([]byte, size)}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// TestABacklogGoesUpInPacks and each of its blocks is acknowledged by its key.
func TestABacklogGoesUpInPacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := offline(t, f)
		keys := r.minutes(60)
		once := map[wire.Key]bool{}
		f.with(func() { // a member of each pack is not acknowledged at first
			f.silent = false
			f.noAck = func(k wire.Key) bool { held := k.Seq%10 == 3 && !once[k]; once[k] = true; return held }
		})
		r.until(10*time.Minute, "all delivered", r.delivered)
		f.with(func() {
			packed, loose := map[wire.Key]bool{}, 0
			schemas := 0
			for _, d := range f.datas {
				for _, p := range d.Packs {
					if err := p.Verify(); err != nil {
						t.Error(err)
					}
					for _, k := range p.Keys() {
						packed[k] = true
					}
				}
				loose += len(d.Blocks)
				schemas += len(d.Schemas)
			}
			if len(packed) < 40 || loose == 0 || schemas == 0 {
				t.Errorf("%d blocks in packs, %d as they are, %d schemas", len(packed), loose, schemas)
			}
			for _, k := range keys[:40] {
				if !packed[k] {
					t.Errorf("%s was in no pack", k)
				}
			}
		})
		if st := r.Status(); st.Acked != 60 || st.Repeated == 0 || st.InFlight != 0 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestAPoisonPackDoesNotStopTheOthers is TestAPoisonBlockDoesNotStopTheOthers
// for a pack: all its members are set aside.
func TestAPoisonPackDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := offline(t, f)
		keys := r.minutes(45)
		poison := keys[12]
		f.with(func() {
			f.silent = false
			f.hangUp = func(d wire.Data) bool {
				return slices.ContainsFunc(d.Packs, func(p wire.Pack) bool { return slices.Contains(p.Keys(), poison) })
			}
		})
		r.until(time.Hour, "the others, and a gap", r.delivered)
		if st := r.Status(); st.Refused != 10 {
			t.Errorf("status %+v", st)
		}
		f.with(func() {
			for _, d := range f.datas {
				for _, b := range d.Blocks {
					if b.Kind == wire.KindGap {
						if g, err := wire.DecodeGap(b.Payload); err != nil || g.Dropped() != 10 || g.From != 11 || g.To != 20 {
							t.Errorf("gap %+v, %v", g, err)
						}
					}
				}
			}
		})
	})
}

// TestABacklogKeepsToItsRate while events and what is new do not wait.
func TestABacklogKeepsToItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.welcome = wire.Welcome{BacklogRate: 100}
		r := offline(t, f)
		for range 200 { // a backlog of about 200 × 180 bytes: six minutes at that rate
			r.add(1)
		}
		f.with(func() { f.silent = false })
		r.until(time.Minute, "link up", r.Connected)
		began := time.Now()
		r.events(5, 5000)
		fresh := r.add(5)
		time.Sleep(5 * time.Second)
		f.with(func() {
			events, live := 0, 0
			for _, d := range f.datas {
				for _, b := range d.Blocks {
					if b.Key.Lane == wire.LaneEvents {
						events++
					}
					if slices.Contains(fresh, b.Key) {
						live++
					}
				}
			}
			if events < 5 || live != 5 {
				t.Errorf("%d events and %d new blocks after five seconds", events, live)
			}
		})
		r.until(20*time.Minute, "all delivered", r.delivered)
		bytes := 0
		f.with(func() {
			for i, d := range f.datas {
				for _, b := range d.Blocks {
					if b.Key.Lane == wire.LaneTelemetry && !slices.Contains(fresh, b.Key) && !f.dataAt[i].Before(began) {
						raw, err := wire.Encode(b)
						if err != nil {
							t.Fatal(err)
						}
						bytes += len(raw)
					}
				}
			}
		})
		took := time.Since(began).Seconds()
		if rate := float64(bytes) / took; rate > 120 || rate < 60 {
			t.Errorf("%d bytes of backlog in %.0f s: %.0f a second", bytes, took, rate)
		}
	})
}

// TestInQuietTimesOnlyEventsGoUp: a site may need its link for the tills.
func TestInQuietTimesOnlyEventsGoUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.welcome = wire.Welcome{Quiet: []wire.Quiet{{InMs: 60_000, ForMs: 600_000}}}
		r := start(t, f, link.Options{})
		r.until(time.Minute, "link up", r.Connected)
		quiet := time.Now().Add(time.Minute)
		r.add(3)
		r.until(10*time.Second, "before it is quiet", r.delivered)
		time.Sleep(time.Until(quiet) + time.Second)
		r.add(20)
		r.events(2, 10)
		r.PublishLive(wire.Live{})
		time.Sleep(time.Minute)
		if b := r.spool.Buffer(); b.Blocks != 20 {
			t.Errorf("buffer %+v", b)
		}
		time.Sleep(time.Until(quiet.Add(10*time.Minute - time.Second)))
		f.with(func() {
			for i, d := range f.datas {
				for _, b := range d.Blocks {
					if b.Key.Lane != wire.LaneEvents && f.dataAt[i].After(quiet) {
						t.Errorf("%s went up at %v", b.Key, f.dataAt[i])
					}
				}
			}
			if f.lives != 0 {
				t.Errorf("%d live messages", f.lives)
			}
		})
		r.until(5*time.Second, "after it", r.delivered)
	})
}
