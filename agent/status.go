package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"time"

	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// statusEvery is how often the status is looked at. It is written only when it
// has changed: flash wears.
const statusEvery = 5 * time.Second

// Status is how the connection to the controller stands. It holds no secret.
type Status struct {
	ID      identity.ID `json:"id"`
	Name    string      `json:"name"`
	Site    string      `json:"site"`
	Version string      `json:"version"`
	// Process is the agent that wrote it; it is stale when that is gone.
	Process   int         `json:"process"`
	Connected bool        `json:"connected"`
	Since     *time.Time  `json:"since,omitempty"` // of Connected or of the last loss
	LastError string      `json:"last_error,omitempty"`
	Ways      dial.Report `json:"ways"`
	// Trust is how the fleet's metadata stands; nil in development.
	Trust *TrustStatus `json:"trust,omitempty"`
	// Disk is why the spool takes no writes, "" when it does.
	Disk string `json:"disk,omitempty"`
	// Health says in a few lines how the box stands with its heat; all of it is
	// in health.json.
	Health []string `json:"health,omitempty"`
}

// TrustStatus is how the metadata stands that says what the box may install.
type TrustStatus struct {
	Ends time.Time `json:"ends,omitzero"`
	Role string    `json:"role,omitempty"` // that ends first
	// Error is that of the last refresh; empty after a good one.
	Error string `json:"error,omitempty"`
}

func statusPath(state string) string { return filepath.Join(state, "status.json") }

// ReadStatus reads what the agent on a state directory wrote last.
func ReadStatus(state string) (Status, error) {
	var s Status
	data, err := os.ReadFile(statusPath(state))
	if err != nil {
		return s, fmt.Errorf("read status of the agent: %w; has it run on this state directory?", err)
	}
	if err := json.Unmarshal(data, &s); err != nil {
		return s, fmt.Errorf("read status of the agent: %w", err)
	}
	return s, nil
}

// statusLoop writes the status down as it changes.
func (a *Agent) statusLoop(ctx context.Context) error {
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	var last Status
	for {
		if now := a.status(); changed(last, now) {
			if err := a.writeStatus(now); err != nil {
				a.log.Debug("status not written", "err", err)
			} else {
				last = now
			}
		}
		select {
		case <-ctx.Done():
			end := a.status()
			end.Connected = false
			if err := a.writeStatus(end); err != nil {
				a.log.Debug("status not written", "err", err)
			}
			return nil
		case <-tick.C:
		}
	}
}

// changed tells whether a person would call it a change: the same fault again,
// at another time, is none.
func changed(was, now Status) bool {
	strip := func(s Status) Status {
		s.Ways.Failed = append([]dial.Tried{}, s.Ways.Failed...)
		for i := range s.Ways.Failed {
			s.Ways.Failed[i].At = time.Time{}
		}
		return s
	}
	return !reflect.DeepEqual(strip(was), strip(now))
}

func (a *Agent) status() Status {
	l := a.link.Status()
	s := Status{
		ID: a.id.ID, Name: a.id.Name, Site: a.id.Site, Version: a.opts.Version, Process: os.Getpid(),
		Connected: l.Connected, LastError: l.LastError, Ways: a.dialer.Report(), Health: a.condition.Report().Words(),
	}
	if !l.Since.IsZero() {
		since := l.Since.UTC().Truncate(time.Second)
		s.Since = &since
	}
	if s.Connected {
		s.LastError = ""
	}
	if err := a.disk.last(); err != nil {
		s.Disk = err.Error()
	}
	if t, ok := a.guard.Status(); ok {
		s.Trust = &TrustStatus{Ends: t.Ends.UTC(), Role: t.EndsRole, Error: t.Error}
	}
	return s
}

func (a *Agent) writeStatus(s Status) error {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(statusPath(a.opts.State), append(data, '\n'), 0o600)
}
