// Package authz decides who may do what. Allow is the only gate: the API asks
// it for every route, and for every thing that a list would show.
//
// Vocabulary: a subject is a person or a token with one role and the sites it
// may see; a verb is what it wants to do; a resource is where: at one site, in
// the whole fleet, or somewhere, when the answer itself is filtered by site.
// What a subject may not see does not exist for it (ErrForeign); what it sees
// and may not do is Denied.
//
// The table below is the whole authorisation. What is not in it is refused. No
// role but Owner brings both software and users into a fleet, and Owner is only
// what a controller gives to its own machine: to the files in its state folder,
// whose reader holds the signing key and the database anyway.
//
// The one rule a caller can break: an answer that was allowed Somewhere must be
// filtered by Subject.Sees.
package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Role is what a subject is in the fleet.
type Role string

// The roles.
const (
	Viewer Role = "viewer"
	Tech   Role = "tech"
	Ops    Role = "ops"
	Admin  Role = "admin"
	// Owner is ops and admin in one. No user and no token made over the API has
	// it.
	Owner Role = "owner"
)

// Roles are those that people and tokens may be given.
func Roles() []Role { return []Role{Viewer, Tech, Ops, Admin} }

// Verb is what a subject wants to do.
type Verb string

// The verbs.
const (
	Self      Verb = "self"           // one's own session
	See       Verb = "fleet.see"      // boxes, health, tickets, models, rollouts
	Enrol     Verb = "box.enrol"      // one-use enrolment tokens, replace, retire
	EnrolMany Verb = "box.enrol-many" // enrolment tokens for several boxes
	Approve   Verb = "box.approve"    // boxes that wait, clones
	Tend      Verb = "care.act"       // tickets, visits, filters
	Push      Verb = "artefact.push"  // models and releases; a signing key is needed too
	Roll      Verb = "rollout.run"    // plan, start, resume, approve, roll back, lock
	Halt      Verb = "rollout.stop"   // pause and cancel
	Set       Verb = "site.set"       // settings of sites, tests of notices
	Secrets   Verb = "secret.set"     // secrets of boxes, whose values nobody reads
	People    Verb = "people.manage"  // users, tokens, sign-in
	Audit     Verb = "audit.read"     // what one did oneself
	AuditAll  Verb = "audit.read-all" // what anybody did
	Export    Verb = "audit.export"
)

// table says who may do what; site scope comes on top. Roles that are not
// named may not.
var table = map[Verb][]Role{
	Self:      {Viewer, Tech, Ops, Admin, Owner},
	See:       {Viewer, Tech, Ops, Admin, Owner},
	Enrol:     {Tech, Ops, Admin, Owner},
	EnrolMany: {Ops, Admin, Owner},
	Approve:   {Tech, Ops, Admin, Owner},
	Tend:      {Tech, Ops, Admin, Owner},
	Push:      {Ops, Owner},
	Roll:      {Ops, Owner},
	Halt:      {Ops, Admin, Owner},
	Set:       {Ops, Admin, Owner},
	Secrets:   {Ops, Admin, Owner},
	People:    {Admin, Owner},
	Audit:     {Tech, Ops, Admin, Owner},
	AuditAll:  {Ops, Admin, Owner},
	Export:    {Admin, Owner},
}

// AllSites, as the only site of a subject, means every site, those to come as
// well.
const AllSites = "*"

// Subject is who asks.
type Subject struct {
	Name string
	Role Role
	// Sites it may see; none sees nothing. See AllSites.
	Sites []string
	// Verbs narrow what the role may do, for tokens; none means all of it.
	Verbs []Verb
}

// Everywhere reports whether the subject sees all sites.
func (s Subject) Everywhere() bool { return slices.Contains(s.Sites, AllSites) }

// Sees reports whether the subject sees a site.
func (s Subject) Sees(site string) bool { return s.Everywhere() || slices.Contains(s.Sites, site) }

// Can are the verbs that the subject may do somewhere, sorted.
func (s Subject) Can() []Verb {
	out := []Verb{}
	for v := range table {
		if Allow(s, v, Somewhere()) == nil {
			out = append(out, v)
		}
	}
	slices.Sort(out)
	return out
}

// Resource is where something is to be done.
type Resource struct {
	place place
	site  string
}

type place int

const (
	inFleet place = iota // the zero Resource needs the most
	atSite
	somewhere
)

// Fleet is what concerns all sites at once.
func Fleet() Resource { return Resource{} }

// At is what belongs to one site.
func At(site string) Resource { return Resource{atSite, site} }

// Somewhere is an answer that is filtered by site, or has none.
func Somewhere() Resource { return Resource{place: somewhere} }

// ErrForeign says that the subject may not know of the thing: answer as if it
// did not exist.
var ErrForeign = errors.New("not found")

// Denied says that the subject may not do this.
type Denied struct{ Why, Hint string }

func (d *Denied) Error() string { return d.Why }

// Allow returns nil when the subject may do the verb there, else ErrForeign or
// a *Denied.
func Allow(s Subject, v Verb, r Resource) error {
	if r.place == atSite && !s.Sees(r.site) {
		return ErrForeign
	}
	may := table[v]
	if !slices.Contains(may, s.Role) {
		return &Denied{fmt.Sprintf("%s has the role %q; this needs %s", s.Name, s.Role, list(may)), "Ask an admin for that role: `edgeherd user role`, or for a token with it: `edgeherd token create`."}
	}
	// Who may run rollouts may stop them.
	scoped := slices.Contains(s.Verbs, v) || v == Halt && slices.Contains(s.Verbs, Roll)
	if len(s.Verbs) > 0 && v != Self && !scoped {
		return &Denied{fmt.Sprintf("the token %s is for %s; this needs %s", s.Name, join(s.Verbs), v), "Ask an admin for a token with that scope: `edgeherd token create --scope`."}
	}
	if r.place == inFleet && !s.Everywhere() {
		return &Denied{fmt.Sprintf("%s sees %s; this concerns all sites", s.Name, strings.Join(s.Sites, ", ")), "Ask somebody who sees all sites."}
	}
	return nil
}

// Check says what is wrong with what somebody is to be given.
func Check(role Role, sites []string, verbs []Verb) error {
	if !slices.Contains(Roles(), role) {
		return fmt.Errorf("role %q: want %s", role, list(Roles()))
	}
	if len(sites) == 0 {
		return fmt.Errorf("a %s needs sites: name them, or * for all", role)
	}
	for _, s := range sites {
		if s == "" || s == AllSites && len(sites) > 1 {
			return errors.New("sites are names, or * alone for all")
		}
	}
	for _, v := range verbs {
		if !slices.Contains(table[v], role) || v == Self {
			return fmt.Errorf("scope %q is nothing that a %s may do", v, role)
		}
	}
	return nil
}

// SitesFor are the sites of a role when none are named: ops and admin see the
// whole fleet, others must be told.
func SitesFor(role Role, sites []string) []string {
	if len(sites) == 0 && (role == Ops || role == Admin || role == Owner) {
		return []string{AllSites}
	}
	return sites
}

func list(roles []Role) string {
	if len(roles) == 0 {
		return "a role that nobody has"
	}
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = fmt.Sprintf("%q", r)
	}
	return strings.Join(words, " or ")
}

func join(verbs []Verb) string {
	words := make([]string, len(verbs))
	for i, v := range verbs {
		words[i] = string(v)
	}
	return strings.Join(words, ", ")
}
