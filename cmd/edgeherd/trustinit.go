package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// founding is what trust init is told.
type founding struct {
	keys      openKeys
	dir       string
	roots     int
	threshold int
	channels  []string
	role      map[string]string
}

func trustInitCommand(c *cli) *cobra.Command {
	var f founding
	cmd := c.verb("init", "Take the fleet into production: make the keys of people, and have boxes follow them alone", func(ctx context.Context, _ []string) error {
		y := ceremony{}
		if err := y.begin(ctx, c); err != nil {
			return err
		}
		if !y.state.Development {
			return failure{exitConflict, errors.New("this fleet is in production already: edgeherd trust status")}
		}
		if err := f.check(); err != nil {
			return failure{exitUsage, err}
		}
		if c.mayAsk() && !c.ask("Boxes will follow these keys for ever, and models that are there now must be pushed again, as new versions, with --sign. What runs goes on. Go on?") {
			return errors.New("nothing was done")
		}
		y.files = []string{f.path(tufrepo.RoleTargets)} // beside which the documents go
		if y.docs[tufrepo.RoleRoot] == nil {
			if old, err := newest(y.files, tufrepo.RoleTargets); err == nil && old != nil {
				return failure{exitConflict, fmt.Errorf("%s has documents of another fleet (N.targets.json); take another folder", f.dir)}
			}
		}
		return f.found(ctx, c, &y)
	})
	f.keys.addTo(cmd)
	fl := cmd.Flags()
	fl.StringVar(&f.dir, "keys", "", "folder for the new keys, on a disk that is not the controller's")
	fl.IntVar(&f.roots, "root-keys", 3, "how many root keys to make")
	fl.IntVar(&f.threshold, "root-threshold", 2, "how many of them must sign")
	fl.StringSliceVar(&f.channels, "channel", []string{"stable", "dev"}, "channels to begin with")
	fl.StringToStringVar(&f.role, "public", nil, "public key of somebody who signs a role, such as models-stable=ed25519:…; a key is made for the others")
	if err := cmd.MarkFlagRequired("keys"); err != nil {
		panic("cli: " + err.Error())
	}
	return cmd
}

func (f founding) check() error {
	for _, mark := range []string{"store.db", "ca", "context.json"} {
		if _, err := os.Stat(filepath.Join(f.dir, mark)); err == nil {
			return fmt.Errorf("%s is the state directory of a controller: who breaks into it must not find these keys", f.dir)
		}
	}
	if f.roots < 1 || f.threshold < 1 || f.threshold > f.roots {
		return fmt.Errorf("%d of %d root keys cannot sign", f.threshold, f.roots)
	}
	if len(f.channels) == 0 {
		return errors.New("no channel: name one or more with --channel, such as stable")
	}
	roles := []string{}
	for _, ch := range f.channels {
		if !tufrepo.ValidRole(ch) {
			return fmt.Errorf("channel %q: use lower case letters, digits and -", ch)
		}
		roles = append(roles, tufrepo.RoleFor(tufrepo.KindModel, ch), tufrepo.RoleFor(tufrepo.KindRelease, ch))
	}
	for role, word := range f.role {
		if !slices.Contains(roles, role) {
			return fmt.Errorf("--public %s=…: there is no such role with these channels; there are %s", role, strings.Join(roles, ", "))
		}
		if _, err := publicKey(word); err != nil {
			return fmt.Errorf("--public %s=…: %w", role, err)
		}
	}
	return nil
}

// ownFolder refuses a folder that has the root of another fleet: with the same keys
// each could sign for the other, and their documents would lie under the same names.
func (f founding) ownFolder(y *ceremony) error {
	known, err := newest([]string{f.path(tufrepo.RoleRoot + "-1")}, tufrepo.RoleRoot)
	if err != nil || known == nil {
		return err
	}
	root, err := tufrepo.ParseRoot(known)
	if err != nil {
		return fmt.Errorf("the root in %s: %w", f.dir, err)
	}
	if !slices.Contains(root.Online.Public, y.state.Controller) {
		return failure{exitConflict, fmt.Errorf("%s has the keys and the root of another fleet, or of this one before its controller got another key: give each fleet a folder of its own (--keys DIR)", f.dir)}
	}
	return nil
}

// found makes keys and documents. What was made is used again after a failure.
func (f founding) found(ctx context.Context, c *cli, y *ceremony) error {
	if err := durable.MkdirAll(f.dir, 0o700); err != nil {
		return err
	}
	if err := f.ownFolder(y); err != nil {
		return err
	}
	now := time.Now()
	root := tufrepo.Root{
		Version: 1, Expires: now.Add(tufrepo.RootLife), Root: tufrepo.Keys{Threshold: f.threshold},
		Online: tufrepo.Keys{Public: []trust.PublicKey{y.state.Controller}, Threshold: 1},
	}
	var roots []trust.Signer
	for i := range f.roots {
		k, err := f.key(c, tufrepo.RoleRoot+"-"+strconv.Itoa(i+1))
		if err != nil {
			return err
		}
		roots, root.Root.Public = append(roots, k), append(root.Root.Public, k.Public())
	}
	top, err := f.key(c, tufrepo.RoleTargets)
	if err != nil {
		return err
	}
	root.Targets = tufrepo.Keys{Public: []trust.PublicKey{top.Public()}, Threshold: 1}
	targets := tufrepo.Targets{Version: 1, Expires: now.Add(tufrepo.TargetsLife), Policy: &tufrepo.Policy{Controllers: []trust.PublicKey{y.state.Controller}}}
	roles := map[string]trust.Signer{}
	for _, ch := range f.channels {
		for _, kind := range []tufrepo.Kind{tufrepo.KindModel, tufrepo.KindRelease} {
			role := tufrepo.RoleFor(kind, ch)
			p, err := f.delegate(c, role, roles)
			if err != nil {
				return err
			}
			targets.Delegations = append(targets.Delegations, tufrepo.Delegation{Role: role, Keys: tufrepo.Keys{Public: []trust.PublicKey{p}, Threshold: 1}, Paths: tufrepo.PathsFor(kind, ch)})
		}
	}
	var made []fleetapi.SubmittedTrust
	submit := func(d interface{ Encode() ([]byte, error) }, keys ...trust.Signer) error {
		done, err := f.submit(ctx, c, y, d, keys...)
		made = append(made, done)
		return err
	}
	if y.docs[tufrepo.RoleRoot] == nil { // else this is the second attempt
		if err := submit(root, roots...); err != nil {
			return err
		}
	}
	if err := submit(targets, top); err != nil {
		return err
	}
	for _, role := range slices.Sorted(maps.Keys(roles)) {
		doc, err := tufrepo.Documents{}.NextTargets(role, now, func(*tufrepo.Targets) error { return nil })
		if err != nil {
			return err
		}
		done, err := y.submit(ctx, c, role, doc, roles[role])
		if err != nil {
			return err
		}
		made = append(made, done)
	}
	c.say("The fleet is in production. The keys lie in %s.\nMove each root key to a stick of its own, in different hands and places; keep the passphrases apart from them. %d of them are needed again in a year: edgeherd trust renew root --key A --key B.\nNext: edgeherd model push DIR --sign %s", f.dir, f.threshold, f.path(tufrepo.RoleFor(tufrepo.KindModel, f.channels[0])))
	return c.print(f.sheet(made))
}

// sheet tells what trust init made: the documents that are in force, and where the
// keys lie.
func (f founding) sheet(made []fleetapi.SubmittedTrust) sheet {
	s := sheet{
		kind: "trust-init", item: "trust-change", items: items(made), head: []string{"ROLE", "VERSION", "WAITS FOR"},
		value: struct {
			Keys  string                    `json:"keys"`
			Roles []fleetapi.SubmittedTrust `json:"roles"`
		}{f.dir, made},
	}
	for _, d := range made {
		s.rows = append(s.rows, []string{d.Role, strconv.FormatInt(d.Version, 10), strconv.Itoa(d.Missing)})
		s.names = append(s.names, d.Role)
	}
	return s
}

func (f founding) path(name string) string { return filepath.Join(f.dir, name+".key") }

// key makes a key, or opens that of an attempt before.
func (f founding) key(c *cli, name string) (trust.Signer, error) {
	if _, err := os.Stat(f.path(name)); err == nil {
		return f.keys.open(c, f.path(name))
	}
	return f.keys.make(c, f.path(name))
}

// delegate finds the key of a role: another person's, or one made here.
func (f founding) delegate(c *cli, role string, made map[string]trust.Signer) (trust.PublicKey, error) {
	if word := f.role[role]; word != "" {
		return publicKey(word)
	}
	k, err := f.key(c, role)
	made[role] = k
	return k.Public(), err
}

func (f founding) submit(ctx context.Context, c *cli, y *ceremony, d interface{ Encode() ([]byte, error) }, keys ...trust.Signer) (done fleetapi.SubmittedTrust, err error) {
	role := tufrepo.RoleTargets
	if _, is := d.(tufrepo.Root); is {
		role = tufrepo.RoleRoot
	}
	doc, err := d.Encode()
	if err != nil {
		return done, err
	}
	if role == tufrepo.RoleRoot { // a copy for the day when the database is lost
		signed, err := tufrepo.Sign(doc, keys...)
		if err != nil {
			return done, err
		}
		if err := durable.WriteFile(filepath.Join(f.dir, documentName(1, role)), signed, 0o644); err != nil {
			return done, err
		}
	}
	return y.submit(ctx, c, role, doc, keys...)
}

// trustRow is a line of trust status.
type trustRow struct {
	Role    string        `json:"role"`
	Version int64         `json:"version"`
	Staged  bool          `json:"staged"`
	Expires time.Time     `json:"expires"`
	Days    int           `json:"days"`
	Keys    []trust.KeyID `json:"keys"`
	Need    int           `json:"threshold"`
	Signed  []trust.KeyID `json:"signed"`
	Targets int           `json:"targets"`
	Note    string        `json:"note,omitempty"`
}

func (c *cli) trustStatus(ctx context.Context, _ []string) error {
	var y ceremony
	if err := y.begin(ctx, c); err != nil {
		return err
	}
	v := struct {
		Development bool            `json:"development"`
		Controller  trust.PublicKey `json:"controller"`
		Roles       []trustRow      `json:"roles"`
	}{y.state.Development, y.state.Controller, []trustRow{}}
	s := sheet{kind: "trust", item: "role", head: []string{"ROLE", "VERSION", "DAYS LEFT", "SIGNED", "KEYS", "TARGETS", "NOTE"}}
	for _, d := range y.state.Documents {
		r := y.row(d, time.Now())
		v.Roles = append(v.Roles, r)
		s.rows = append(s.rows, []string{r.Role, strconv.FormatInt(r.Version, 10), strconv.Itoa(r.Days), fmt.Sprintf("%d of %d", len(r.Signed), r.Need), joinIDs(r.Keys), strconv.Itoa(r.Targets), orDash(r.Note)})
		s.names = append(s.names, r.Role)
	}
	s.value, s.items = v, items(v.Roles)
	if v.Development {
		c.say("DEVELOPMENT: the controller's key %s signs everything, and who has the controller has every box. Begin: edgeherd trust init --keys DIR", v.Controller.ID())
	}
	return c.print(s)
}

func (y ceremony) row(d fleetapi.TrustDocument, now time.Time) trustRow {
	left := d.Expires.Sub(now)
	r := trustRow{Role: d.Role, Version: d.Version, Staged: d.Staged, Expires: d.Expires, Days: int(left / (24 * time.Hour)), Keys: []trust.KeyID{}}
	keys := y.docs.Keys(d.Role)
	for _, p := range keys.Public {
		r.Keys = append(r.Keys, p.ID())
	}
	r.Need, r.Signed = keys.Threshold, append([]trust.KeyID{}, keys.Signed(d.Document)...)
	if t, err := tufrepo.ParseTargets(d.Document); err == nil {
		r.Targets = len(t.Targets)
	}
	r.Note = note(tufrepo.Standing{Role: d.Role, Keys: keys}, d, left)
	return r
}

// note says what is to be done about a role, to be pasted.
func note(s tufrepo.Standing, d fleetapi.TrustDocument, left time.Duration) string {
	missing := s.Keys.Missing(d.Document)
	do := "the controller signs it by itself, its log says why it did not"
	if d.Staged {
		s.Waits = missing
	}
	if cmd := s.Do(); cmd != "" {
		do = cmd
	}
	switch {
	case d.Staged:
		return fmt.Sprintf("waits for %d: %s", missing, do)
	case missing > 0:
		return "its keys have changed: " + do
	case left <= 0:
		return "ENDED: boxes install nothing that depends on it; what runs goes on: " + do
	case left < tufrepo.WarnBefore(d.Role):
		return "ends soon: " + do
	}
	return ""
}

func joinIDs(ids []trust.KeyID) string {
	var out []string
	for _, id := range ids {
		out = append(out, id.Short())
	}
	return strings.Join(out, " ")
}
