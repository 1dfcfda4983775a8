package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

func trustFloorCommand(c *cli) *cobra.Command {
	var y ceremony
	cmd := c.verb("floor SUBJECT COUNTER", "Have boxes install nothing of a name below a counter, such as model/vad 4", func(ctx context.Context, args []string) error {
		n, err := strconv.ParseUint(args[1], 10, 53)
		if err != nil {
			return ended(exitUsage, "counter %q: want a whole number, such as that of a version in edgeherd trust status -o json", args[1])
		}
		if err := y.begin(ctx, c); err != nil {
			return err
		}
		return y.policy(ctx, c, func(p *tufrepo.Policy) error { return p.Raise(args[0], n, y.docs.Newest(args[0])) })
	})
	y.addTo(cmd)
	return cmd
}

func trustRevokeCommand(c *cli) *cobra.Command {
	var y ceremony
	cmd := c.verb("revoke NAME:VERSION|DIGEST", "Have boxes never install a version again", func(ctx context.Context, args []string) error {
		if err := y.begin(ctx, c); err != nil {
			return err
		}
		d, err := blob.ParseDigest(args[0])
		if err != nil {
			if d, err = y.meant(ctx, c, args[0]); err != nil {
				return err
			}
			if c.mayAsk() && !c.ask("Shall boxes never install it again?") {
				return errors.New("nothing was signed")
			}
		}
		return y.policy(ctx, c, func(p *tufrepo.Policy) error { p.Revoke(d); return nil })
	})
	y.addTo(cmd)
	return cmd
}

// policy changes the policy in targets.
func (y *ceremony) policy(ctx context.Context, c *cli, change func(*tufrepo.Policy) error) error {
	doc, err := y.next(c, tufrepo.RoleTargets, nil, func(t *tufrepo.Targets) error {
		if t.Policy == nil {
			return errors.New("targets has no policy")
		}
		return change(t.Policy)
	})
	if err != nil {
		return err
	}
	return y.finish(ctx, c, tufrepo.RoleTargets, doc)
}

// meant finds the one version that a person names by NAME:VERSION or by the first
// digits of its digest, among those that roles list and those that the controller
// has. What counts is signed as a digest, which is said.
func (y *ceremony) meant(ctx context.Context, c *cli, word string) (blob.Digest, error) {
	names := map[blob.Digest]string{}
	for _, t := range y.docs.Listed() {
		names[t.Digest] = t.Name + ":" + t.Version
	}
	list, err := y.client.Models(ctx)
	if err != nil {
		return blob.Digest{}, err
	}
	for _, m := range list.Items {
		for _, v := range m.Versions {
			names[v.Digest] = v.Ref.String()
		}
	}
	releases, err := y.client.Releases(ctx)
	if err != nil {
		return blob.Digest{}, err
	}
	for _, r := range releases.Items {
		names[r.Digest] = firmware.KindAgent + ":" + r.Version
	}
	hex := strings.TrimPrefix(word, "sha256:")
	var found []blob.Digest
	for d, name := range names {
		if name == word || len(hex) >= 6 && strings.HasPrefix(d.Hex(), hex) {
			found = append(found, d)
		}
	}
	switch len(found) {
	case 0:
		return blob.Digest{}, ended(exitNotFound, "no version is called %q or has a digest that begins so; see edgeherd model list -o wide, edgeherd release list -o wide. A digest that is not there any more: all 64 digits, sha256:…", word)
	case 1:
		c.say("%s is %s.", names[found[0]], found[0])
		return found[0], nil
	}
	lines := []string{}
	for _, d := range found {
		lines = append(lines, fmt.Sprintf("%s %s", d, names[d]))
	}
	slices.Sort(lines)
	return blob.Digest{}, ended(exitUsage, "%q is not one version; name a digest:\n%s", word, strings.Join(lines, "\n"))
}
