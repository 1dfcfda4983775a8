package tufrepo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// Kind says what a target is.
type Kind string

// The kinds.
const (
	KindModel   Kind = "model"
	KindRelease Kind = "release"
)

// Target is one version of a model or release that boxes may run: Digest and
// Length are of its envelope, the rest is what a box itself looks at.
type Target struct {
	Digest blob.Digest `json:"-"`
	Length int64       `json:"-"`

	Kind    Kind   `json:"kind"`
	Name    string `json:"name"` // of the model, or of the program
	Version string `json:"version"`
	Channel string `json:"channel"`
	// Counter grows with each version of a name in a channel.
	Counter uint64 `json:"counter"`
	// Hardware lists what it runs on, as boxes name themselves: board class or
	// architecture (amd64). Empty: anything.
	Hardware []string `json:"hardware,omitempty"`
	// MinAgent is the oldest agent that may install it; empty is any.
	MinAgent string `json:"min_agent,omitempty"`
}

// Path is the name of the target in its role.
func (t Target) Path() string {
	return strings.Join([]string{string(t.Kind), t.Channel, t.Name, t.Version}, "/")
}

// Fits says why a box must not install the target: names are what its machine
// is called, by board class and architecture, agent is the version there.
func (t Target) Fits(agent string, names ...string) error {
	ok := len(t.Hardware) == 0
	for _, n := range names {
		ok = ok || n != "" && slices.Contains(t.Hardware, n)
	}
	if !ok {
		return fmt.Errorf("it is for %s only, and this machine is %s", strings.Join(t.Hardware, ", "), strings.Join(names, " "))
	}
	return older(agent, t.MinAgent)
}

// older says whether an agent is older than allowed. A version that is none is
// one of development, which is taken for newest.
func older(agent, least string) error {
	if least == "" || !semver.IsValid("v"+agent) || semver.Compare("v"+agent, "v"+least) >= 0 {
		return nil
	}
	return fmt.Errorf("it needs agent %s or newer, this one is %s", least, agent)
}

// Subject is what a floor is about: versions of the same name.
func (t Target) Subject() string { return string(t.Kind) + "/" + t.Name }

// RoleFor is the role that lists targets of a kind and channel.
func RoleFor(kind Kind, channel string) string {
	if kind == KindRelease {
		return "agent-" + channel
	}
	return "models-" + channel
}

// PathsFor are the paths that such a role may list.
func PathsFor(kind Kind, channel string) []string {
	return []string{string(kind) + "/" + channel + "/*/*"}
}

// Policy is what the fleet's people have decided for all boxes. Only the keys
// of targets can change it.
type Policy struct {
	// Floors are the least counters that boxes still install, by Subject.
	Floors map[string]uint64 `json:"floors,omitempty"`
	// Revoked digests are never installed again, whoever lists them.
	Revoked []blob.Digest `json:"revoked,omitempty"`
	// MinAgent is the least version of agents that are installed; empty is any.
	MinAgent string `json:"min_agent,omitempty"`
	// Controllers may sign what boxes are assigned (desired state).
	Controllers []trust.PublicKey `json:"controllers"`
}

// PolicyPath is the name of the policy among the targets of targets.
const PolicyPath = "policy/floors.json"

// Delegation gives a role its keys and paths.
type Delegation struct {
	Role  string
	Keys  Keys
	Paths []string
}

// Targets is a role that lists targets: targets itself, or one it delegates to.
type Targets struct {
	Version int64
	Expires time.Time
	Targets []Target
	// Policy and Delegations are of the role targets alone.
	Policy      *Policy
	Delegations []Delegation
}

// Encode returns the document, not signed yet.
func (t Targets) Encode() ([]byte, error) {
	m := metadata.Targets(t.Expires.UTC().Truncate(time.Second))
	m.Signed.Version = t.Version
	if len(t.Targets) > MaxTargets {
		return nil, fmt.Errorf("%d targets in one role, at most %d: retire old versions first (edgeherd trust retire)", len(t.Targets), MaxTargets)
	}
	for _, one := range t.Targets {
		custom, err := encode(one)
		if err != nil {
			return nil, err
		}
		m.Signed.Targets[one.Path()] = &metadata.TargetFiles{
			Length: one.Length, Hashes: metadata.Hashes{"sha256": one.Digest[:]}, Custom: (*json.RawMessage)(&custom),
		}
	}
	if t.Policy != nil {
		custom, err := encode(t.Policy)
		if err != nil {
			return nil, err
		}
		m.Signed.Targets[PolicyPath] = &metadata.TargetFiles{Length: int64(len(custom)), Hashes: sum(custom), Custom: (*json.RawMessage)(&custom)}
	}
	if err := t.delegate(m); err != nil {
		return nil, err
	}
	return m.ToBytes(false)
}

func (t Targets) delegate(m *metadata.Metadata[metadata.TargetsType]) error {
	if len(t.Delegations) == 0 {
		return nil
	}
	d := &metadata.Delegations{Keys: map[string]*metadata.Key{}}
	for _, one := range t.Delegations {
		if !ValidRole(one.Role) || slices.Contains(metadata.TOP_LEVEL_ROLE_NAMES[:], one.Role) {
			return fmt.Errorf("role name %q: use lower case letters, digits and -", one.Role)
		}
		if err := one.Keys.check(one.Role); err != nil {
			return err
		}
		role := metadata.DelegatedRole{Name: one.Role, Threshold: one.Keys.Threshold, Terminating: true, Paths: one.Paths}
		for _, p := range one.Keys.Public {
			k, id, err := tufKey(p)
			if err != nil {
				return err
			}
			d.Keys[id] = k
			role.KeyIDs = append(role.KeyIDs, id)
		}
		d.Roles = append(d.Roles, role)
	}
	m.Signed.Delegations = d
	return nil
}

// ParseTargets reads a role for its next version.
func ParseTargets(data []byte) (Targets, error) {
	m, err := read(data, metadata.Targets().FromBytes)
	if err != nil {
		return Targets{}, fmt.Errorf("parse targets: %w", err)
	}
	return TargetsOf(m)
}

// TargetsOf is ParseTargets for a document that the library has read.
func TargetsOf(m *metadata.Metadata[metadata.TargetsType]) (Targets, error) {
	t := Targets{Version: m.Signed.Version, Expires: m.Signed.Expires}
	for path, file := range m.Signed.Targets {
		if path == PolicyPath {
			p, err := PolicyOf(file)
			if err != nil {
				return Targets{}, err
			}
			t.Policy = &p
			continue
		}
		one, err := TargetOf(path, file)
		if err != nil {
			return Targets{}, err
		}
		t.Targets = append(t.Targets, one)
	}
	slices.SortFunc(t.Targets, func(a, b Target) int { return strings.Compare(a.Path(), b.Path()) })
	if m.Signed.Delegations == nil {
		return t, nil
	}
	for _, r := range m.Signed.Delegations.Roles {
		keys, err := parseKeys(r.KeyIDs, r.Threshold, m.Signed.Delegations.Keys)
		if err != nil {
			return Targets{}, fmt.Errorf("role %s: %w", r.Name, err)
		}
		t.Delegations = append(t.Delegations, Delegation{Role: r.Name, Keys: keys, Paths: r.Paths})
	}
	return t, nil
}

// TargetOf reads what a role says of a path.
func TargetOf(path string, file *metadata.TargetFiles) (Target, error) {
	if file == nil || file.Custom == nil {
		return Target{}, fmt.Errorf("target %q says nothing of itself", path)
	}
	var t Target
	if err := decode(*file.Custom, &t); err != nil {
		return Target{}, fmt.Errorf("target %q: %w", path, err)
	}
	if t.Path() != path {
		return Target{}, fmt.Errorf("target %q says that it is %q", path, t.Path())
	}
	raw := file.Hashes["sha256"]
	if len(raw) != len(t.Digest) || file.Length < 1 {
		return Target{}, fmt.Errorf("target %q has no SHA-256 or no length", path)
	}
	t.Digest, t.Length = blob.Digest(raw), file.Length
	return t, nil
}

// PolicyOf reads what targets says at PolicyPath.
func PolicyOf(file *metadata.TargetFiles) (p Policy, err error) {
	if file == nil || file.Custom == nil {
		return p, errors.New("the policy is empty")
	}
	if err := decode(*file.Custom, &p); err != nil {
		return p, fmt.Errorf("parse policy: %w", err)
	}
	return p, nil
}

// decode ignores keys it does not know: a newer publisher may say more, and a
// box that stopped at that could not even be updated.
func decode(data []byte, into any) error { return json.NewDecoder(bytes.NewReader(data)).Decode(into) }
