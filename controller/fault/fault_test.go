package fault_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/internal/identity"
)

const box = identity.ID("d-aaaaaaaaaaaaa")

// keeper is a database that can fail.
type keeper struct {
	mu     sync.Mutex // guards the fields below
	calls  int
	counts map[fault.Cause]int64
	err    error
}

func (k *keeper) keep(_ context.Context, entries []fault.Entry) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls++
	if k.err != nil {
		return k.err
	}
	for _, e := range entries {
		k.counts[e.Cause] += e.Count
	}
	return nil
}

// TestAHostileBoxCostsNeitherWritesNorLines: two hours of ten faults a
// second in a bubble.
func TestAHostileBoxCostsNeitherWritesNorLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{counts: map[fault.Cause]int64{}}
		var log bytes.Buffer
		b := fault.New(fault.Options{Keep: k.keep}, slog.New(slog.NewTextHandler(&log, nil)))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		const seconds, perSecond = 2*3600 - 5, 10
		for range seconds {
			for i := range perSecond {
				b.Note(box, fault.BadSeal, 1, fmt.Errorf("no %d", i))
			}
			b.Count(box, fault.RefusedByStore, 2, errors.New("full"))
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if k.calls > seconds/10+1 {
			t.Errorf("%d writes in %d s", k.calls, seconds)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if k.counts[fault.BadSeal] != perSecond*seconds || k.counts[fault.RefusedByStore] != 2*seconds {
			t.Errorf("stored %v", k.counts)
		}
		if n := strings.Count(log.String(), "\n"); n != 2 {
			t.Errorf("%d lines in two hours, want 2:\n%s", n, log.String())
		}
	})
}

// TestWhatCannotBeStoredIsNotForgotten, and Pending shows it meanwhile.
func TestWhatCannotBeStoredIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &keeper{counts: map[fault.Cause]int64{}, err: errors.New("disk full")}
		b := fault.New(fault.Options{Keep: k.keep}, slog.New(slog.DiscardHandler))
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Run(ctx) }()
		b.Note(box, fault.Bomb, 3, errors.New("first"))
		first := time.Now().UnixMilli()
		time.Sleep(time.Minute)
		b.Note(box, fault.Bomb, 4, errors.New("then"))
		time.Sleep(time.Minute)
		synctest.Wait()
		got := b.Pending(box)
		if len(got) != 1 || got[0].Count != 7 || got[0].FirstMs != first || got[0].LastMs != first+60_000 || got[0].Text != "then" {
			t.Errorf("pending %+v", got)
		}
		k.mu.Lock()
		k.err = nil
		k.mu.Unlock()
		time.Sleep(11 * time.Second)
		synctest.Wait()
		if k.counts[fault.Bomb] != 7 || len(b.Pending(box)) != 0 {
			t.Errorf("stored %v, pending %v", k.counts, b.Pending(box))
		}
		stop()
		<-done
	})
}

func TestMemoryIsBounded(t *testing.T) {
	var log bytes.Buffer
	b := fault.New(fault.Options{}, slog.New(slog.NewTextHandler(&log, nil)))
	for i := range 100_000 {
		b.Count(identity.ID(fmt.Sprint("d-", i)), fault.Malformed, 1, nil)
	}
	n := 0
	for i := range 100_000 {
		n += len(b.Pending(identity.ID(fmt.Sprint("d-", i))))
	}
	if n != 1<<16 || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("%d entries, log %s", n, log.String())
	}
}

// TestTextsOfABoxAreHarmless: topics and names come from the box.
func TestTextsOfABoxAreHarmless(t *testing.T) {
	b := fault.New(fault.Options{}, slog.New(slog.DiscardHandler))
	b.Note(box, fault.WrongTopic, 1, errors.New("a\x1b[2J\n\x00b\xff"+strings.Repeat("ü", 400)))
	text := b.Pending(box)[0].Text
	if strings.ContainsAny(text, "\x1b\n\x00") || len(text) > 310 || !strings.HasPrefix(text, "a") {
		t.Errorf("text %q", text)
	}
	var none *fault.Book
	none.Note(box, fault.Flood, 1, nil)
	if none.Pending(box) != nil {
		t.Error("a Book that is not there has entries")
	}
}
