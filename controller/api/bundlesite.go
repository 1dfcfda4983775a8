package api

import (
	"context"
	"fmt"
	"strings"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/bundle"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// desired takes what the boxes of the site shall run, and those versions.
func (g *gathering) desired(ctx context.Context) error {
	boxes, err := g.a.boxes(ctx)
	if err != nil {
		return err
	}
	keys := g.a.opts.Keyring
	if k := g.a.opts.Trust; k != nil {
		if keys, _, err = k.Keyring(ctx); err != nil {
			return err
		}
	}
	for _, b := range boxes {
		if b.Site != g.index.Site {
			continue
		}
		envelope, err := g.a.opts.Store.DesiredEnvelope(ctx, b.ID)
		if err != nil {
			return err
		}
		if envelope == nil {
			g.notes.add("nothing is signed that these boxes shall run, and they take nothing of the bundle", b.Name)
			continue
		}
		g.assign(b, envelope, keys)
		for _, m := range b.Models {
			if m.DesiredDigest.IsZero() {
				continue
			}
			v, err := g.a.opts.Store.Model(ctx, m.Name, m.DesiredVersion)
			if err == nil {
				err = g.model(ctx, v)
			}
			if err == nil {
				err = g.refused(ctx, b.Name, v)
			}
			if err != nil {
				return err
			}
		}
	}
	if len(g.index.Desired) == 0 {
		return badRequest("See edgeherd site list, edgeherd box list.", "no box of site %q is assigned anything", g.index.Site)
	}
	return nil
}

// assign takes the signed word of what a box shall run. A release that it shall be
// is not taken with it: that has programs for all kinds of machines.
func (g *gathering) assign(b fleetapi.Box, envelope []byte, keys trust.Keyring) {
	g.src.Desired[b.ID] = envelope
	g.index.Desired = append(g.index.Desired, bundle.Desired{Box: b.ID, SizeBytes: int64(len(envelope))})
	payload, err := keys.Open(trust.TypeDesired, envelope)
	if err != nil {
		return // by a key from before; the box says whether it still knows it
	}
	if d, err := wire.DecodeDesired(payload); err == nil && d.Agent != nil {
		g.notes.unless(d.Agent.Digest, fmt.Sprintf("these boxes shall be agent %s, which is not in the bundle (--release %s)", d.Agent.Version, d.Agent.Version), b.Name)
	}
}

// refused notes that a box would not install a version anew.
func (g *gathering) refused(ctx context.Context, box string, m store.Model) error {
	k := g.a.opts.Trust
	if k == nil {
		return nil
	}
	_, err := k.Listed(ctx, tufrepo.Target{Kind: tufrepo.KindModel, Name: m.Manifest.Name, Version: m.Manifest.Version, Digest: m.Digest})
	if !wouldRefuse(err) {
		return err
	}
	g.notes.add(fmt.Sprintf("%s would be refused: %s. A box that has it goes on with it, another one takes none of the bundle", m.Ref(), err), box)
	return nil
}

// notes are what whoever carries the bundle should know, each with the boxes that it
// is about.
type notes struct {
	order []string
	boxes map[string][]string
	// less are contents that settle a note if they are in the bundle.
	less map[string]blob.Digest
}

func (n *notes) add(text, box string) { n.unless(blob.Digest{}, text, box) }

func (n *notes) unless(d blob.Digest, text, box string) {
	if n.boxes == nil {
		n.boxes, n.less = map[string][]string{}, map[string]blob.Digest{}
	}
	if n.boxes[text] == nil {
		n.order = append(n.order, text)
	}
	n.boxes[text], n.less[text] = append(n.boxes[text], box), d
}

// noted is how many boxes a note names.
const noted = 5

func (n *notes) lines(has map[blob.Digest]bool) (out []string) {
	for _, text := range n.order {
		if has[n.less[text]] {
			continue
		}
		names := n.boxes[text]
		more := ""
		if len(names) > noted {
			names, more = names[:noted], fmt.Sprintf(" and %d more", len(names)-noted)
		}
		out = append(out, text+": "+strings.Join(names, ", ")+more)
	}
	return out
}
