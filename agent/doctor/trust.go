package doctor

import (
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/agent"
)

// endsSoon is how long before the metadata ends a person in front of the box hears
// of it: the controller signs what ends first anew each day, for 30 days.
const endsSoon = 7 * 24 * time.Hour

// trust tells until when new versions can be installed, as the agent knows it; nil
// while no agent has run, or in development.
func (e examination) trust() []Finding {
	s, err := agent.ReadStatus(e.opts.State)
	if err != nil || s.Trust == nil {
		return nil
	}
	f := Finding{Check: "fleet's metadata", Level: OK}
	left := s.Trust.Ends.Sub(e.now())
	switch day := s.Trust.Ends.Format(time.DateOnly); {
	case s.Trust.Ends.IsZero():
		f.Level, f.Found, f.Way = Warn, "none yet: nothing new is installed", "see the ways to the controller above"
	case left <= 0:
		f.Level, f.Found = Warn, fmt.Sprintf("%s ended %s: nothing new is installed, what runs goes on", s.Trust.Role, day)
	case left < endsSoon:
		f.Level, f.Found = Warn, fmt.Sprintf("%s ends %s", s.Trust.Role, day)
	default:
		f.Found = fmt.Sprintf("good until %s (%s)", day, s.Trust.Role)
	}
	if f.Level != OK && f.Way == "" {
		f.Way = "bring the box to its controller; if it connects, ops: edgeherd trust status"
	}
	if f.Level != OK && s.Trust.Error != "" {
		f.Found += "; the last refresh: " + s.Trust.Error
	}
	return []Finding{f}
}
