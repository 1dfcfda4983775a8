package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/bundle"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
	"github.com/edgeherd/edgeherd/models"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// gathering is a bundle that is put together.
type gathering struct {
	a     *API
	index bundle.Index
	src   bundle.Source
	has   map[blob.Digest]bool // in the bundle
	notes notes
	here  map[blob.Digest]bool // at those whom it is for: files of --base
}

// exportBundle writes a bundle as a tar.
func (a *API) exportBundle(w http.ResponseWriter, r *http.Request) {
	ctx, q := r.Context(), r.URL.Query()
	g := gathering{a: a, has: map[blob.Digest]bool{}, here: map[blob.Digest]bool{}, src: bundle.Source{
		Trust: map[string][]byte{}, Desired: map[identity.ID][]byte{},
		Blob: func(_ context.Context, d blob.Digest) (io.ReadCloser, error) { return a.opts.Blobs.Get(d) },
	}}
	g.index = bundle.Index{V: bundle.Version, Made: a.opts.WallClock().UTC(), Site: q.Get("site"),
		Models: []bundle.Item{}, Releases: []bundle.Item{}, Trust: []bundle.Entry{}, Desired: []bundle.Desired{}, Blobs: []bundle.Blob{}, Packs: []bundle.Pack{}}
	d := audit.Of(ctx)
	d.Object = "bundle"
	if err := g.gather(ctx, q); err != nil {
		a.fail(w, r, err)
		return
	}
	d.After = fmt.Sprintf("%v %v", g.index.Models, g.index.Releases)
	w.Header().Set("Content-Type", "application/x-tar")
	w.Header().Set("Content-Disposition", `attachment; filename="edgeherd.bundle.tar"`)
	if err := bundle.WriteTar(ctx, w, g.index, g.src); err != nil {
		a.log.Warn("bundle not written to its end", "err", err)
		panic(http.ErrAbortHandler) // who reads it must not take it for whole
	}
}

func (g *gathering) gather(ctx context.Context, q url.Values) error {
	for _, word := range q["base"] {
		m, err := g.named(ctx, word)
		if err != nil {
			return err
		}
		for _, f := range m.Manifest.Files {
			g.here[f.Digest] = true
		}
	}
	if err := g.trust(ctx); err != nil {
		return err
	}
	if g.index.Site != "" {
		if err := g.desired(ctx); err != nil {
			return err
		}
	}
	for _, word := range q["model"] {
		m, err := g.named(ctx, word)
		if err == nil {
			err = g.model(ctx, m)
		}
		if err != nil {
			return err
		}
	}
	for _, version := range q["release"] {
		r, err := g.a.opts.Store.Release(ctx, version)
		if err == nil {
			err = g.release(r)
		}
		if err != nil {
			return err
		}
	}
	g.index.Notes = g.notes.lines(g.has)
	if len(g.index.Models)+len(g.index.Releases) == 0 {
		return badRequest("Name models (--model NAME:VERSION), releases, or a site whose boxes are assigned some.", "there is nothing to put into the bundle")
	}
	return nil
}

func (g *gathering) named(ctx context.Context, word string) (store.Model, error) {
	name, version, ok := strings.Cut(word, ":")
	if !ok {
		return store.Model{}, badRequest("", "%q is not NAME:VERSION", word)
	}
	return g.a.opts.Store.Model(ctx, name, version)
}

// trust takes the metadata in force, with all roots, since boxes walk them.
func (g *gathering) trust(ctx context.Context) error {
	k := g.a.opts.Trust
	if k == nil {
		return nil
	}
	if ok, err := k.Production(ctx); err != nil || !ok {
		return err
	}
	docs, err := k.Documents(ctx)
	if err != nil {
		return err
	}
	names := []string{"adoption.json"}
	for _, d := range docs {
		switch {
		case d.Staged:
		case d.Role == tufrepo.RoleRoot:
			for v := int64(1); v <= d.Version; v++ {
				names = append(names, tufrepo.FileName(d.Role, v))
			}
		default:
			names = append(names, tufrepo.FileName(d.Role, d.Version))
		}
	}
	for _, name := range names {
		data, err := k.File(ctx, name)
		if err != nil {
			return err
		}
		g.src.Trust[name] = data
		g.index.Trust = append(g.index.Trust, bundle.Entry{Name: name, SizeBytes: int64(len(data))})
	}
	return nil
}

func (g *gathering) blob(d blob.Digest) error {
	if d.IsZero() || g.has[d] {
		return nil
	}
	size, err := g.a.opts.Blobs.Size(d)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = refuse("Look which are missing: edgeherd model verify NAME:VERSION. Then push the same version again.", "its file %s is not in the store of the controller", d)
		}
		return err
	}
	g.has[d] = true
	g.index.Blobs = append(g.index.Blobs, bundle.Blob{Digest: d, SizeBytes: size})
	return nil
}

func (g *gathering) model(ctx context.Context, m store.Model) error {
	if g.has[m.Digest] {
		return nil
	}
	g.index.Models = append(g.index.Models, bundle.Item{Name: m.Manifest.Name, Version: m.Manifest.Version, Digest: m.Digest})
	if err := g.blob(m.Digest); err != nil {
		return err
	}
	for _, f := range m.Manifest.Files {
		if g.here[f.Digest] {
			continue
		}
		if err := errors.Join(g.blob(f.Frames), g.file(ctx, f)); err != nil {
			return fmt.Errorf("%s: %w", m.Ref(), err)
		}
	}
	return nil
}

// file takes a file, or, if those whom the bundle is for have others, the
// smallest way to it.
func (g *gathering) file(ctx context.Context, f models.File) error {
	least, best := f.SizeBytes, store.Pack{}
	if len(g.here) > 0 {
		packs, err := g.a.opts.Store.Packs(ctx, f.Digest)
		if err != nil {
			return err
		}
		for _, p := range packs {
			if p.State == store.PackReady && p.SizeBytes < least && (p.Base.IsZero() || g.here[p.Base]) {
				least, best = p.SizeBytes, p
			}
		}
	}
	if best.Digest.IsZero() {
		return g.blob(f.Digest)
	}
	g.index.Packs = append(g.index.Packs, bundle.Pack{Target: f.Digest, Pack: deviceapi.Pack{
		Digest: best.Digest, SizeBytes: best.SizeBytes, Index: best.Index, IndexBytes: best.IndexBytes, Base: best.Base,
	}})
	return errors.Join(g.blob(best.Digest), g.blob(best.Index))
}

func (g *gathering) release(r store.Release) error {
	g.index.Releases = append(g.index.Releases, bundle.Item{Name: firmware.KindAgent, Version: r.Release.Version, Digest: r.Digest})
	err := g.blob(r.Digest)
	for _, b := range r.Release.Builds {
		err = errors.Join(err, g.blob(b.Digest))
	}
	return err
}

// wouldRefuse says of an error of Listed whether boxes would not install the version.
func wouldRefuse(err error) bool {
	for _, why := range []error{tufclient.ErrNotListed, tufclient.ErrRevoked, tufclient.ErrFloor, tufclient.ErrStale} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

type checkBundleInput struct{ Body fleetapi.CheckBundle }

// checkBundle says of a version that came in a bundle whether it would be taken,
// before any of its files is sent.
func (a *API) checkBundle(ctx context.Context, in *checkBundleInput) (fleetapi.CheckedBundle, error) {
	out := fleetapi.CheckedBundle{Missing: []blob.Digest{}}
	keys, err := a.publishers(ctx)
	if err != nil {
		return out, err
	}
	want := tufrepo.Target{Kind: tufrepo.KindModel, Digest: blob.Sum(in.Body.Envelope)}
	var files []blob.Digest
	if in.Body.Release {
		r, err := firmware.Open(keys, in.Body.Envelope)
		if err != nil {
			return out, untrusted(err)
		}
		want.Kind, want.Name, want.Version = tufrepo.KindRelease, firmware.KindAgent, r.Version
		for _, b := range r.Builds {
			files = append(files, b.Digest)
		}
	} else {
		payload, err := keys.Open(trust.TypeModel, in.Body.Envelope)
		if err != nil {
			return out, untrusted(err)
		}
		m, err := models.DecodeManifest(payload)
		if err != nil {
			return out, refuse("", "the manifest is not valid: %s", err)
		}
		want.Name, want.Version = m.Name, m.Version
		for _, f := range m.Files {
			files = append(files, f.Digest)
		}
	}
	if a.opts.Trust != nil {
		_, err := a.opts.Trust.Listed(ctx, want)
		if wouldRefuse(err) {
			return out, refuse("See edgeherd trust status.", "boxes would refuse %s:%s: %s", want.Name, want.Version, err)
		}
		if err != nil {
			return out, err
		}
	}
	for _, d := range files {
		if !a.opts.Blobs.Has(d) {
			out.Missing = append(out.Missing, d)
		}
	}
	out.Name, out.Version = want.Name, want.Version
	return out, nil
}

// putPacked makes a file from an uploaded pack. The pack itself is not kept: nobody
// has signed it, and its file alone is checked against a digest that is.
func (a *API) putPacked(r *http.Request, body io.Reader, d blob.Digest) error {
	var base wdelta.Source
	if text := r.URL.Query().Get("base"); text != "" {
		b, err := blob.ParseDigest("sha256:" + text)
		if err != nil {
			return badRequest("", "%s", err)
		}
		f, err := a.opts.Blobs.Get(b)
		if err != nil {
			return refuse("Import the version that it builds on first, or a bundle that was exported without --base.", "the file %s, from which this delta goes on, is not here", b)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		base = io.NewSectionReader(f, 0, info.Size())
	}
	h, body, err := wdelta.Peek(body)
	if err != nil {
		return err
	}
	if h.TargetSize > maxBlobBytes {
		return fleetapi.Problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("it makes %d bytes; a file may have %d", h.TargetSize, int64(maxBlobBytes)), "")
	}
	give, err := a.room.take(a.opts.Blobs.Dir(), a.opts.FreeBytes, h.TargetSize)
	if err != nil {
		return err
	}
	defer give()
	out, in := io.Pipe()
	go func() {
		h, err := wdelta.Decode(r.Context(), base, body, in)
		if err == nil && h.Target != d {
			err = blob.ErrMismatch
		}
		in.CloseWithError(err)
	}()
	defer out.Close() // ends the decoder
	return a.opts.Blobs.Put(out, d)
}
