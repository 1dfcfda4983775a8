package deliver

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// The uplink is full at its bound, sites share it whatever they ask, and who waits
// gets in.
func TestTheUplinkIsSharedBySites(t *testing.T) {
	g, now := NewGate(GateOptions{Transfers: 10}), time.Now()
	var big []func()
	for i := range 30 { // one site with many boxes asks first
		if leave, wait := g.Enter("big", fmt.Sprint("big", i), now); wait == 0 {
			big = append(big, leave.Leave)
		} else if wait < waitMin || wait > waitMax {
			t.Fatalf("told to wait %s", wait)
		}
	}
	if len(big) != 9 {
		t.Fatalf("%d of 10 are inside, one is for another site", len(big))
	}
	in := map[string]int{}
	for i := range 4 {
		site := fmt.Sprint("small", i)
		_, wait := g.Enter(site, site, now)
		switch {
		case i == 0 && wait > 0:
			t.Error("boxes of one site hold every place, for as long as they read slowly")
		case i == 0:
			in[site]++
		case wait == 0:
			t.Fatal("in beyond the bound")
		}
	}
	// Places become free one by one: the big site may not take them back while its
	// share, 10/5, is used and others wait.
	for i := range 4 {
		big[i]()
		big[i]() // twice does no harm
		if _, wait := g.Enter("big", "big0", now); wait == 0 {
			t.Errorf("the big site took place %d back", i)
		}
		site := fmt.Sprint("small", i)
		if _, wait := g.Enter(site, site, now); wait == 0 {
			in[site]++
		}
	}
	if len(in) != 4 {
		t.Errorf("got in: %v, want each of 4 sites", in)
	}
	later := now.Add(waitsFor + time.Second)
	g = NewGate(GateOptions{Transfers: boxMost + 2})
	for i := range boxMost { // one box cannot take all, however many it asks for
		if _, wait := g.Enter("gone", "greedy", now); wait != 0 {
			t.Errorf("place %d is refused", i)
		}
	}
	if _, wait := g.Enter("gone", "greedy", now); wait == 0 {
		t.Error("one box has every place")
	}
	if leave, wait := g.Enter("gone", "other", now); wait != 0 {
		t.Error("a box that wants one place waits for one that has many")
	} else {
		leave.Leave()
	}
	g = NewGate(GateOptions{Transfers: 4})
	g.Enter("gone", "gone", now)
	for range 3 {
		if _, wait := g.Enter("big", "big", later); wait != 0 {
			t.Error("a site that is alone waits")
		}
	}
}

// Who reads slowly has its place for a minute only, and goes on beside; when too many
// do, one is ended.
func TestSlowReadersHoldNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(GateOptions{Transfers: 2})
		var passes []*Pass
		var ended atomic.Int64
		enter := func(box string, chunk int) (wait time.Duration) {
			p, wait := g.Enter("site", box, time.Now())
			if wait > 0 {
				return wait
			}
			passes = append(passes, p)
			body := p.Body(t.Context(), bytes.NewReader(make([]byte, 1<<20)), func() { ended.Add(1) })
			go func() { // it stops at the end of its file
				for range 10 {
					io.CopyN(io.Discard, body, int64(chunk))
					time.Sleep(slowFor / 2)
				}
			}()
			return 0
		}
		in := func(boxes ...string) {
			t.Helper()
			for _, box := range boxes {
				if wait := enter(box, 100); wait > 0 {
					t.Fatalf("%s waits %s", box, wait)
				}
			}
		}
		in("a", "b")
		if wait := enter("c", 100); wait == 0 {
			t.Fatal("in beyond the bound")
		}
		time.Sleep(slowFor + time.Second)
		in("c", "d") // a and b go on
		if n := ended.Load(); n != 0 {
			t.Fatalf("%d were ended though there was room beside", n)
		}
		time.Sleep(slowFor + time.Second)
		if n := ended.Load(); n != 2 {
			t.Fatalf("%d were ended, want c and d", n)
		}
		for _, p := range passes {
			p.Leave()
			p.Leave()
		}
		if wait := enter("fast", slowRate*int(slowFor.Seconds())); wait > 0 {
			t.Fatalf("all have left, and one waits %s", wait)
		}
		time.Sleep(slowFor + time.Second)
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.all != 1 || len(g.beside) != 0 || len(g.boxes) != 1 {
			t.Errorf("inside %d, beside %d, of %v; want who is fast enough inside", g.all, len(g.beside), g.boxes)
		}
		g.mu.Unlock()
		passes[len(passes)-1].Leave()
		time.Sleep(time.Hour)
		g.mu.Lock()
	})
}

// Of slow readers the slowest are ended: who takes nothing cannot hold all places beside
// so that an honest box on a slow line never gets a whole frame.
func TestWhoTakesLeastIsEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, ended := NewGate(GateOptions{Transfers: 2}), map[string]bool{}
		var mu sync.Mutex
		enter := func(box string, chunk int64) {
			t.Helper()
			p, wait := g.Enter("site", box, time.Now())
			if wait > 0 {
				t.Fatalf("%s waits %s", box, wait)
			}
			ctx, cancel := context.WithCancel(t.Context())
			body := p.Body(ctx, bytes.NewReader(make([]byte, 1<<20)), func() {
				mu.Lock()
				defer mu.Unlock()
				if ended[box] {
					t.Errorf("%s is ended twice", box)
				}
				ended[box] = true
				cancel()
			})
			go func() {
				defer p.Leave()
				for range 12 {
					io.CopyN(io.Discard, body, chunk)
					select {
					case <-ctx.Done():
						return
					case <-time.After(slowFor / 2):
					}
				}
			}()
		}
		enter("idle", 0)
		enter("dripping", 1)
		time.Sleep(slowFor + time.Second)
		enter("slow", 1000)
		enter("slower", 900)
		time.Sleep(2*slowFor + time.Second)
		mu.Lock()
		if len(ended) != 2 || !ended["idle"] || !ended["dripping"] {
			t.Errorf("ended %v, want who took least", ended)
		}
		mu.Unlock()
		time.Sleep(time.Hour)
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.all != 0 || len(g.beside) != 0 || len(g.boxes) != 0 {
			t.Errorf("all have left, and inside are %d, beside %d, of %v", g.all, len(g.beside), g.boxes)
		}
	})
}

// All transfers together keep the rate.
func TestTheUplinkKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, began := NewGate(GateOptions{BytesPerSecond: 1 << 20}), time.Now()
		done := make(chan int64, 4)
		for i := range 4 {
			go func() {
				p, _ := g.Enter("site", fmt.Sprint(i), began)
				defer p.Leave()
				n, _ := io.Copy(io.Discard, p.Body(t.Context(), bytes.NewReader(make([]byte, 1<<20)), nil))
				done <- n
			}()
		}
		for range 4 {
			if n := <-done; n != 1<<20 {
				t.Errorf("%d bytes came", n)
			}
		}
		if took := time.Since(began); took < 3900*time.Millisecond || took > 4100*time.Millisecond {
			t.Errorf("4 MiB at 1 MiB/s took %s", took)
		}
	})
}
