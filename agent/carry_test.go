package agent

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// swallow is a controller whose port takes all and answers nothing.
type swallow struct{}

func (swallow) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// neighbours is a box that shares what it has.
type neighbours struct{}

func (neighbours) Address() string { return "10.0.0.7:9444" }

func (neighbours) Frame(context.Context, deviceapi.Peer, fetch.Frame) ([]byte, error) {
	return nil, fetch.ErrNotFound
}

// withBrought is an agent whose disk has n files of sticks.
func withBrought(t *testing.T, n byte) *Agent {
	t.Helper()
	a := &Agent{opts: Options{State: t.TempDir()}, log: slog.New(slog.DiscardHandler)}
	var err error
	if a.blobs, err = blob.Open(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	var all []brought
	for i := range n {
		data := bytes.Repeat([]byte{i}, blob.FrameBytes+1)
		all = append(all, brought{Digest: blob.Sum(data)})
		if err := a.blobs.Put(bytes.NewReader(data), blob.Sum(data)); err != nil {
			t.Fatal(err)
		}
	}
	if err := durable.MkdirAll(ImportDir(a.opts.State), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := a.broughtJournal().Save(all); err != nil {
		t.Fatal(err)
	}
	return a
}

// young is a controller that does not know the version of a stick yet.
type young struct{ knows bool }

func (y *young) RoundTrip(r *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	if y.knows {
		_, _ = rec.WriteString("{}")
	} else {
		rec.WriteHeader(http.StatusNotFound)
	}
	return rec.Result(), nil
}

// TestAStickThatCameBeforeItsVersionIsAnnouncedSoon: the controller has the version a
// little later, and the others of the site shall not wait half a day.
func TestAStickThatCameBeforeItsVersionIsAnnouncedSoon(t *testing.T) {
	a := withBrought(t, 1)
	ctl := &young{}
	var err error
	if a.fetcher, err = fetch.New(fetch.Options{Peers: neighbours{}, Blobs: a.blobs, BaseURL: "https://ctl:2", Client: &http.Client{Transport: ctl}}, a.log); err != nil {
		t.Fatal(err)
	}
	start := time.Unix(1_800_000_000, 0)
	now, told := start, announcement{}
	within := func(most time.Duration) {
		t.Helper()
		if told = told.after(a.announceBrought(t.Context()), now); told.due.Sub(now) > most || told.due.Sub(now) < most/2 {
			t.Fatalf("told again after %s, want half of %s to all of it", told.due.Sub(now), most)
		}
		now = told.due
	}
	for _, most := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute} {
		within(most)
	}
	for range 4 {
		told = told.after(errWaits, now)
	}
	within(6 * time.Hour)
	ctl.knows = true
	within(announceEvery)
}

// TestAStickIsNotKeptWaitingByWhatEarlierOnesBrought: the controller cannot be told where
// downloads do not pass, and that is where sticks are used.
func TestAStickIsNotKeptWaitingByWhatEarlierOnesBrought(t *testing.T) {
	a := withBrought(t, 3)
	synctest.Test(t, func(t *testing.T) {
		var err error
		a.fetcher, err = fetch.New(fetch.Options{
			Peers: neighbours{}, Blobs: a.blobs, BaseURL: "https://ctl:2", Client: &http.Client{Transport: swallow{}},
		}, a.log)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if err := a.announceBrought(t.Context()); err == nil || time.Since(began) > announceFor {
			t.Errorf("took %s, %v", time.Since(began), err)
		}
	})
}
