package tufrepo_test

import (
	"bytes"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// What is shown to whoever signs may come from anybody.
func TestAnEmptyPlaceInADocumentIsAnErrorAndNotTheEnd(t *testing.T) {
	for name, data := range map[string]string{
		"a target that is nothing":     `{"signatures":[],"signed":{"_type":"targets","version":1,"targets":{"x":null}}}`,
		"a role that is nothing":       `{"signatures":[],"signed":{"_type":"root","version":1,"roles":{"root":null}}}`,
		"a delegation that is nothing": `{"signatures":[],"signed":{"_type":"targets","version":1,"delegations":{"keys":{"x":null},"roles":[{"name":"a","keyids":["x"],"threshold":1}]}}}`,
	} {
		if _, err := tufrepo.ParseRoot([]byte(data)); err == nil {
			t.Errorf("%s: read as a root", name)
		}
		if _, err := tufrepo.ParseTargets([]byte(data)); err == nil {
			t.Errorf("%s: read as targets", name)
		}
		_, _ = tufrepo.Normal([]byte(data)) // which says nothing of what it means
		if text, err := (tufrepo.Documents{}).Explain(tufrepo.RoleTargets, []byte(data)); err == nil {
			t.Errorf("%s: explained: %s", name, text)
		}
	}
}

// trust status shows what a controller shows it, signed or not.
func TestAnyThresholdHasACommand(t *testing.T) {
	for threshold, want := range map[int]string{
		-1: "edgeherd trust renew root", 1: "edgeherd trust renew root --key FILE", math.MaxInt: "edgeherd trust renew root --key FILE --key FILE",
	} {
		s := tufrepo.Standing{Role: tufrepo.RoleRoot, Keys: tufrepo.Keys{Public: make([]trust.PublicKey, 2), Threshold: threshold}}
		if got := s.Do(); got != want {
			t.Errorf("of a threshold of %d: %s", threshold, got)
		}
		s.Waits, s.Keys.Threshold = threshold, 2
		if got := s.Do(); !strings.HasPrefix(got, "edgeherd trust ") {
			t.Errorf("of %d signatures that wait: %s", threshold, got)
		}
	}
}

// A controller in other hands shows a base of its own, so that whoever signs the
// next version signs its entries along.
func TestWhatOthersSlipIntoABaseIsFound(t *testing.T) {
	now := time.Now()
	var keys []trust.PrivateKey
	for range 5 {
		k, err := trust.NewKey()
		must(t, err)
		keys = append(keys, k)
	}
	one := func(i int) tufrepo.Keys {
		return tufrepo.Keys{Public: []trust.PublicKey{keys[i].Public()}, Threshold: 1}
	}
	sign := func(d interface{ Encode() ([]byte, error) }, i int) []byte {
		t.Helper()
		raw, err := d.Encode()
		must(t, err)
		signed, err := tufrepo.Sign(raw, keys[i])
		must(t, err)
		signed, err = tufrepo.Normal(signed)
		must(t, err)
		return signed
	}
	root := tufrepo.Root{Version: 1, Expires: now.Add(time.Hour), Root: one(0), Targets: one(1), Online: one(2)}
	top := tufrepo.Targets{Version: 1, Expires: now.Add(time.Hour), Policy: &tufrepo.Policy{Controllers: one(2).Public, Floors: map[string]uint64{"model/eye": 4}},
		Delegations: []tufrepo.Delegation{{Role: "models-stable", Keys: one(3), Paths: tufrepo.PathsFor(tufrepo.KindModel, "stable")}}}
	eye := tufrepo.Target{Digest: blob.Sum([]byte("eye")), Length: 3, Kind: tufrepo.KindModel, Name: "eye", Version: "1", Channel: "stable", Counter: 4}
	role := tufrepo.Targets{Version: 2, Expires: now.Add(time.Hour), Targets: []tufrepo.Target{eye}}
	good := tufrepo.Documents{tufrepo.RoleRoot: sign(root, 0), tufrepo.RoleTargets: sign(top, 1), "models-stable": sign(role, 3)}
	known := good[tufrepo.RoleRoot]
	check := func(change func(tufrepo.Documents)) error {
		d := tufrepo.Documents{}
		for name, data := range good {
			d[name] = slices.Clone(data)
		}
		change(d)
		for name, data := range d {
			if data, err := tufrepo.Normal(data); err == nil {
				d[name] = data
			}
		}
		return errors.Join(d.CheckRoot(known), d.CheckRole("models-stable"))
	}
	must(t, check(func(tufrepo.Documents) {}))
	must(t, check(func(d tufrepo.Documents) { delete(d, "models-stable") }))
	next := root
	next.Version, next.Root = 4, one(4)
	evil := role
	evil.Targets = append(slices.Clone(role.Targets), tufrepo.Target{Digest: blob.Sum([]byte("evil")), Length: 4, Kind: tufrepo.KindModel, Name: "evil", Version: "1", Channel: "stable", Counter: 1})
	for name, change := range map[string]func(tufrepo.Documents){
		"an entry in a role": func(d tufrepo.Documents) { d["models-stable"] = sign(evil, 4) },
		"another key in targets": func(d tufrepo.Documents) {
			other := top
			other.Delegations = []tufrepo.Delegation{{Role: "models-stable", Keys: one(4), Paths: top.Delegations[0].Paths}}
			d[tufrepo.RoleTargets], d["models-stable"] = sign(other, 4), sign(evil, 4)
		},
		"another root":                 func(d tufrepo.Documents) { r := root; r.Targets = one(4); d[tufrepo.RoleRoot] = sign(r, 0) },
		"a newer root of other people": func(d tufrepo.Documents) { d[tufrepo.RoleRoot] = sign(next, 4) },
	} {
		if err := check(change); err == nil {
			t.Errorf("%s is not seen", name)
		}
	}
	// The same key of the document twice: what is shown is what was signed.
	twice := bytes.Replace(good["models-stable"], []byte(`{`), []byte(`{"signed":`+string(signedPart(t, sign(evil, 4)))+`,`), 1)
	if got, err := tufrepo.Normal(twice); err != nil || bytes.Contains(got, []byte("evil")) {
		t.Errorf("a key that comes twice: %s, %v", got, err)
	}
	both, err := tufrepo.Sign(sign(next, 4), keys[0])
	must(t, err)
	must(t, check(func(d tufrepo.Documents) { d[tufrepo.RoleRoot] = both }))

	bare := top
	bare.Policy, bare.Delegations = &tufrepo.Policy{Controllers: one(2).Public}, nil
	text, err := good.Explain(tufrepo.RoleTargets, sign(bare, 1))
	must(t, err)
	for _, want := range []string{"NO LONGER has a least counter of model/eye, was 4", "ends the role models-stable"} {
		if !strings.Contains(text, want) {
			t.Errorf("who signs is not told %q:\n%s", want, text)
		}
	}
}

// Rollback of a base: a controller in other hands shows what was in force before.
// All of it is signed by the right keys, and whoever builds on it signs back in what
// was retired or revoked since.
func TestRoleBaseRollback(t *testing.T) {
	version := func(n int64, least uint64) []byte {
		doc, err := tufrepo.Targets{Version: n, Expires: time.Now().Add(time.Hour), Policy: &tufrepo.Policy{Floors: map[string]uint64{"model/eye": least}}}.Encode()
		must(t, err)
		return doc
	}
	for name, c := range map[string]struct {
		shown, known []byte
		older, other bool
	}{
		"nothing is known":           {shown: version(1, 1)},
		"the same":                   {shown: version(2, 1), known: version(2, 1)},
		"a newer one":                {shown: version(3, 2), known: version(2, 1)},
		"an older one":               {shown: version(1, 1), known: version(2, 2), older: true},
		"none any more":              {known: version(2, 2), older: true},
		"another of the same number": {shown: version(2, 1), known: version(2, 2), other: true},
	} {
		d := tufrepo.Documents{}
		if c.shown != nil {
			d[tufrepo.RoleTargets] = c.shown
		}
		err := d.CheckKnown(tufrepo.RoleTargets, c.known)
		if errors.Is(err, tufrepo.ErrOlder) != c.older || errors.Is(err, tufrepo.ErrDiffer) != c.other || (err == nil) != (!c.older && !c.other) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func signedPart(t *testing.T, doc []byte) []byte {
	t.Helper()
	at := bytes.Index(doc, []byte(`"signed":`))
	if at < 0 {
		t.Fatalf("no document: %s", doc)
	}
	return bytes.TrimSuffix(doc[at+len(`"signed":`):], []byte("}"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
