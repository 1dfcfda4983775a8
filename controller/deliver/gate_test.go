package deliver

import (
	"bytes"
	"fmt"
	"io"
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
			big = append(big, leave)
		} else if wait < waitMin || wait > waitMax {
			t.Fatalf("told to wait %s", wait)
		}
	}
	if len(big) != 10 {
		t.Fatalf("%d of 10 are inside", len(big))
	}
	for i := range 4 {
		if _, wait := g.Enter(fmt.Sprint("small", i), fmt.Sprint("small", i), now); wait == 0 {
			t.Fatal("in beyond the bound")
		}
	}
	// Places become free one by one: the big site may not take them back while its
	// share, 10/5, is used and others wait.
	in := map[string]int{}
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
	// Alone again it has all.
	later := now.Add(waitsFor + time.Second)
	g = NewGate(GateOptions{Transfers: boxMost + 1})
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
		leave()
	}
	g = NewGate(GateOptions{Transfers: 4})
	g.Enter("gone", "gone", now)
	for range 3 {
		if _, wait := g.Enter("big", "big", later); wait != 0 {
			t.Error("a site that is alone waits")
		}
	}
}

// All transfers together keep the rate.
func TestTheUplinkKeepsItsRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g, began := NewGate(GateOptions{BytesPerSecond: 1 << 20}), time.Now()
		done := make(chan int64, 4)
		for range 4 {
			go func() {
				n, _ := io.Copy(io.Discard, g.Paced(t.Context(), bytes.NewReader(make([]byte, 1<<20))))
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
