package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/edgeherd/edgeherd/controller/deliver"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
)

// packSoon is how soon a box asks again for a pack that is being made.
const packSoon = 15_000 // milliseconds

// deviceWays tells a box in which forms a file can come.
func (a *API) deviceWays(w http.ResponseWriter, r *http.Request, d blob.Digest) {
	packs, err := a.opts.Store.Packs(r.Context(), d)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	used := false
	out := deviceapi.Ways{Packs: []deviceapi.Pack{}}
	for _, p := range packs {
		switch p.State {
		case store.PackWanted:
			out.WaitMs = packSoon
		case store.PackReady:
			used = true
			out.Packs = append(out.Packs, deviceapi.Pack{Digest: p.Digest, SizeBytes: p.SizeBytes, Index: p.Index, IndexBytes: p.IndexBytes, Base: p.Base})
		}
	}
	if used && a.opts.Packs != nil {
		a.opts.Packs.Used(r.Context(), d)
	}
	writeJSON(w, http.StatusOK, out)
}

// deviceLease tells a box whether it fetches a file for its site.
func (a *API) deviceLease(w http.ResponseWriter, r *http.Request, d blob.Digest) {
	id, _ := r.Context().Value(boxKey{}).(identity.ID)
	var ask deviceapi.Ask
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, deviceapi.MaxAskBytes)).Decode(&ask); err != nil {
		a.fail(w, r, badRequest("", "%s", err))
		return
	}
	if !a.opts.Blobs.Has(d) { // else a box could fill the database with leases of what nobody has
		a.fail(w, r, fleetapi.Problem(http.StatusNotFound, "there is no blob "+d.String(), ""))
		return
	}
	if len(ask.Address) > 256 || len(ask.Bad) > 64 || ask.DoneBytes < 0 || ask.SizeBytes < ask.DoneBytes {
		a.fail(w, r, badRequest("", "the question is not one of a box"))
		return
	}
	// The site is where people have put the box, not what its certificate says:
	// the one may be younger than the other.
	site, err := a.opts.Store.SiteOf(r.Context(), id)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	lease, holders, err := a.opts.Store.AskSeed(r.Context(), store.SeedAsk{
		Box: id, Site: site, Digest: d, Size: ask.SizeBytes, Done: ask.DoneBytes, Address: ask.Address, Yield: ask.Yield, Shun: ask.Bad,
	})
	if err != nil {
		a.fail(w, r, err)
		return
	}
	out := deviceapi.Lease{Seed: lease.Box == id && id != "", Peers: []deviceapi.Peer{}}
	if out.Seed {
		out.ForMs = lease.Until.Sub(a.opts.WallClock()).Milliseconds()
	}
	for _, h := range holders {
		out.Peers = append(out.Peers, deviceapi.Peer{ID: h.Box, Address: h.Address})
	}
	writeJSON(w, http.StatusOK, out)
}

// wantPacks asks for what would make a version smaller for these boxes.
func (a *API) wantPacks(ctx context.Context, next models.Manifest, boxes []fleetapi.Box) error {
	if a.opts.Packs == nil {
		return nil
	}
	versions, err := a.manifests(ctx)
	if err != nil {
		return err
	}
	has := map[blob.Digest]int{}
	for _, b := range boxes {
		for _, m := range b.Models {
			if m.Name == next.Name {
				has[m.RunningDigest]++
			}
		}
	}
	return a.opts.Packs.Want(ctx, deliver.Wants(next, has, versions))
}

func (a *API) manifests(ctx context.Context) (map[blob.Digest]models.Manifest, error) {
	all, err := a.opts.Store.Models(ctx)
	out := map[blob.Digest]models.Manifest{}
	for _, m := range all {
		out[m.Digest] = m.Manifest
	}
	return out, err
}

// sizes are what boxes would download for a version, as far as it is less than
// the whole of it: what they have they do not fetch, and there may be packs.
func (a *API) sizes(ctx context.Context, next models.Manifest, boxes []fleetapi.Box) (map[identity.ID]int64, error) {
	versions, err := a.manifests(ctx)
	if err != nil {
		return nil, err
	}
	packs := map[blob.Digest][]store.Pack{}
	for _, f := range next.Files {
		if packs[f.Digest], err = a.opts.Store.Packs(ctx, f.Digest); err != nil {
			return nil, err
		}
	}
	out, known := map[identity.ID]int64{}, map[blob.Digest]int64{}
	for _, b := range boxes {
		var running blob.Digest
		for _, m := range b.Models {
			if m.Name == next.Name {
				running = m.RunningDigest
			}
		}
		if _, ok := known[running]; !ok {
			known[running] = download(next, versions[running], packs)
		}
		out[b.ID] = known[running]
	}
	return out, nil
}

// download is what a box that has one version fetches for the next.
func download(next, has models.Manifest, packs map[blob.Digest][]store.Pack) (n int64) {
	here := map[blob.Digest]bool{}
	for _, f := range has.Files {
		here[f.Digest] = true
	}
	for _, f := range next.Files {
		if here[f.Digest] {
			continue
		}
		least := f.SizeBytes
		for _, p := range packs[f.Digest] {
			if p.State == store.PackReady && (p.Base.IsZero() || here[p.Base]) {
				least = min(least, p.SizeBytes+p.IndexBytes)
			}
		}
		n += least
	}
	return n
}

type diffInput struct {
	Name string `path:"name" maxLength:"63" example:"silero-vad"`
	From string `query:"from" required:"true" maxLength:"63" doc:"the version a box has"`
	To   string `query:"to" required:"true" maxLength:"63" doc:"the version it gets"`
}

// diffModel tells of each file what a box would fetch of it.
func (a *API) diffModel(ctx context.Context, in *diffInput) (fleetapi.ModelDiff, error) {
	from, err := a.opts.Store.Model(ctx, in.Name, in.From)
	if err != nil {
		return fleetapi.ModelDiff{}, err
	}
	to, err := a.opts.Store.Model(ctx, in.Name, in.To)
	if err != nil {
		return fleetapi.ModelDiff{}, err
	}
	out := fleetapi.ModelDiff{From: from.Ref(), To: to.Ref(), SizeBytes: to.Manifest.SizeBytes(), Files: []fleetapi.FileDiff{}}
	packs := map[blob.Digest][]store.Pack{}
	for _, f := range to.Manifest.Files {
		if packs[f.Digest], err = a.opts.Store.Packs(ctx, f.Digest); err != nil {
			return out, err
		}
		was, had := from.Manifest.File(f.Path)
		d := fleetapi.FileDiff{Path: f.Path, Change: "new", SizeBytes: f.SizeBytes, Cold: fleetapi.PackSize{State: "none"}, Delta: fleetapi.PackSize{State: "none"}}
		if had {
			d.Change = map[bool]string{true: "same", false: "changed"}[was.Digest == f.Digest]
		}
		for _, p := range packs[f.Digest] {
			size := fleetapi.PackSize{State: string(p.State), SizeBytes: p.SizeBytes, Why: p.Why}
			switch {
			case p.Base.IsZero():
				d.Cold = size
			case had && p.Base == was.Digest:
				d.Delta = size
			}
		}
		d.DownloadBytes = download(models.Manifest{Files: []models.File{f}}, from.Manifest, packs)
		out.DownloadBytes += d.DownloadBytes
		out.Files = append(out.Files, d)
	}
	for _, f := range from.Manifest.Files {
		if _, still := to.Manifest.File(f.Path); !still {
			out.Files = append(out.Files, fleetapi.FileDiff{Path: f.Path, Change: "gone", Cold: fleetapi.PackSize{State: "none"}, Delta: fleetapi.PackSize{State: "none"}})
		}
	}
	return out, nil
}
