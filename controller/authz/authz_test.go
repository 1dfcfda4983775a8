package authz

import (
	"errors"
	"slices"
	"testing"
)

// TestRolesAreTheTable is the table of rights, written a second time by hand:
// own sites (o), all sites (a) or not at all (-).
func TestRolesAreTheTable(t *testing.T) {
	for v, want := range map[Verb]string{ // viewer, tech, ops, admin
		Self: "oooo", See: "oooo", Enrol: "-ooo", EnrolMany: "--oo", Approve: "-ooo", Tend: "-ooo",
		Push: "--o-", Roll: "--o-", Halt: "--oo", Set: "--oo", Secrets: "--oo", People: "---o", Audit: "-ooo", AuditAll: "--oo", Export: "---o",
	} {
		for i, role := range Roles() {
			s := Subject{Name: "x", Role: role, Sites: SitesFor(role, nil)}
			if len(s.Sites) == 0 {
				s.Sites = []string{"a"}
			}
			if got := Allow(s, v, At("a")) == nil; got != (want[i] == 'o') {
				t.Errorf("%s for %s at its site: %v", v, role, got)
			}
			if got := Allow(s, v, Somewhere()) == nil; got != (want[i] == 'o') {
				t.Errorf("%s for %s somewhere: %v", v, role, got)
			}
			whole := role == Ops || role == Admin
			if got := Allow(s, v, Fleet()) == nil; got != (want[i] == 'o' && whole) {
				t.Errorf("%s for %s in the fleet: %v", v, role, got)
			}
			if err := Allow(s, v, At("b")); !whole && !errors.Is(err, ErrForeign) {
				t.Errorf("%s for %s at a foreign site: %v", v, role, err)
			}
		}
	}
}

func TestWhatIsNotInTheTableIsRefused(t *testing.T) {
	for _, s := range []Subject{{}, {Role: "king", Sites: []string{AllSites}}, {Role: Viewer}} {
		if err := Allow(s, See, At("a")); err == nil {
			t.Errorf("%+v sees a site", s)
		}
	}
	if err := Allow(Subject{Role: Owner, Sites: []string{AllSites}}, "box.burn", Somewhere()); err == nil {
		t.Error("a verb that nobody knows is allowed")
	}
	if err := Allow(Subject{Role: Ops, Sites: []string{"a"}}, Roll, Resource{}); err == nil {
		t.Error("a resource that nobody set is allowed")
	}
}

func TestNoRoleOfAPersonBringsSoftwareAndUsers(t *testing.T) {
	for _, role := range Roles() {
		s := Subject{Role: role, Sites: []string{AllSites}}
		if Allow(s, People, Fleet()) == nil && (Allow(s, Push, Fleet()) == nil || Allow(s, Roll, Fleet()) == nil) {
			t.Errorf("%s alone takes the fleet over", role)
		}
	}
	if err := Check(Owner, []string{AllSites}, nil); err == nil {
		t.Error("a person may be made owner")
	}
}

// T24: a technician who mints tokens for sale.
func TestT24TechMintsOnlyForOwnSitesAndOneBox(t *testing.T) {
	s := Subject{Name: "tom", Role: Tech, Sites: []string{"a"}}
	if err := Allow(s, Enrol, At("a")); err != nil {
		t.Errorf("at the own site: %v", err)
	}
	if err := Allow(s, Enrol, At("b")); !errors.Is(err, ErrForeign) {
		t.Errorf("at a foreign site: %v", err)
	}
	var d *Denied
	if err := Allow(s, EnrolMany, At("a")); !errors.As(err, &d) || d.Hint == "" {
		t.Errorf("for many boxes: %v", err)
	}
}

// T25: a technician who pushes a model.
func TestT25TechCannotBringSoftware(t *testing.T) {
	s := Subject{Name: "tom", Role: Tech, Sites: []string{AllSites}}
	for _, v := range []Verb{Push, Roll, Halt} {
		if Allow(s, v, Fleet()) == nil {
			t.Errorf("a tech may %s", v)
		}
	}
}

func TestScopeNarrowsAndNeverWidens(t *testing.T) {
	s := Subject{Name: "ci", Role: Ops, Sites: []string{AllSites}, Verbs: []Verb{Push}}
	if err := Allow(s, Push, Fleet()); err != nil {
		t.Error(err)
	}
	if Allow(s, Roll, Fleet()) == nil || Allow(s, See, Somewhere()) == nil {
		t.Error("a token does more than its scope says")
	}
	s = Subject{Name: "cd", Role: Ops, Sites: []string{AllSites}, Verbs: []Verb{Roll}}
	if err := Allow(s, Halt, Fleet()); err != nil {
		t.Errorf("who starts rollouts cannot stop them: %v", err)
	}
	s.Verbs = []Verb{Halt}
	if Allow(s, Roll, Fleet()) == nil {
		t.Error("who stops rollouts can start them")
	}
	s = Subject{Role: Viewer, Sites: []string{AllSites}, Verbs: []Verb{Push}}
	if Allow(s, Push, Fleet()) == nil {
		t.Error("a scope gave what the role has not")
	}
	if got := (Subject{Role: Viewer, Sites: []string{"a"}}).Can(); !slices.Equal(got, []Verb{See, Self}) {
		t.Errorf("a viewer can %v", got)
	}
}

func TestWhatIsGivenIsChecked(t *testing.T) {
	for _, c := range []struct {
		name  string
		role  Role
		sites []string
		verbs []Verb
		ok    bool
	}{
		{"tech of a site", Tech, []string{"a"}, nil, true},
		{"viewer of all", Viewer, []string{AllSites}, nil, true},
		{"tech of no site", Tech, nil, nil, false},
		{"all and one", Ops, []string{AllSites, "a"}, nil, false},
		{"site without a name", Ops, []string{""}, nil, false},
		{"no role", "", []string{"a"}, nil, false},
		{"scope of the role", Ops, []string{AllSites}, []Verb{Push, See}, true},
		{"scope beyond the role", Tech, []string{"a"}, []Verb{Push}, false},
		{"scope that is none", Ops, []string{AllSites}, []Verb{"fly"}, false},
	} {
		if err := Check(c.role, c.sites, c.verbs); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
