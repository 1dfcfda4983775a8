package rollout

import "github.com/edgeherd/edgeherd/internal/fleetapi"

// The changes of a rollout that people may be told of.
const (
	EventStarted    = "started"
	EventWaveBegan  = "wave_began"
	EventWaveDone   = "wave_done"
	EventHalted     = "halted"
	EventPaused     = "paused"
	EventResumed    = "resumed"
	EventApproval   = "approval_needed"
	EventDone       = "done"
	EventRolledBack = "rolled_back"
	EventCanceled   = "canceled"
)

// EventNames are all of them.
func EventNames() []string {
	return []string{EventStarted, EventWaveBegan, EventWaveDone, EventHalted, EventPaused, EventResumed, EventApproval, EventDone, EventRolledBack, EventCanceled}
}

// Event is one change. Wave is 0 when it is of the rollout as a whole.
type Event struct {
	Name string
	Wave int // from 1
}

// Events tells what is worth telling of a rollout that changed, in the order in
// which it came about. Two states of the same rollout have as many waves, or
// the tail is new.
func Events(was, is fleetapi.Rollout) []Event {
	var out []Event
	moved := was.State != is.State
	back := len(is.RolledBackBy) > len(was.RolledBackBy)
	switch {
	case moved && is.State == fleetapi.RolloutRunning && was.State == fleetapi.RolloutDraft:
		out = append(out, Event{Name: EventStarted})
	case moved && is.State == fleetapi.RolloutRunning:
		out = append(out, Event{Name: EventResumed})
	case moved && is.State == fleetapi.RolloutPaused:
		out = append(out, Event{Name: EventPaused})
	}
	for i, w := range is.Waves {
		before := fleetapi.Wave{State: fleetapi.WaveWaiting}
		if i < len(was.Waves) {
			before = was.Waves[i]
		}
		if w.State == fleetapi.WaveWaiting {
			// It has a reason only when it waits for somebody.
			if is.State == fleetapi.RolloutRunning && w.Reason != "" && before.Reason == "" {
				out = append(out, Event{EventApproval, i + 1})
			}
			continue
		}
		if w.State != fleetapi.WaveSkipped && before.State == fleetapi.WaveWaiting {
			out = append(out, Event{EventWaveBegan, i + 1})
		}
		if w.State == fleetapi.WavePassed && before.State != fleetapi.WavePassed {
			out = append(out, Event{EventWaveDone, i + 1})
		}
	}
	switch {
	case back:
		out = append(out, Event{Name: EventRolledBack})
	case moved && is.State == fleetapi.RolloutHalted:
		out = append(out, Event{Name: EventHalted})
	case moved && is.State == fleetapi.RolloutDone:
		out = append(out, Event{Name: EventDone})
	case moved && is.State == fleetapi.RolloutCanceled:
		out = append(out, Event{Name: EventCanceled})
	}
	return out
}
