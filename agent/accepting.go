package agent

import (
	"context"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/accept"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// sendReportsEvery is how often a connected agent looks for reports of
// acceptance tests that the controller does not have yet.
const sendReportsEvery = time.Minute

// order is the acceptance test that the controller asked for last.
type order struct {
	mu    sync.Mutex // guards want
	want  *wire.DesiredAccept
	fresh chan struct{} // room for one: something is wanted that was not before
}

// orderFile is accept/order.json: the order that was begun last. An order is
// begun once; a restart in its midst ends it.
type orderFile struct {
	ID string `json:"id"`
}

func (a *Agent) orderJournal() durable.Journal {
	return durable.Journal{Path: filepath.Join(accept.Dir(a.opts.State), "order.json"), Version: 1}
}

// wantAccept takes the order of a desired state; nil is none. One that is out of
// bounds keeps nothing else in the desired state from being followed.
func (a *Agent) wantAccept(w *wire.DesiredAccept) {
	if err := checkOrder(w); err != nil {
		a.log.Error("acceptance test not begun", "err", err)
		w = nil
	}
	a.order.mu.Lock()
	a.order.want = w
	a.order.mu.Unlock()
	if w == nil {
		return
	}
	select {
	case a.order.fresh <- struct{}{}:
	default:
	}
}

// acceptLoop runs the acceptance tests that are asked for, and sends reports.
func (a *Agent) acceptLoop(ctx context.Context) error {
	tick := time.NewTicker(sendReportsEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-a.order.fresh:
			a.obey(ctx)
		case <-tick.C:
		}
		if !a.link.Status().Connected {
			continue
		}
		if err := accept.Send(ctx, a.opts.State, a.id, a.dialer.Files, a.log); err != nil && ctx.Err() == nil {
			a.log.Warn("acceptance reports not sent yet", "err", err)
		}
	}
}

// obey runs the test that is wanted, unless it was begun before or is too old:
// a box that comes back after a day is not put under load for what nobody waits for.
func (a *Agent) obey(ctx context.Context) {
	a.order.mu.Lock()
	w := a.order.want
	a.order.mu.Unlock()
	if w == nil || a.opts.Accept == nil || a.clock.wall().After(time.Unix(w.Until, 0)) {
		return
	}
	var begun orderFile
	found, err := a.orderJournal().Load(&begun)
	if err != nil { // it is replaced below; until then the order's end bounds what is begun twice
		a.log.Warn("which acceptance test was begun last is not known", "err", err)
	}
	if found && begun.ID == w.ID {
		return
	}
	tell := func(phase, text string) {
		a.must(a.event(wire.EventAccept, text, wire.AcceptBody{ID: w.ID, Phase: phase}))
	}
	if err = durable.MkdirAll(accept.Dir(a.opts.State), 0o700); err == nil {
		err = a.orderJournal().Save(orderFile{w.ID})
	}
	if err != nil {
		tell(wire.AcceptFailed, "acceptance test not begun: "+brief(err.Error()))
		return
	}
	a.log.Info("acceptance test begun", "report", w.ID, "by", w.By)
	tell(wire.AcceptBegun, "acceptance test begun, asked for by "+w.By)
	err = a.opts.Accept(ctx, *w, func(level string) { tell(wire.AcceptLevel, "acceptance test: "+level) })
	switch {
	case ctx.Err() != nil: // this agent ends; the report says that it was cut short
	case err != nil:
		tell(wire.AcceptFailed, "acceptance test not finished: "+brief(err.Error()))
	default:
		tell(wire.AcceptEnded, "acceptance test ended")
	}
}

// maxOrderWord bounds the words of an order: bytes, as a text of a report.
const maxOrderWord = 300

// checkOrder checks an order before it is followed.
func checkOrder(w *wire.DesiredAccept) error {
	if w == nil {
		return nil
	}
	if id, err := hex.DecodeString(w.ID); err != nil || len(id) != 8 || len(w.Levels) > 4 || w.LoadSeconds < 0 || w.LoadSeconds > 24*3600 {
		return fmt.Errorf("order of an acceptance test %.20q is out of bounds", w.ID)
	}
	if slices.ContainsFunc(append([]string{w.Model, w.By}, w.Levels...), func(s string) bool { return len(s) > maxOrderWord }) {
		return fmt.Errorf("order of an acceptance test %s has a word that is too long", w.ID)
	}
	return nil
}
