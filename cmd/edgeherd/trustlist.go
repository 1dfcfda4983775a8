package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// listing is what push adds to a role.
type listing struct {
	sign, channel, least string
	hardware             []string
	keys                 openKeys
	flags                *pflag.FlagSet
}

func (l *listing) addTo(cmd *cobra.Command) {
	f := cmd.Flags()
	l.flags = f
	f.StringVar(&l.sign, "sign", "", "key file that signs it and lists it for boxes; without it nothing is listed")
	f.StringVar(&l.channel, "channel", "stable", "channel that lists it")
	f.StringSliceVar(&l.hardware, "for", nil, "board classes or architectures that may install it (default all)")
	f.StringVar(&l.least, "min-agent", "", "oldest agent that may install it (default any)")
	l.keys.addTo(cmd)
}

// begin opens the key, unless the version could not be listed then.
func (l listing) begin(ctx context.Context, c *cli, t tufrepo.Target, key string) (trust.Signer, error) {
	for _, name := range []string{"channel", "for", "min-agent"} {
		if l.sign == "" && l.flags.Changed(name) {
			return nil, ended(exitUsage, "--%s is part of what is listed: give --sign FILE as well, or leave it out", name)
		}
	}
	if l.sign != "" {
		if err := l.check(ctx, c, t); err != nil {
			return nil, err
		}
	}
	return l.keys.open(c, key)
}

// check refuses what the role would not list, before anything is registered: a
// version that the controller has, signed by somebody who may not list it, keeps
// its number from those who may.
func (l listing) check(ctx context.Context, c *cli, t tufrepo.Target) error {
	y := ceremony{files: []string{l.sign}}
	if err := y.begin(ctx, c); err != nil {
		return err
	}
	if y.state.Development {
		return ended(exitConflict, "this fleet is in development: one key signs everything and nothing is listed. Push without --sign, or begin: edgeherd trust init --keys DIR")
	}
	t.Channel = l.channel
	role := tufrepo.RoleFor(t.Kind, t.Channel)
	if err := y.mayList(l.sign, role, t); err != nil {
		return err
	}
	if err := y.verify(c, role); errors.Is(err, tufrepo.ErrUnsigned) {
		return ended(exitConflict, "%w; nothing was pushed. First: %s", err, tufrepo.Standing{Role: role, Keys: y.docs.Keys(role)}.Do())
	} else if err != nil {
		return err
	}
	for _, d := range y.state.Documents {
		if d.Staged && d.Role == role {
			return ended(exitConflict, "version %d of %s waits for signatures; nothing was pushed. Sign that (edgeherd trust sign %s --key FILE) or drop it (edgeherd trust drop %s) first", d.Version, role, role, role)
		}
	}
	_, err := y.docs.NextTargets(role, time.Now(), func(s *tufrepo.Targets) error {
		if slices.ContainsFunc(s.Targets, func(have tufrepo.Target) bool { return have.Path() == t.Path() }) {
			return nil // whether with the same content is known when it is signed
		}
		return s.List(t)
	})
	return err
}

// mayList refuses a key that does not sign a role, and says what it signs.
func (y *ceremony) mayList(file, role string, t tufrepo.Target) error {
	public, err := publicKey(file)
	if err != nil {
		return err
	}
	top, err := tufrepo.ParseTargets(y.docs[tufrepo.RoleTargets])
	if err != nil {
		return err
	}
	channels, can, signs := []string{}, []string{}, []string{}
	for _, d := range top.Delegations {
		its := slices.Contains(d.Keys.Public, public)
		if d.Role == role && its {
			return nil
		}
		if its {
			signs = append(signs, d.Role)
		}
		if channel, ok := strings.CutPrefix(d.Role, tufrepo.RoleFor(t.Kind, "")); ok {
			channels = append(channels, channel)
			if its {
				can = append(can, channel)
			}
		}
	}
	for _, top := range []string{tufrepo.RoleRoot, tufrepo.RoleTargets} {
		if slices.Contains(y.docs.Keys(top).Public, public) {
			signs = append(signs, top)
		}
	}
	id := public.ID().Short()
	switch {
	case !slices.Contains(channels, t.Channel):
		return ended(exitUsage, "there is no channel %q of %ss; nothing was pushed. There are: --channel %s", t.Channel, t.Kind, plainOr(channels))
	case len(can) > 0:
		return ended(exitNotAllowed, "the key %s (%s) may not list in the channel %s; nothing was pushed. It may in another: --channel %s", id, file, t.Channel, plainOr(can))
	case len(signs) > 0:
		return ended(exitNotAllowed, "the key %s (%s) signs %s, and %s lists %ss in the channel %s; nothing was pushed. Take one of its keys, %s: --sign FILE", id, file, strings.Join(signs, " and "), role, t.Kind, t.Channel, joinIDs(y.docs.Keys(role).IDs()))
	}
	return ended(exitNotAllowed, "the key %s (%s) signs no role of this fleet; nothing was pushed. %s lists %ss in the channel %s, with the keys %s: --sign FILE. To add yours: edgeherd trust keys %s --add %s --key FILE, with a key of targets", id, file, role, t.Kind, t.Channel, joinIDs(y.docs.Keys(role).IDs()), role, file)
}

// list puts a version into the role of its kind and channel. When somebody else
// changes the role at the same time it begins again. It returns how many must
// sign before boxes may have the version.
func (c *cli) list(ctx context.Context, client *fleetapi.Client, key trust.Signer, l listing, t tufrepo.Target) (missing int, err error) {
	t.Channel, t.Hardware, t.MinAgent = l.channel, l.hardware, l.least
	role := tufrepo.RoleFor(t.Kind, t.Channel)
	for try := 0; ; try++ {
		y := ceremony{files: []string{l.sign}}
		err := y.begin(ctx, c)
		if err == nil {
			err = y.verify(c, role)
		}
		if err != nil {
			return 0, err
		}
		// A floor may come from another channel, whose counters are further on.
		t.Counter = max(y.docs.Floor(t.Subject()), 1) - 1
		doc, err := y.docs.NextTargets(role, time.Now(), func(s *tufrepo.Targets) error { return s.List(t) })
		if errors.Is(err, tufrepo.ErrListed) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		done, err := y.submit(ctx, c, role, doc, key)
		var p *fleetapi.Error
		if err == nil || try == 3 || !errors.As(err, &p) || p.Status != 409 {
			return done.Missing, err
		}
	}
}
