package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

func trustCommand(c *cli) *cobra.Command {
	return c.group("trust", "Who says what boxes may run",
		trustInitCommand(c), c.verb("status", "Every role: its keys, who has signed, when it ends", c.trustStatus),
		trustRenewCommand(c), trustSignCommand(c), trustKeysCommand(c), trustKeyCommand(c),
		trustFloorCommand(c), trustRevokeCommand(c), trustRetireCommand(c),
		c.verb("drop ROLE", "Forget a change that waits for signatures", func(ctx context.Context, args []string) error {
			client, _, err := c.client()
			if err == nil {
				_, err = client.SubmitTrust(ctx, fleetapi.SubmitTrust{Role: args[0], Drop: true})
			}
			if err == nil {
				c.say("The change of %s that waited for signatures is forgotten.", args[0])
			}
			return err
		}),
	)
}

// ceremony is a change of the metadata by people: what is in force, and their keys.
type ceremony struct {
	keys   openKeys
	files  []string
	client *fleetapi.Client
	state  fleetapi.Trust
	docs   tufrepo.Documents
	// forward builds on the newest version beside the keys, also where the controller
	// shows an older one.
	forward bool
}

func (y *ceremony) addTo(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&y.files, "key", nil, "file of a key that signs; may be given several times")
	y.keys.addTo(cmd)
	if err := cmd.MarkFlagRequired("key"); err != nil {
		panic("cli: " + err.Error())
	}
}

// begin asks what is in force.
func (y *ceremony) begin(ctx context.Context, c *cli) (err error) {
	if y.client, _, err = c.client(); err != nil {
		return err
	}
	if y.state, err = y.client.Trust(ctx); err != nil {
		return err
	}
	y.docs = tufrepo.Documents{}
	for i, d := range y.state.Documents {
		if d.Document, err = tufrepo.Normal(d.Document); err != nil {
			return fmt.Errorf("the controller's metadata of %s: %w", d.Role, err)
		}
		y.state.Documents[i].Document = d.Document
		if !d.Staged {
			y.docs[d.Role] = d.Document
		}
	}
	return nil
}

// finish signs a document and submits it.
func (y *ceremony) finish(ctx context.Context, c *cli, role string, doc []byte) error {
	var signers []trust.Signer
	for _, f := range y.files {
		k, err := y.keys.open(c, f)
		if err != nil {
			return err
		}
		signers = append(signers, k)
	}
	done, err := y.submit(ctx, c, role, doc, signers...)
	if err != nil {
		return err
	}
	return c.print(sheet{kind: "trust-change", value: done, head: []string{"ROLE", "VERSION", "WAITS FOR"},
		rows: [][]string{{done.Role, strconv.FormatInt(done.Version, 10), strconv.Itoa(done.Missing)}}, names: []string{done.Role}})
}

// submit signs a document and publishes it, and says how many signatures are
// missing and whose keys can give them.
func (y *ceremony) submit(ctx context.Context, c *cli, role string, doc []byte, keys ...trust.Signer) (done fleetapi.SubmittedTrust, err error) {
	signed, err := tufrepo.Sign(doc, keys...)
	if err != nil {
		return done, err
	}
	if done, err = y.client.SubmitTrust(ctx, fleetapi.SubmitTrust{Role: role, Document: signed}); err != nil {
		return done, err
	}
	if done.Missing == 0 {
		c.say("%s version %d is in force.", done.Role, done.Version)
		err := y.published(c, role, signed)
		if role == tufrepo.RoleRoot || role == tufrepo.RoleTargets {
			y.sayRenew(c)
		}
		return done, err
	}
	if err := y.begin(ctx, c); err != nil {
		return done, err
	}
	c.say("%s version %d waits for %d more, of %s: edgeherd trust sign %s --key FILE", done.Role, done.Version, done.Missing, plainOr(y.unsigned(role)), done.Role)
	return done, nil
}

// sayRenew names the roles that a change of keys leaves without enough signatures.
func (y *ceremony) sayRenew(c *cli) {
	for _, role := range slices.Sorted(maps.Keys(y.docs)) {
		k := y.docs.Keys(role)
		if k.Threshold < 1 || k.Missing(y.docs[role]) == 0 || role == tufrepo.RoleSnapshot || role == tufrepo.RoleTimestamp {
			continue
		}
		c.say("%s has other keys now, and boxes install nothing that depends on it until it is signed with %d of %s. Next: %s", role, k.Threshold, joinIDs(k.IDs()), tufrepo.Standing{Role: role, Keys: k}.Do())
	}
}

// published keeps what is in force beside the keys, if enough of them have signed
// it: the controller's word alone is no reason to refuse another version later.
func (y *ceremony) published(c *cli, role string, doc []byte) error {
	doc, err := tufrepo.Normal(doc)
	if err != nil {
		return err
	}
	if role == tufrepo.RoleRoot && y.docs[role] == nil {
		y.docs[role] = doc // the first one names its own keys
	}
	if k := y.docs.Keys(role); k.Threshold < 1 || k.Missing(doc) > 0 {
		return nil
	}
	y.docs[role] = doc
	return keep(c, y.files, role, doc)
}

// unsigned are the keys of a role that have not signed what waits there.
func (y *ceremony) unsigned(role string) []string {
	var out []string
	for _, d := range y.state.Documents {
		if !d.Staged || d.Role != role {
			continue
		}
		keys := y.docs.Keys(role)
		has := keys.Signed(d.Document)
		for _, p := range keys.Public {
			if !slices.Contains(has, p.ID()) {
				out = append(out, "key "+string(p.ID()))
			}
		}
	}
	return out
}

// plainOr is "a", "a or b", "a, b or c".
func plainOr(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

func trustRenewCommand(c *cli) *cobra.Command {
	var y ceremony
	cmd := c.verb("renew ROLE", "Sign a role anew, as it is, so that it lasts its full time again", func(ctx context.Context, args []string) error {
		if err := y.begin(ctx, c); err != nil {
			return err
		}
		y.forward = true
		doc, err := y.next(c, args[0], func(*tufrepo.Root) error { return nil }, func(*tufrepo.Targets) error { return nil })
		if err != nil {
			return err
		}
		return y.finish(ctx, c, args[0], doc)
	})
	y.addTo(cmd)
	return cmd
}

func (y *ceremony) noRole(role string) error {
	if y.state.Development {
		return ended(exitConflict, "this fleet is in development and has no roles yet; begin: edgeherd trust init --keys DIR")
	}
	return ended(exitNotFound, "there is no role %q; see edgeherd trust status", role)
}

// next is the next version of a role.
func (y *ceremony) next(c *cli, role string, root func(*tufrepo.Root) error, targets func(*tufrepo.Targets) error) ([]byte, error) {
	if y.docs[role] == nil {
		return nil, y.noRole(role)
	}
	if (tufrepo.Standing{Role: role}).Online() {
		return nil, ended(exitConflict, "the controller signs %s by itself, each day while it runs; no key of people does. When it ends: edgeherd trust status", role)
	}
	if err := y.verified(c, role); err != nil {
		return nil, err
	}
	if role == tufrepo.RoleRoot {
		return y.docs.NextRoot(time.Now(), root)
	}
	return y.docs.NextTargets(role, time.Now(), targets)
}

func trustSignCommand(c *cli) *cobra.Command {
	var y ceremony
	cmd := c.verb("sign ROLE", "Add your signature to a change that waits for it", func(ctx context.Context, args []string) error {
		if err := y.begin(ctx, c); err != nil {
			return err
		}
		at := slices.IndexFunc(y.state.Documents, func(d fleetapi.TrustDocument) bool { return d.Staged && d.Role == args[0] })
		if at < 0 {
			return failure{exitNotFound, fmt.Errorf("no change of %s waits for signatures; see edgeherd trust status", args[0])}
		}
		if err := y.verified(c, args[0]); err != nil {
			return err
		}
		doc := y.state.Documents[at].Document
		change, err := y.docs.Explain(args[0], doc)
		if err != nil {
			return err
		}
		c.say("%s", change)
		if c.mayAsk() && !c.ask("Sign this?") {
			return errors.New("not signed")
		}
		return y.finish(ctx, c, args[0], doc)
	})
	y.addTo(cmd)
	return cmd
}

func trustKeysCommand(c *cli) *cobra.Command {
	var y ceremony
	var add, remove []string
	var change tufrepo.Change
	var cmd *cobra.Command
	cmd = c.verb("keys ROLE", "Change who may sign a role, and how many must", func(ctx context.Context, args []string) error {
		for _, word := range add {
			p, err := publicKey(word)
			if err != nil {
				return failure{exitUsage, err}
			}
			change.Add = append(change.Add, p)
		}
		for _, id := range remove {
			change.Remove = append(change.Remove, trust.KeyID(id))
		}
		switch {
		case cmd.Flags().Changed("threshold") && change.Threshold < 1:
			return ended(exitUsage, "--threshold %d: want 1 or more", change.Threshold)
		case len(add)+len(remove) == 0 && change.Threshold == 0:
			return ended(exitUsage, "nothing to change: name keys with --add or --remove, or how many must sign with --threshold")
		}
		if err := y.begin(ctx, c); err != nil {
			return err
		}
		// Root names the keys of the roles that every repository has, targets
		// those of the others.
		by, role := tufrepo.RoleTargets, args[0]
		if role == tufrepo.RoleRoot || role == tufrepo.RoleTargets || role == tufrepo.RoleTimestamp {
			by = tufrepo.RoleRoot
		}
		if role != tufrepo.RoleControllers && y.docs.Keys(role).Threshold < 1 {
			return y.noRole(role)
		}
		doc, err := y.next(c, by, func(r *tufrepo.Root) error { return r.Change(role, change) }, func(t *tufrepo.Targets) error { return t.Change(role, change) })
		if err != nil {
			return err
		}
		return y.finish(ctx, c, by, doc)
	})
	y.addTo(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&add, "add", nil, "public key (ed25519:…) or key file that may sign from now on")
	f.StringArrayVar(&remove, "remove", nil, "id of a key that may no more, as trust status shows it")
	f.IntVar(&change.Threshold, "threshold", 0, "how many must sign (default: as it is)")
	return cmd
}

func trustRetireCommand(c *cli) *cobra.Command {
	var y ceremony
	cmd := c.verb("retire ROLE NAME:VERSION", "Take a version out of a role: boxes install it no more, and go on running it", func(ctx context.Context, args []string) error {
		name, version, err := modelVersion(args[1])
		if err != nil {
			return err
		}
		if err := y.begin(ctx, c); err != nil {
			return err
		}
		doc, err := y.next(c, args[0], nil, func(t *tufrepo.Targets) error { return t.Retire(name, version) })
		if err != nil {
			return err
		}
		return y.finish(ctx, c, args[0], doc)
	})
	y.addTo(cmd)
	return cmd
}
