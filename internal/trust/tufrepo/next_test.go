package tufrepo_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestDocumentsComeBackAsTheyWereMade(t *testing.T) {
	r := trusttest.New(t, func() time.Time { return now })
	one := r.Model("vad", "1.0.0", "one", 7)
	one.Hardware, one.MinAgent = []string{"arm64"}, "1.2.0"
	r.List(trusttest.Stable, one)
	role, err := tufrepo.ParseTargets(r.Sign(r.Roles[trusttest.Stable], r.Keys[trusttest.Stable]...))
	if err != nil || len(role.Targets) != 1 || role.Targets[0].Digest != one.Digest || role.Targets[0].MinAgent != "1.2.0" || role.Targets[0].Hardware[0] != "arm64" {
		t.Errorf("role came back as %+v, %v", role, err)
	}
	root, err := tufrepo.ParseRoot(r.Pin)
	if err != nil || root.Root.Threshold != 2 || len(root.Root.Public) != 3 || root.Version != 1 || !root.Expires.Equal(r.Root.Expires) {
		t.Errorf("root came back as %+v, %v", root, err)
	}
	again, err := tufrepo.ParseTargets(r.Sign(r.Targets, r.Keys[tufrepo.RoleTargets]...))
	if err != nil || len(again.Delegations) != 2 || again.Policy == nil || len(again.Policy.Controllers) != 1 {
		t.Errorf("targets came back as %+v, %v", again, err)
	}
}

func TestSignaturesOfSeveralPeopleJoin(t *testing.T) {
	r := trusttest.New(t, func() time.Time { return now })
	keys := r.Keys[tufrepo.RoleRoot]
	ring := r.Public(tufrepo.RoleRoot, 2)
	a, b := r.Sign(r.Root, keys[0]), r.Sign(r.Root, keys[2])
	if ring.Missing(a) != 1 || ring.Missing(b) != 1 {
		t.Fatalf("missing %d and %d", ring.Missing(a), ring.Missing(b))
	}
	both, err := tufrepo.Merge(a, b)
	if err != nil || ring.Missing(both) != 0 {
		t.Errorf("joined: %v, missing %d", err, ring.Missing(both))
	}
	r.Root.Version = 2
	if _, err := tufrepo.Merge(a, r.Sign(r.Root, keys[1])); !errors.Is(err, tufrepo.ErrDiffer) {
		t.Errorf("signatures of another document joined: %v", err)
	}
	stranger := r.Sign(r.Root, trusttest.NewKey(t))
	if len(ring.Signed(stranger)) != 0 {
		t.Error("a stranger's signature counts")
	}
}

func TestWhatCannotBeFulfilledIsNotMade(t *testing.T) {
	r := trusttest.New(t, func() time.Time { return now })
	k := trusttest.NewKey(t).Public()
	for name, keys := range map[string]tufrepo.Keys{
		"no key":        {Threshold: 1},
		"no threshold":  {Public: []trust.PublicKey{k}},
		"one key twice": {Public: []trust.PublicKey{k, k}, Threshold: 2},
		"three of one":  {Public: []trust.PublicKey{k}, Threshold: 3},
	} {
		root := r.Root
		root.Root = keys
		if _, err := root.Encode(); err == nil {
			t.Errorf("%s: encoded", name)
		}
	}
	many := tufrepo.Targets{Version: 1, Expires: now}
	for i := range tufrepo.MaxTargets + 1 {
		many.Targets = append(many.Targets, tufrepo.Target{Kind: tufrepo.KindModel, Name: "m", Version: strings.Repeat("1", i+1), Digest: blob.Sum([]byte{byte(i)}), Length: 1})
	}
	if _, err := many.Encode(); err == nil {
		t.Error("too many targets were encoded")
	}
}

func TestTheNextVersionOfAName(t *testing.T) {
	var s tufrepo.Targets
	one := tufrepo.Target{Kind: tufrepo.KindModel, Name: "vad", Version: "1", Channel: "stable", Digest: blob.Sum([]byte("1")), Length: 1}
	if err := s.List(one); err != nil || s.Targets[0].Counter != 1 {
		t.Fatalf("first: %v, %+v", err, s)
	}
	if err := s.List(one); !errors.Is(err, tufrepo.ErrListed) {
		t.Errorf("again: %v", err)
	}
	other := one
	other.Digest = blob.Sum([]byte("x"))
	if err := s.List(other); err == nil || errors.Is(err, tufrepo.ErrListed) {
		t.Errorf("other content under the same version: %v", err)
	}
	two := other
	two.Version = "2"
	if err := s.List(two); err != nil || s.Targets[1].Counter != 2 {
		t.Errorf("second: %v, %+v", err, s)
	}
	if err := s.Retire("vad", "1"); err != nil || len(s.Targets) != 1 {
		t.Errorf("retired: %v", err)
	}
	var p tufrepo.Policy
	five := tufrepo.Target{Kind: tufrepo.KindModel, Name: "vad", Version: "5", Channel: "stable", Counter: 5}
	if p.Raise("model/vad", 5, five) != nil || p.Raise("model/vad", 4, five) == nil || p.Raise("vad", 4, five) == nil {
		t.Errorf("floors: %+v", p)
	}
}

func TestT29WrongHardwareIsRefusedByTheBox(t *testing.T) {
	jetson := tufrepo.Target{Hardware: []string{"jetson"}, MinAgent: "1.4.0"}
	for _, tt := range []struct {
		agent, class, arch string
		fits               bool
	}{
		{"1.4.0", "jetson", "arm64", true},
		{"1.5.0-rc.1", "jetson", "arm64", true},
		{"dev", "jetson", "arm64", true},
		{"1.3.9", "jetson", "arm64", false},
		{"1.4.0", "itx", "amd64", false},
		{"1.4.0", "", "arm64", false},
		{"1.4.0", "", "", false},
	} {
		if err := jetson.Fits(tt.agent, tt.class, tt.arch); (err == nil) != tt.fits {
			t.Errorf("agent %s on %s %s: %v", tt.agent, tt.class, tt.arch, err)
		}
	}
	if err := (tufrepo.Target{}).Fits("", "", ""); err != nil {
		t.Errorf("for anything: %v", err)
	}
}

func TestT34NamesOfDocumentsAreNoPaths(t *testing.T) {
	for _, name := range []string{"", ".json", "../1.root.json", "1.../root.json", "01.root.json", "-1.root.json", "1.root.json.json", "1.ROOT.json", "1.root", "1.a/b.json", "1.%2e.json", "0.root.json", "99999999999999999999.root.json"} {
		if role, v, err := tufrepo.ParseFileName(name); err == nil {
			t.Errorf("%q is taken for version %d of %q", name, v, role)
		}
	}
	if role, v, err := tufrepo.ParseFileName("12.models-stable.json"); err != nil || role != "models-stable" || v != 12 {
		t.Errorf("got %s %d %v", role, v, err)
	}
}

// A floor cannot be lowered: one that is above all that is listed would leave boxes
// nothing to install, for ever.
func TestAFloorIsNeverAboveWhatIsListed(t *testing.T) {
	r := trusttest.New(t, func() time.Time { return now })
	r.List(trusttest.Stable, r.Model("vad", "1.0.0", "one", 3))
	r.List(trusttest.Stable, r.Model("vad", "2.0.0", "two", 4))
	r.List(trusttest.Stable, r.Model("eye", "9.0.0", "nine", 9))
	docs := tufrepo.Documents{tufrepo.RoleRoot: r.Pin, tufrepo.RoleTargets: r.Sign(r.Targets), trusttest.Stable: r.Sign(r.Roles[trusttest.Stable])}
	newest := docs.Newest("model/vad")
	if newest.Version != "2.0.0" || docs.Newest("model/none").Counter != 0 || docs.Newest("release/vad").Counter != 0 {
		t.Fatalf("newest of vad: %+v", newest)
	}
	p := tufrepo.Policy{Floors: map[string]uint64{"model/old": 7}}
	for _, c := range []struct {
		subject string
		counter uint64
		newest  tufrepo.Target
		want    string
	}{
		{"model/vad", 5, newest, "highest counter listed of model/vad is 4, of 2.0.0 in models-stable"},
		{"model/none", 1, tufrepo.Target{}, "no role lists model/none"},
		{"model/vad", 4, newest, ""},
		{"model/vad", 3, newest, "is 4 already and cannot be lowered"},
		{"model/old", 7, tufrepo.Target{}, ""}, // as it is, though all were retired since
	} {
		err := p.Raise(c.subject, c.counter, c.newest)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("floor of %s at %d: %v, want %q", c.subject, c.counter, err, c.want)
		}
	}
	if p.Floors["model/vad"] != 4 || len(p.Floors) != 2 {
		t.Errorf("floors: %v", p.Floors)
	}
}

func TestAChangeOfKeysNamesTheRoleAndTheWayOut(t *testing.T) {
	a, b := trusttest.NewKey(t).Public(), trusttest.NewKey(t).Public()
	keys := func() tufrepo.Keys { return tufrepo.Keys{Public: []trust.PublicKey{a, b}, Threshold: 1} }
	for name, c := range map[string]struct {
		change tufrepo.Change
		want   string
	}{
		"more than there are": {tufrepo.Change{Threshold: 3}, "models-dev would need 3 different keys to sign and have 2: give more with --add KEY"},
		"the last but one":    {tufrepo.Change{Remove: []trust.KeyID{a.ID()}, Threshold: 2}, "models-dev would need 2 different keys to sign and have 1"},
		"an id of nobody":     {tufrepo.Change{Remove: []trust.KeyID{"zz"}}, `the id "zz" names 0 keys of models-dev`},
		"no id":               {tufrepo.Change{Remove: []trust.KeyID{""}}, `the id "" names 0 keys`},
	} {
		k := keys()
		if err := c.change.Apply("models-dev", &k); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	k := keys()
	if err := (tufrepo.Change{Remove: []trust.KeyID{trust.KeyID(a.ID().Short())}}).Apply("models-dev", &k); err != nil || len(k.Public) != 1 || k.Public[0] != b {
		t.Errorf("a key by the digits that people are shown: %v, %+v", err, k)
	}
}

// What pages and notices say of a role changes at these moments and at no others.
func TestAStageBeginsAtItsBoundary(t *testing.T) {
	const day = 24 * time.Hour
	for _, c := range []struct {
		role string
		left time.Duration
		want tufrepo.Stage
	}{
		{tufrepo.RoleRoot, 180 * day, tufrepo.Good},
		{tufrepo.RoleRoot, 180*day - 1, tufrepo.Soon},
		{tufrepo.RoleTargets, 90 * day, tufrepo.Good},
		{tufrepo.RoleTargets, 90*day - 1, tufrepo.Soon},
		{"models-stable", 30 * day, tufrepo.Good},
		{"models-stable", 30*day - 1, tufrepo.Soon},
		{tufrepo.RoleTimestamp, 15 * day, tufrepo.Good},
		{tufrepo.RoleTimestamp, 15*day - 1, tufrepo.Soon},
		{"models-stable", 7 * day, tufrepo.Soon},
		{"models-stable", 7*day - 1, tufrepo.LastWeek},
		{tufrepo.RoleRoot, 1, tufrepo.LastWeek},
		{tufrepo.RoleRoot, 0, tufrepo.Ended},
		{tufrepo.RoleRoot, -1, tufrepo.Ended},
	} {
		if got := tufrepo.StageOf(c.role, now.Add(c.left), now); got != c.want {
			t.Errorf("%s, %s before its end: %s, want %s", c.role, c.left, got, c.want)
		}
	}
}
