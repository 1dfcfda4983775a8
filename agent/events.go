package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/activate"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/agent/update"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// event commits one event. When it returns nil the event will not be lost.
func (a *Agent) event(kind, text string, body any) error {
	mono, wall := a.clock.now()
	ev := wire.Event{MonoMs: mono, WallMs: wall, Type: kind, Text: text}
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return fmt.Errorf("encode event %s: %w", kind, err)
		}
		ev.Body = data
	}
	payload, err := wire.EncodeEvents([]wire.Event{ev})
	if err != nil {
		return fmt.Errorf("encode event %s: %w", kind, err)
	}
	draft := spool.Draft{
		Lane: wire.LaneEvents, Kind: wire.KindEvents, MonoMs: mono, WallMs: wall,
		Quality: a.clock.quality(), Count: 1, Payload: payload,
	}
	if err := a.disk.store(a.spool, draft); err != nil {
		return fmt.Errorf("store event %s: %w", kind, err)
	}
	return nil
}

// must logs an event that could not be stored. One that waits for the disk is
// not worth a line: the disk has had its own.
func (a *Agent) must(err error) {
	switch {
	case errors.Is(err, errWaits):
		a.log.Debug("event not stored yet", "err", err)
	case err != nil:
		a.log.Error("event not stored", "err", err)
	}
}

// errWaits is wrapped by errors about what is kept in memory for now.
var errWaits = errors.New("waits for the disk")

// maxWaiting events wait in memory for a disk that takes no writes. What a
// rollout waits for is among them, so they are not dropped at once.
const maxWaiting = 100

// disk remembers how the last write to the spool went, and the events that it
// did not take.
type disk struct {
	log     *slog.Logger  // never changes
	changed func()        // never changes once the agent is open: err came or went
	mu      sync.Mutex    // guards the fields below
	err     error         // of the last write
	waiting []spool.Draft // events, oldest first
}

// store writes what waits, then event. On an error event waits as well.
func (d *disk) store(s *spool.Spool, event ...spool.Draft) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting = append(d.waiting, event...)
	d.waiting = d.waiting[max(0, len(d.waiting)-maxWaiting):]
	for len(d.waiting) > 0 {
		_, err := s.Append(d.waiting[0])
		if d.noteLocked(err); err != nil {
			return fmt.Errorf("%w: %w", errWaits, err)
		}
		d.waiting = d.waiting[1:]
	}
	return nil
}

// note remembers the outcome of another write and returns it.
func (d *disk) note(err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noteLocked(err)
	return err
}

// noteLocked says once that the disk takes no writes, and once that it does.
func (d *disk) noteLocked(err error) {
	switch {
	case err != nil && d.err == nil:
		d.log.Error("spool takes no writes; what is new waits in memory, which is small", "err", err)
		d.changed()
	case err == nil && d.err != nil:
		d.log.Info("spool takes writes again")
		d.changed()
	}
	d.err = err
}

func (d *disk) last() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.err
}

func (a *Agent) started() error {
	return a.event(wire.EventStarted, "agent "+a.opts.Version+" started", wire.StartedBody{
		Agent: a.opts.Version, Boot: a.clock.boot.String(), SID: a.spool.SID().String(), Slot: string(a.slot),
	})
}

func (a *Agent) reportModel(p activate.Phase) {
	if p.DoneBytes > 0 {
		return // progress is for those who watch, not for the record
	}
	body := wire.PhaseBody{
		Name: p.Name, Version: p.Version, Digest: p.Digest.String(), Rollout: p.Rollout, Attempt: p.Attempt,
		Generation: p.Generation, Phase: p.Phase, Err: brief(p.Err), Disk: p.Disk,
	}
	if p.Probe != nil {
		probe := *p.Probe
		probe.Err = brief(probe.Err)
		data, err := json.Marshal(probe)
		if err != nil {
			a.must(err)
			return
		}
		body.Probe = data
	}
	text := fmt.Sprintf("%s %s", p.Ref, p.Phase)
	if p.Err != "" {
		text += ": " + p.Err
	}
	a.must(a.event(wire.EventModelPhase, text, body))
	a.noteRunning()
}

// brief cuts what a runner or a library had to say: an event whose body is too
// long is not stored at all, and the rollout would wait for it for ever.
func brief(text string) string {
	const most = 2000
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// reportShunned tells people of a peer whose frames were wrong: its memory, its disk
// or who stands at its port is worth a look.
func (a *Agent) reportShunned(peer identity.ID, d blob.Digest, until time.Time) {
	text := fmt.Sprintf("%s gave wrong parts of the file %s and is asked for nothing until %s", peer, d.Short(), until.UTC().Format("2006-01-02 15:04 UTC"))
	a.must(a.event(wire.EventShunned, text, wire.ShunnedBody{Peer: string(peer), Digest: d.String(), UntilMs: until.UnixMilli()}))
}

func (a *Agent) reportUpdate(p update.Phase) {
	body := wire.PhaseBody{Name: "agent", Version: p.Version, Digest: p.Release.String(), Phase: p.Phase, Err: brief(p.Err), Rollout: a.running.agentRollout()}
	text := fmt.Sprintf("agent %s %s", p.Version, p.Phase)
	if p.Err != "" {
		text += ": " + p.Err
	}
	a.must(a.event(wire.EventAgentPhase, text, body))
	if p.Phase == "active" {
		a.link.SayHello() // the inventory names the release that runs
	}
}

// running remembers what was reported to serve.
type running struct {
	mu         sync.Mutex  // guards the fields below
	generation uint64      // of the desired state last accepted
	content    blob.Digest // of what was signed there
	rollout    string      // that asks for an agent release
	refusing   bool        // the last desired state was no good, and people know
	refused    time.Time   // when people were told so last
	last       wire.Running
	reported   bool
}

func (r *running) agentRollout() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rollout
}

func (a *Agent) nowRunning() wire.Running {
	var list []wire.RunningModel
	for _, ref := range a.activate.Running() {
		list = append(list, wire.RunningModel{Name: ref.Name, Version: ref.Version, Digest: ref.Digest.String()})
	}
	// More than a HELLO can carry would keep the box from its controller.
	list = list[:min(len(list), wire.MaxModels)]
	a.running.mu.Lock()
	defer a.running.mu.Unlock()
	return wire.Running{Generation: a.running.generation, Models: list, Config: a.settings.Running()}
}

// noteRunning records a change of what serves, once the runner has said so.
func (a *Agent) noteRunning() {
	if !a.runner.known() {
		return
	}
	now := a.nowRunning()
	a.running.mu.Lock()
	same := a.running.reported && slices.Equal(now.Models, a.running.last.Models) && reflect.DeepEqual(now.Config, a.running.last.Config)
	a.running.mu.Unlock()
	if same {
		return
	}
	if err := a.event(wire.EventRunning, "what serves has changed", now); err != nil {
		a.must(err)
		return
	}
	a.running.mu.Lock()
	a.running.last, a.running.reported = now, true
	a.running.mu.Unlock()
}
