package main

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func modelDiffCommand(c *cli) *cobra.Command {
	return c.verb("diff NAME:FROM NAME:TO", "What a box that has one version fetches for another, file by file", func(ctx context.Context, args []string) error {
		name, from, err := modelVersion(args[0])
		if err != nil {
			return err
		}
		other, to, err := modelVersion(args[1])
		if err != nil {
			return err
		}
		if name != other {
			return ended(exitUsage, "%s and %s are two models; a box replaces a version by one of the same model", name, other)
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		d, err := client.ModelDiff(ctx, name, from, to)
		if err != nil {
			return err
		}
		s := sheet{kind: "model-diff", value: d, head: []string{"FILE", "CHANGE", "SIZE", "FETCHED", "COLD PACK", "DELTA"}}
		for _, f := range d.Files {
			s.rows = append(s.rows, []string{f.Path, f.Change, bytesText(f.SizeBytes), bytesText(f.DownloadBytes), packText(f.Cold), packText(f.Delta)})
			s.names = append(s.names, f.Path)
		}
		if err := c.print(s); err != nil {
			return err
		}
		c.say("A box that has %s fetches %s of %s.", args[0], bytesText(d.DownloadBytes), bytesText(d.SizeBytes))
		return nil
	})
}

// packText is the size of a pack that is there, or why there is none.
func packText(p fleetapi.PackSize) string {
	if p.State == "ready" {
		return bytesText(p.SizeBytes)
	}
	return p.State
}

func modelVersion(word string) (name, version string, err error) {
	name, version, ok := strings.Cut(word, ":")
	if !ok || name == "" || version == "" {
		return "", "", ended(exitUsage, "%.80q is not NAME:VERSION; see `edgeherd model list`", word)
	}
	return name, version, nil
}

type placeList struct {
	Items []place `json:"items"`
}

// place is one box of `model where`.
type place struct {
	Box     string `json:"box"`
	Site    string `json:"site"`
	Link    string `json:"link"`
	Running string `json:"running"`
	Desired string `json:"desired"`
}

func modelWhereCommand(c *cli) *cobra.Command {
	return c.verb("where NAME[:VERSION]", "Boxes that run a model or shall run it", func(ctx context.Context, args []string) error {
		name, version := args[0], ""
		if strings.Contains(name, ":") {
			var err error
			if name, version, err = modelVersion(args[0]); err != nil {
				return err
			}
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		list, err := client.AllBoxes(ctx, "", "")
		if err != nil {
			return err
		}
		places := []place{}
		s := sheet{kind: "model-where", item: "place", head: []string{"BOX", "SITE", "LINK", "RUNNING", "DESIRED"}}
		for _, b := range list.Items {
			for _, m := range b.Models {
				if m.Name != name || version != "" && m.RunningVersion != version && m.DesiredVersion != version {
					continue
				}
				places = append(places, place{b.Name, b.Site, string(b.Link), m.RunningVersion, m.DesiredVersion})
				s.rows = append(s.rows, []string{b.Name, b.Site, string(b.Link), orDash(m.RunningVersion), orDash(m.DesiredVersion)})
				s.names = append(s.names, b.Name)
			}
		}
		if len(places) == 0 {
			if err := c.knownModel(ctx, client, name, version); err != nil {
				return err
			}
			c.say("No box runs %s or shall run it.", args[0])
		}
		s.value, s.items = placeList{places}, items(places)
		return c.print(s)
	})
}

// knownModel is an error where nobody has pushed a version, so that a wrong name is
// not taken for a model that runs nowhere.
func (c *cli) knownModel(ctx context.Context, client *fleetapi.Client, name, version string) error {
	m, err := client.Model(ctx, name)
	if err != nil || version == "" {
		return err
	}
	for _, v := range m.Versions {
		if v.Version == version {
			return nil
		}
	}
	return ended(exitNotFound, "model %s has no version %s; see `edgeherd model show %s`", name, version, name)
}
