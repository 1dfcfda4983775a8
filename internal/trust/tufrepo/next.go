package tufrepo

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// Documents are the newest of each role, as people change them: every Next
// method returns the next version of one, not signed yet.
type Documents map[string][]byte

// life is how long the next version of a role is good.
func life(role string) time.Duration {
	switch {
	case role == RoleRoot:
		return RootLife
	case role == RoleTargets:
		return TargetsLife
	case strings.HasSuffix(role, "-dev"):
		return DevLife
	}
	return RoleLife
}

// WarnBefore is how long before its end a role wants attention.
func WarnBefore(role string) time.Duration {
	switch role {
	case RoleSnapshot, RoleTimestamp:
		return OnlineLife / 2 // the controller signs them daily
	case RoleRoot:
		return 180 * 24 * time.Hour
	case RoleTargets:
		return 90 * 24 * time.Hour
	}
	return 30 * 24 * time.Hour
}

// NextRoot changes root; a change of nothing renews it.
func (d Documents) NextRoot(now time.Time, change func(*Root) error) ([]byte, error) {
	r := Root{}
	if data := d[RoleRoot]; data != nil {
		var err error
		if r, err = ParseRoot(data); err != nil {
			return nil, err
		}
	}
	if err := change(&r); err != nil {
		return nil, err
	}
	r.Version, r.Expires = r.Version+1, now.Add(life(RoleRoot))
	return r.Encode()
}

// NextTargets changes targets or a role that it delegates to.
func (d Documents) NextTargets(role string, now time.Time, change func(*Targets) error) ([]byte, error) {
	t := Targets{}
	if data := d[role]; data != nil {
		var err error
		if t, err = ParseTargets(data); err != nil {
			return nil, fmt.Errorf("role %s: %w", role, err)
		}
	}
	if err := change(&t); err != nil {
		return nil, err
	}
	t.Version, t.Expires = t.Version+1, now.Add(life(role))
	return t.Encode()
}

// ErrListed says that nothing has to change.
var ErrListed = errors.New("it is listed already")

// List adds a version, with the next counter of its name in its role.
func (t *Targets) List(one Target) error {
	for _, have := range t.Targets {
		if have.Path() == one.Path() {
			if have.Digest == one.Digest && slices.Equal(have.Hardware, one.Hardware) && have.MinAgent == one.MinAgent {
				return ErrListed
			}
			return fmt.Errorf("%s is listed already with other content: raise the version", one.Path())
		}
		if have.Subject() == one.Subject() {
			one.Counter = max(one.Counter, have.Counter)
		}
	}
	one.Counter++
	t.Targets = append(t.Targets, one)
	return nil
}

// Retire takes a version out: boxes install it no more, and go on running it.
func (t *Targets) Retire(name, version string) error {
	n := len(t.Targets)
	t.Targets = slices.DeleteFunc(t.Targets, func(o Target) bool { return o.Name == name && o.Version == version })
	if len(t.Targets) == n {
		return fmt.Errorf("%s:%s is not listed there", name, version)
	}
	return nil
}

// Revoke has a digest never be installed again.
func (p *Policy) Revoke(d blob.Digest) {
	if !slices.Contains(p.Revoked, d) {
		p.Revoked = append(p.Revoked, d)
	}
}

// Raise sets the least counter of a subject. It never sinks: boxes hold on to
// what they were told only as long as the newest targets say it. newest is the
// version of the highest counter that a role lists: a floor above that would leave
// boxes nothing to install.
func (p *Policy) Raise(subject string, counter uint64, newest Target) error {
	if kind, name, _ := strings.Cut(subject, "/"); kind != string(KindModel) && kind != string(KindRelease) || name == "" {
		return fmt.Errorf("%q is not like model/NAME or release/agent", subject)
	}
	have := p.Floors[subject]
	switch {
	case counter < have:
		return fmt.Errorf("the floor of %s is %d already and cannot be lowered", subject, have)
	case counter > have && newest.Counter == 0:
		return fmt.Errorf("no role lists %s, so a floor of it has nothing to keep; see edgeherd trust status and edgeherd model list", subject)
	case counter > have && counter > newest.Counter:
		return fmt.Errorf("the highest counter listed of %s is %d, of %s in %s: a floor of %d would refuse every version and cannot be lowered; give %d at most", subject, newest.Counter, newest.Version, RoleFor(newest.Kind, newest.Channel), counter, newest.Counter)
	}
	if p.Floors == nil {
		p.Floors = map[string]uint64{}
	}
	p.Floors[subject] = counter
	return nil
}

// Floor is the least counter of a subject that boxes install.
func (d Documents) Floor(subject string) uint64 {
	top, err := ParseTargets(d[RoleTargets])
	if err != nil || top.Policy == nil {
		return 0
	}
	return top.Policy.Floors[subject]
}

// Listed are all versions that roles list.
func (d Documents) Listed() (out []Target) {
	for _, role := range slices.Sorted(maps.Keys(d)) {
		if t, err := ParseTargets(d[role]); err == nil {
			out = append(out, t.Targets...)
		}
	}
	return out
}

// Newest is the version of a subject with the highest counter; empty: none is listed.
func (d Documents) Newest(subject string) (newest Target) {
	for _, t := range d.Listed() {
		if t.Subject() == subject && t.Counter > newest.Counter {
			newest = t
		}
	}
	return newest
}

// Change is what happens to the keys of a role. Threshold 0 leaves it.
type Change struct {
	Add []trust.PublicKey
	// Remove names keys by the first digits of their ids.
	Remove    []trust.KeyID
	Threshold int
}

// Apply changes the keys of a role.
func (c Change) Apply(role string, k *Keys) error {
	for _, id := range c.Remove {
		gone := func(p trust.PublicKey) bool { return id != "" && strings.HasPrefix(string(p.ID()), string(id)) }
		n := len(k.Public)
		left := slices.DeleteFunc(slices.Clone(k.Public), gone)
		if len(left) != n-1 {
			return fmt.Errorf("the id %q names %d keys of %s, which has %v", id, n-len(left), role, k.IDs())
		}
		k.Public = left
	}
	for _, p := range c.Add {
		if !slices.Contains(k.Public, p) {
			k.Public = append(k.Public, p)
		}
	}
	if c.Threshold > 0 {
		k.Threshold = c.Threshold
	}
	if k.Threshold > len(k.Public) {
		return fmt.Errorf("%s would need %d different keys to sign and have %d: give more with --add KEY, or fewer must sign with --threshold", role, k.Threshold, len(k.Public))
	}
	return k.check(role)
}

// Change changes the keys that root names for a role.
func (r *Root) Change(role string, c Change) error {
	switch role {
	case RoleRoot:
		return c.Apply(role, &r.Root)
	case RoleTargets:
		return c.Apply(role, &r.Targets)
	case RoleTimestamp:
		return c.Apply(role, &r.Online)
	}
	return fmt.Errorf("root names no keys of %s", role)
}

// RoleControllers is no document: it is the list of controllers in the policy.
const RoleControllers = "controllers"

// Change changes the keys of a role that is delegated to, or the controllers.
func (t *Targets) Change(role string, c Change) error {
	if role == RoleControllers && t.Policy != nil {
		k := Keys{Public: t.Policy.Controllers, Threshold: 1}
		err := c.Apply(role, &k)
		t.Policy.Controllers = k.Public
		return err
	}
	for i := range t.Delegations {
		if t.Delegations[i].Role == role {
			return c.Apply(role, &t.Delegations[i].Keys)
		}
	}
	return fmt.Errorf("nothing is delegated to a role %s", role)
}

// Keys are those that sign a role now; none when that is not known.
func (d Documents) Keys(role string) Keys {
	root, err := ParseRoot(d[RoleRoot])
	if err != nil {
		return Keys{}
	}
	switch role {
	case RoleRoot:
		return root.Root
	case RoleTargets:
		return root.Targets
	case RoleSnapshot, RoleTimestamp:
		return root.Online
	}
	top, err := ParseTargets(d[RoleTargets])
	if err != nil {
		return Keys{}
	}
	for _, one := range top.Delegations {
		if one.Role == role {
			return one.Keys
		}
	}
	return Keys{}
}

// Explain says in words what a document would change, for who is to sign it.
func (d Documents) Explain(role string, data []byte) (string, error) {
	head, err := ParseHead(data)
	if err != nil {
		return "", err
	}
	lines := []string{fmt.Sprintf("%s version %d, good until %s", role, head.Version, head.Expires.Format(time.DateOnly))}
	if role == RoleRoot {
		was, _ := ParseRoot(d[role]) // none is an empty one
		next, err := ParseRoot(data)
		for name, pair := range map[string][2]Keys{RoleRoot: {was.Root, next.Root}, RoleTargets: {was.Targets, next.Targets}, RoleTimestamp: {was.Online, next.Online}} {
			lines = append(lines, explainKeys(name, pair[0], pair[1])...)
		}
		slices.Sort(lines[1:])
		return strings.Join(lines, "\n"), err
	}
	was, _ := ParseTargets(d[role])
	next, err := ParseTargets(data)
	if err != nil {
		return "", err
	}
	for _, t := range next.Targets {
		if !slices.ContainsFunc(was.Targets, func(o Target) bool { return reflect.DeepEqual(o, t) }) {
			lines = append(lines, fmt.Sprintf("lists %s %s:%s, counter %d, %s%s", t.Kind, t.Name, t.Version, t.Counter, t.Digest, t.bounds()))
		}
	}
	for _, t := range was.Targets {
		if !slices.ContainsFunc(next.Targets, func(o Target) bool { return o.Path() == t.Path() }) {
			lines = append(lines, fmt.Sprintf("retires %s %s:%s", t.Kind, t.Name, t.Version))
		}
	}
	return strings.Join(append(lines, explainTop(was, next)...), "\n"), nil
}

// bounds says where a target may be installed, in words; empty: everywhere.
func (t Target) bounds() (text string) {
	if len(t.Hardware) > 0 {
		text = ", for " + strings.Join(t.Hardware, " ")
	}
	if t.MinAgent != "" {
		text += ", from agent " + t.MinAgent
	}
	return text
}

// explainTop is about what targets alone has.
func explainTop(was, next Targets) (lines []string) {
	if next.Policy != nil {
		have := Policy{}
		if was.Policy != nil {
			have = *was.Policy
		}
		for subject, n := range next.Policy.Floors {
			if have.Floors[subject] != n {
				lines = append(lines, fmt.Sprintf("least counter of %s: %d, was %d", subject, n, have.Floors[subject]))
			}
		}
		for subject, n := range have.Floors {
			if _, still := next.Policy.Floors[subject]; !still {
				lines = append(lines, fmt.Sprintf("NO LONGER has a least counter of %s, was %d", subject, n))
			}
		}
		if next.Policy.MinAgent != have.MinAgent {
			lines = append(lines, fmt.Sprintf("least agent: %q, was %q", next.Policy.MinAgent, have.MinAgent))
		}
		for _, d := range next.Policy.Revoked {
			if !slices.Contains(have.Revoked, d) {
				lines = append(lines, "revokes "+d.String())
			}
		}
		for _, d := range have.Revoked {
			if !slices.Contains(next.Policy.Revoked, d) {
				lines = append(lines, "NO LONGER revokes "+d.String())
			}
		}
		lines = append(lines, explainKeys("controllers", Keys{Public: have.Controllers}, Keys{Public: next.Policy.Controllers})...)
	}
	for _, d := range next.Delegations {
		before := Delegation{}
		for _, o := range was.Delegations {
			if o.Role == d.Role {
				before = o
			}
		}
		lines = append(lines, explainKeys(d.Role, before.Keys, d.Keys)...)
		if !slices.Equal(before.Paths, d.Paths) {
			lines = append(lines, fmt.Sprintf("%s may list %s, was %s", d.Role, strings.Join(d.Paths, " "), strings.Join(before.Paths, " ")))
		}
	}
	for _, d := range was.Delegations {
		if !slices.ContainsFunc(next.Delegations, func(o Delegation) bool { return o.Role == d.Role }) {
			lines = append(lines, "ends the role "+d.Role)
		}
	}
	slices.Sort(lines)
	return lines
}

func explainKeys(role string, was, next Keys) (lines []string) {
	if was.Threshold != next.Threshold {
		lines = append(lines, fmt.Sprintf("%s needs %d signatures, was %d", role, next.Threshold, was.Threshold))
	}
	for _, p := range next.Public {
		if !slices.Contains(was.Public, p) {
			lines = append(lines, fmt.Sprintf("%s gets key %s", role, p.ID()))
		}
	}
	for _, p := range was.Public {
		if !slices.Contains(next.Public, p) {
			lines = append(lines, fmt.Sprintf("%s loses key %s", role, p.ID()))
		}
	}
	return lines
}
