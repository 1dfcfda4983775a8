package agent

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// ordering is a box that acceptance tests are asked of.
type ordering struct {
	*world
	a    *Agent
	gen  uint64
	ran  []string // ids of orders
	fail error
}

// boot starts the agent on the state that it left.
func (o *ordering) boot() {
	o.t.Helper()
	if o.a != nil {
		if err := o.a.spool.Close(); err != nil {
			o.t.Fatal(err)
		}
	}
	a, err := o.tryOpen(Options{Accept: func(_ context.Context, w wire.DesiredAccept, level func(string)) error {
		level("load")
		o.ran = append(o.ran, w.ID)
		return o.fail
	}})
	if err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() { a.spool.Close() })
	o.a = a
}

// want brings an order in the next desired state, and lets the agent obey.
func (o *ordering) want(w wire.DesiredAccept) {
	o.t.Helper()
	o.gen++
	o.a.accept(o.signed(o.gen, "1.0.0", func(d *wire.Desired, _ *trust.PrivateKey) { d.Accept = &w }))
	if got := o.a.nowRunning().Generation; got != o.gen {
		o.t.Fatalf("an order kept generation %d from being followed: it is %d", o.gen, got)
	}
	o.a.obey(o.t.Context())
}

// told are the phases of an order, in order.
func (o *ordering) told(id string) (out []string) {
	for _, e := range eventsOf(o.t, o.a) {
		var b wire.AcceptBody
		if e.Type == wire.EventAccept && json.Unmarshal([]byte(e.Body), &b) == nil && b.ID == id {
			out = append(out, b.Phase)
		}
	}
	return out
}

func orderOf(digit string) wire.DesiredAccept {
	return wire.DesiredAccept{ID: strings.Repeat(digit, 16), By: "-kim", Until: time.Now().Add(time.Hour).Unix()}
}

func TestAnOrderedAcceptanceTestRunsOnce(t *testing.T) {
	o := &ordering{world: newWorld(t)}
	o.boot()
	first := orderOf("1")
	o.want(first)
	o.a.obey(t.Context())
	o.want(first) // in the next desired state as well
	o.boot()
	o.a.obey(t.Context()) // what the disk says is wanted
	o.want(first)
	if len(o.ran) != 1 {
		t.Errorf("it ran %d times, want once", len(o.ran))
	}
	if got := o.told(first.ID); !slices.Equal(got, []string{wire.AcceptBegun, wire.AcceptLevel, wire.AcceptEnded}) {
		t.Errorf("told %q", got)
	}
	o.fail = errors.New("no disk")
	o.want(orderOf("2"))
	if got := o.told(orderOf("2").ID); len(o.ran) != 2 || !slices.Equal(got, []string{wire.AcceptBegun, wire.AcceptLevel, wire.AcceptFailed}) {
		t.Errorf("another order: ran %q, told %q", o.ran, got)
	}
	// A disk that forgot which was begun last: no order is lost, and none repeated for ever.
	if err := os.WriteFile(filepath.Join(o.state, "accept", "order.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.want(orderOf("3"))
	o.want(orderOf("3"))
	if len(o.ran) != 3 {
		t.Errorf("after damage: ran %q", o.ran)
	}
}

func TestAnOrderThatIsLateOrOutOfBoundsIsNotFollowed(t *testing.T) {
	o := &ordering{world: newWorld(t)}
	o.boot()
	for name, change := range map[string]func(*wire.DesiredAccept){
		"late":             func(w *wire.DesiredAccept) { w.Until = time.Now().Add(-time.Second).Unix() },
		"path":             func(w *wire.DesiredAccept) { w.ID = "../../etc/passwd" },
		"short id":         func(w *wire.DesiredAccept) { w.ID = "12" },
		"load":             func(w *wire.DesiredAccept) { w.LoadSeconds = 24*3600 + 1 },
		"load before zero": func(w *wire.DesiredAccept) { w.LoadSeconds = -1 },
		"levels":           func(w *wire.DesiredAccept) { w.Levels = make([]string, 5) },
		"model":            func(w *wire.DesiredAccept) { w.Model = strings.Repeat("m", 301) },
	} {
		w := orderOf("4")
		change(&w)
		if o.want(w); len(o.ran) > 0 {
			t.Errorf("%s: it ran", name)
			o.ran = nil
		}
	}
	if o.want(orderOf("5")); len(o.ran) != 1 {
		t.Error("a good order after them did not run")
	}
}
