package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// The settings of a site, as the API names them.
const (
	keyBacklog = "backlog_bytes_per_second"
	keyQuiet   = "quiet"
	keyZone    = "time_zone"
	keyRegion  = "region"
	keyClass   = "class"
	keyPlace   = "location"
)

var siteKeys = []string{keyBacklog, keyQuiet, keyZone, keyRegion, keyClass, keyPlace}

func siteCommand(c *cli) *cobra.Command {
	return c.group("site", "Sites: how their boxes use the line",
		c.call("list", "Sites with what holds for them", c.siteList),
		siteShowCommand(c),
		siteChangeCommand(c, "set", "KEY=VALUE", "Set backlog_bytes_per_second, quiet, time_zone, region, class or location of a site, or --defaults of all", setChange),
		siteChangeCommand(c, "unset", "KEY", "Take a setting back: the default holds again", unsetChange),
	)
}

func (c *cli) siteList(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.Sites(ctx)
	if err != nil {
		return err
	}
	c.say("Defaults: %s", effectWords(list.Defaults.Effect))
	s := siteSheet("site-list", list, list.Items)
	s.items = items(list.Items)
	return c.print(s)
}

func siteSheet(kind string, value any, list []fleetapi.Site) sheet {
	s := sheet{kind: kind, item: "site", value: value, narrow: 8,
		head: []string{"SITE", "BOXES", "CONNECTED", "WAITING", "BACKLOG", "QUIET", "ZONE", "NOW", "PER BOX", "SET HERE", "CHANGED", "BY"}}
	for _, v := range list {
		s.rows = append(s.rows, []string{
			v.Name, strconv.Itoa(v.Boxes), strconv.Itoa(v.Connected), bytesText(v.WaitingBytes), rateText(v.Effect.BacklogBytesPerSecond),
			orDash(strings.Join(v.Effect.Quiet, "; ")), v.Effect.TimeZone, quietWords(v), rateText(v.BacklogPerBox),
			orDash(strings.Join(setHere(v.Settings), " ")), age(v.Changed, time.Now()), orDash(v.ChangedBy),
		})
		s.names = append(s.names, v.Name)
	}
	return s
}

func rateText(n int64) string {
	if n == 0 {
		return "no limit"
	}
	return bytesText(n) + "/s"
}

func quietWords(v fleetapi.Site) string {
	switch {
	case v.QuietNow:
		return "quiet until " + v.QuietUntil.Format("Mon 15:04Z")
	case v.QuietNext != nil:
		return "open until " + v.QuietNext.Format("Mon 15:04Z")
	}
	return "open"
}

// setHere names the settings that do not come from the defaults.
func setHere(s fleetapi.SiteSettings) (keys []string) {
	for i, set := range []bool{s.BacklogBytesPerSecond != nil, s.Quiet != nil, s.TimeZone != nil, s.Region != nil, s.Class != nil, s.Location != nil} {
		if set {
			keys = append(keys, siteKeys[i])
		}
	}
	return keys
}

func effectWords(e fleetapi.SiteEffect) string {
	quiet := "no quiet times"
	if len(e.Quiet) > 0 {
		quiet = "quiet " + strings.Join(e.Quiet, "; ")
	}
	return fmt.Sprintf("backlog %s, %s, zone %s", rateText(e.BacklogBytesPerSecond), quiet, e.TimeZone)
}

// defaultsSheet shows the defaults, as a site of that name.
func defaultsSheet(d fleetapi.SiteDefaults) sheet {
	s := sheet{kind: "site-defaults", value: d, head: []string{"BACKLOG", "QUIET", "ZONE", "SET", "CHANGED", "BY"}, names: []string{"defaults"}}
	s.rows = [][]string{{rateText(d.Effect.BacklogBytesPerSecond), orDash(strings.Join(d.Effect.Quiet, "; ")), d.Effect.TimeZone,
		orDash(strings.Join(setHere(d.Settings), " ")), age(d.Changed, time.Now()), orDash(d.ChangedBy)}}
	return s
}

func siteShowCommand(c *cli) *cobra.Command {
	var defaults bool
	cmd := c.verb("show [SITE]", "One site, or --defaults", func(ctx context.Context, args []string) error {
		if defaults == (len(args) == 1) {
			return failure{exitUsage, errors.New("name a site, or give --defaults")}
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		if defaults {
			list, err := client.Sites(ctx)
			if err != nil {
				return err
			}
			return c.print(defaultsSheet(list.Defaults))
		}
		v, err := client.Site(ctx, args[0])
		if err != nil {
			return err
		}
		s := siteSheet("site", v, []fleetapi.Site{v})
		s.narrow = 0
		for _, bad := range v.Shunned {
			c.say("%s", shunnedWords(bad))
		}
		return c.print(s)
	})
	cmd.Flags().BoolVar(&defaults, "defaults", false, "the defaults of all sites")
	return cmd
}

// siteChangeCommand is set or unset: both end in one request.
func siteChangeCommand(c *cli, verb, word, short string, read func([]string) (fleetapi.SiteChange, error)) *cobra.Command {
	var defaults bool
	cmd := c.verb(verb+" SITE "+word, short, func(ctx context.Context, args []string) error {
		site := ""
		if !defaults {
			site, args = args[0], args[1:]
		}
		change, err := read(args)
		if err != nil {
			return failure{exitUsage, err}
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		if defaults {
			d, err := client.ChangeSiteDefaults(ctx, change)
			if err != nil {
				return err
			}
			c.say("Now for all sites that set nothing else: %s.", effectWords(d.Effect))
			return c.print(defaultsSheet(d))
		}
		v, err := client.ChangeSite(ctx, site, change)
		if err != nil {
			return err
		}
		c.say("Now at %s: %s. Its %s hear of it at once.", v.Name, effectWords(v.Effect), plural(v.Connected, "connected box", "connected boxes"))
		return c.print(siteSheet("site", v, []fleetapi.Site{v}))
	})
	cmd.Use = verb + " SITE|--defaults " + word + "…"
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if least := 2; len(args) < least && !(defaults && len(args) == 1) {
			return fmt.Errorf("want a site, or --defaults, and at least one %s: %s", word, cmd.UseLine())
		}
		return nil
	}
	cmd.Flags().BoolVar(&defaults, "defaults", false, "the defaults of all sites, in place of one")
	return cmd
}

// setChange reads KEY=VALUE words. quiet may come more than once, one time
// each, or once as none.
func setChange(words []string) (fleetapi.SiteChange, error) {
	var change fleetapi.SiteChange
	for _, w := range words {
		key, value, ok := strings.Cut(w, "=")
		if !ok {
			return change, fmt.Errorf("%q is not KEY=VALUE; keys are %s", w, strings.Join(siteKeys, ", "))
		}
		switch key {
		case keyBacklog:
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				return change, fmt.Errorf("%s=%s: want bytes a second, such as 20000; 0 is no limit", key, value)
			}
			change.Set.BacklogBytesPerSecond = &n
		case keyQuiet:
			if change.Set.Quiet == nil {
				change.Set.Quiet = &[]string{}
			}
			if value != "none" {
				*change.Set.Quiet = append(*change.Set.Quiet, value)
			}
		case keyZone:
			change.Set.TimeZone = &value
		case keyRegion:
			change.Set.Region = &value
		case keyClass:
			change.Set.Class = &value
		case keyPlace:
			change.Set.Location = &value
		default:
			return change, notASetting(key)
		}
	}
	return change, nil
}

func unsetChange(words []string) (fleetapi.SiteChange, error) {
	for _, w := range words {
		if !slices.Contains(siteKeys, w) {
			return fleetapi.SiteChange{}, notASetting(w)
		}
	}
	return fleetapi.SiteChange{Unset: words}, nil
}

func notASetting(key string) error {
	return fmt.Errorf("%q is not a setting of sites: they are %s", key, strings.Join(siteKeys, ", "))
}

// shunnedWords say of a box that others ask for no file, why, and what to do.
func shunnedWords(s fleetapi.Shunned) string {
	who := "they ask it for nothing"
	if s.ByAll {
		who = "no box of its site is sent there"
	}
	var by []string
	for _, id := range s.By {
		by = append(by, string(id))
	}
	return fmt.Sprintf("%s gave wrong parts of files to %s: %s before %s. Test its memory and disk, and look who answers at its port.",
		s.Box, strings.Join(by, ", "), who, s.Until.Format("2006-01-02 15:04 UTC"))
}
