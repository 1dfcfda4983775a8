package tufrepo

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/trust"
)

// Stage is how near a role is to its end. Only a renewal takes it back.
type Stage int

// The stages. Soon begins at WarnBefore; what has ended installs nothing new.
const (
	Good Stage = iota
	Soon
	LastWeek
	Ended
)

// week is how long before the end of a role somebody must act at once.
const week = 7 * 24 * time.Hour

// String is the word of a stage in the API.
func (s Stage) String() string { return [...]string{"good", "soon", "last_week", "ended"}[s] }

// StageOf says how near a role is to its end.
func StageOf(role string, expires, now time.Time) Stage {
	switch left := expires.Sub(now); {
	case left <= 0:
		return Ended
	case left >= WarnBefore(role):
		return Good
	case left >= week:
		return Soon
	}
	return LastWeek
}

// Standing is how a role in force does, and who can renew it.
type Standing struct {
	Role    string
	Version int64
	Expires time.Time
	Stage   Stage
	Keys    Keys
	Signed  []trust.KeyID
	// Waits is how many signatures a staged next version lacks; 0: none is staged.
	Waits int
}

// Standings are those of the roles that boxes look at: of a role that nothing is
// delegated to any more nobody needs to hear. staged are documents that wait for
// signatures.
func (d Documents) Standings(staged Documents, now time.Time) ([]Standing, error) {
	if d[RoleRoot] == nil {
		return nil, nil
	}
	root, err := ParseRoot(d[RoleRoot])
	if err != nil {
		return nil, fmt.Errorf("role %s: %w", RoleRoot, err)
	}
	roles := []Delegation{{Role: RoleRoot, Keys: root.Root}, {Role: RoleTargets, Keys: root.Targets}}
	if d[RoleTargets] != nil {
		top, err := ParseTargets(d[RoleTargets])
		if err != nil {
			return nil, fmt.Errorf("role %s: %w", RoleTargets, err)
		}
		roles = append(roles, top.Delegations...)
	}
	roles = append(roles, Delegation{Role: RoleSnapshot, Keys: root.Online}, Delegation{Role: RoleTimestamp, Keys: root.Online})
	var out []Standing
	for _, r := range roles {
		if d[r.Role] == nil || slices.ContainsFunc(out, func(s Standing) bool { return s.Role == r.Role }) {
			continue
		}
		head, err := ParseHead(d[r.Role])
		if err != nil {
			return nil, fmt.Errorf("role %s: %w", r.Role, err)
		}
		s := Standing{Role: r.Role, Version: head.Version, Expires: head.Expires, Stage: StageOf(r.Role, head.Expires, now), Keys: r.Keys, Signed: r.Keys.Signed(d[r.Role])}
		if next := staged[r.Role]; next != nil {
			s.Waits = r.Keys.Missing(next)
		}
		out = append(out, s)
	}
	return out, nil
}

// Online reports whether the controller signs the role by itself.
func (s Standing) Online() bool { return s.Role == RoleSnapshot || s.Role == RoleTimestamp }

// Do is the command that renews the role, to be pasted and given the files of
// keys; "" when the controller renews it.
func (s Standing) Do() string {
	switch {
	case s.Online():
		return ""
	case s.Waits > 0:
		return "edgeherd trust sign " + s.Role + s.files(s.Waits)
	}
	return "edgeherd trust renew " + s.Role + s.files(s.Keys.Threshold)
}

// files are n files of keys, no more than there are keys: a threshold may be any
// number, in a document that nobody signed.
func (s Standing) files(n int) string {
	return strings.Repeat(" --key FILE", max(0, min(n, len(s.Keys.Public))))
}
