package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

func (a *API) registerArtefacts() {
	route(a, post("/blobs:missing", "missingBlobs", "Which of these files are not here yet", "artefacts"), a.missing)
	route(a, get("/models", "listModels", "Models with their versions, newest first", "artefacts"), a.listModels)
	route(a, get("/models/{name}", "getModel", "One model with its versions", "artefacts"), a.getModel)
	route(a, a.acting(post("/models", "pushModel", "Register a signed manifest whose files are here", "artefacts")), a.pushModel)
	route(a, get("/models/{name}/diff", "diffModel", "What a box that has one version of a model fetches for another", "artefacts"), a.diffModel)
	route(a, a.acting(post("/models/{name}/verify", "verifyModel", "Hash the files of a version again", "artefacts")), a.verifyModel)
	route(a, a.acting(post("/models/{name}/retire", "retireModel", "Forget a version that no box runs, with its files", "artefacts")), a.retireModel)
	route(a, a.acting(post("/models/{name}/pin", "pinModel", "Keep a version here and on boxes that have it, or no more", "artefacts")), a.pinModel)
	route(a, post("/bundles:check", "checkBundle", "Whether a version that came in a bundle would be taken, and what is missing of it", "artefacts"), a.checkBundle)
	a.registerDrift()
	route(a, get("/releases", "listReleases", "Agent releases, newest first", "artefacts"), a.listReleases)
	route(a, a.acting(post("/releases", "pushRelease", "Register a signed release whose files are here", "artefacts")), a.pushRelease)
}

// versions are all models with how many boxes run and shall run each.
func (a *API) versions(ctx context.Context) ([]fleetapi.Model, error) {
	stored, err := a.opts.Store.Models(ctx)
	if err != nil {
		return nil, err
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return nil, err
	}
	running, desired := map[blob.Digest]int{}, map[blob.Digest]int{}
	for _, b := range boxes {
		for _, m := range b.Models {
			running[m.RunningDigest]++
			desired[m.DesiredDigest]++
		}
	}
	out := []fleetapi.Model{}
	for _, m := range stored {
		if n := len(out); n == 0 || out[n-1].Name != m.Manifest.Name {
			out = append(out, fleetapi.Model{Name: m.Manifest.Name, Versions: []fleetapi.ModelVersion{}})
		}
		v := versionOf(m)
		v.Running, v.Desired = running[m.Digest], desired[m.Digest]
		last := &out[len(out)-1]
		last.Versions = append(last.Versions, v)
	}
	return out, nil
}

func versionOf(m store.Model) fleetapi.ModelVersion {
	return fleetapi.ModelVersion{
		Ref: m.Ref(), Description: m.Manifest.Description, Licence: m.Manifest.Licence, SizeBytes: m.Manifest.SizeBytes(),
		Signature: signature(m.Manifest.Signature), Pushed: time.UnixMilli(m.PushedMs).UTC(), Provenance: m.Manifest.Provenance, Pinned: m.Pinned,
	}
}

// signature writes a scalar's shape as an empty list, never as null.
func signature(s models.Signature) models.Signature {
	for _, side := range []*[]models.TensorSpec{&s.Inputs, &s.Outputs} {
		*side = slices.Clone(*side)
		for i := range *side {
			if (*side)[i].Shape == nil {
				(*side)[i].Shape = []int64{}
			}
		}
	}
	return s
}

func (a *API) listModels(ctx context.Context, _ *nothing) (fleetapi.ModelList, error) {
	items, err := a.versions(ctx)
	return fleetapi.ModelList{Items: items}, err
}

type modelInput struct {
	Name string `path:"name" maxLength:"63" example:"silero-vad"`
}

func (a *API) getModel(ctx context.Context, in *modelInput) (fleetapi.Model, error) {
	all, err := a.versions(ctx)
	if err != nil {
		return fleetapi.Model{}, err
	}
	for _, m := range all {
		if m.Name == in.Name {
			if !who(ctx).Everywhere() {
				return m, nil // a line of drift tells of the whole fleet
			}
			return m, a.addDrift(ctx, &m)
		}
	}
	return fleetapi.Model{}, fmt.Errorf("model %s: %w", in.Name, store.ErrNotFound)
}

type pushModelInput struct{ Body fleetapi.PushModel }

// pushModel takes a version in, if it is signed, whole, what it says it is,
// and a replacement for the versions before it.
func (a *API) pushModel(ctx context.Context, in *pushModelInput) (fleetapi.ModelVersion, error) {
	keys, err := a.publishers(ctx)
	if err != nil {
		return fleetapi.ModelVersion{}, err
	}
	payload, err := keys.Open(trust.TypeModel, in.Body.Envelope)
	if err != nil {
		return fleetapi.ModelVersion{}, untrusted(err)
	}
	m, err := models.DecodeManifest(payload)
	if err != nil {
		return fleetapi.ModelVersion{}, refuse("", "the manifest is not valid: %s", err)
	}
	digest := blob.Sum(in.Body.Envelope)
	all, err := a.opts.Store.Models(ctx)
	if err != nil {
		return fleetapi.ModelVersion{}, err
	}
	for _, other := range all {
		if other.Manifest.Name == m.Name && other.Manifest.Version == m.Version && other.Digest != digest {
			if reflect.DeepEqual(other.Manifest, m) {
				return fleetapi.ModelVersion{}, conflict("Push it with that key; or, if no box runs it, first: edgeherd model retire "+other.Ref().String(), "%s is already pushed, signed with another key", other.Ref())
			}
			return fleetapi.ModelVersion{}, fmt.Errorf("%s:%s is already pushed with other content: %w", m.Name, m.Version, store.ErrConflict)
		}
	}
	for _, f := range m.Files {
		if err := a.mustHold(f.Path, f.Digest, f.SizeBytes); err != nil {
			return fleetapi.ModelVersion{}, err
		}
		if err := a.keepFrames(f); err != nil {
			return fleetapi.ModelVersion{}, err
		}
	}
	if err := a.checkContent(m); err != nil {
		return fleetapi.ModelVersion{}, err
	}
	for _, other := range all { // newest first
		if other.Manifest.Name != m.Name || other.Digest == digest {
			continue
		}
		if err := other.Manifest.Accepts(m); err != nil {
			return fleetapi.ModelVersion{}, refuse("Callers of the old version would break. Push it under another name.", "%s:%s cannot replace %s: %s", m.Name, m.Version, other.Ref(), err)
		}
	}
	if err := a.opts.Blobs.Put(bytes.NewReader(in.Body.Envelope), digest); err != nil {
		return fleetapi.ModelVersion{}, err
	}
	d := audit.Of(ctx)
	d.Object, d.After = "model "+m.Name+":"+m.Version, digest.String()
	if err := a.opts.Store.AddModel(ctx, digest, m); err != nil {
		return fleetapi.ModelVersion{}, err
	}
	boxes, err := a.boxes(ctx)
	if err == nil {
		err = a.wantPacks(ctx, m, boxes)
	}
	if err != nil {
		return fleetapi.ModelVersion{}, err
	}
	a.changed(fleetapi.Change{Topic: "models", ID: m.Name})
	stored, err := a.opts.Store.Model(ctx, m.Name, m.Version)
	return versionOf(stored), err
}

func untrusted(err error) error {
	hint := ""
	if errors.Is(err, trust.ErrUntrusted) {
		hint = "Sign with a key that this controller trusts: --key FILE, or signing_key in the context; in production --sign FILE, with the key of its channel."
	}
	return refuse(hint, "%s", err)
}

// mustHold checks that an uploaded file is here and as long as it shall be.
func (a *API) mustHold(name string, d blob.Digest, size int64) error {
	have, err := a.opts.Blobs.Size(d)
	if err != nil {
		return refuse("Upload it first: PUT /api/v1/blobs/"+d.Hex(), "the file %s (%s) is not here", name, d)
	}
	if have == size {
		return nil
	}
	if _, err := a.opts.Blobs.Verify(d); err != nil {
		return refuse(damagedHint, "the file %s (%s) is damaged where the controller stores it: it has %d bytes there, the manifest says %d", name, d, have, size)
	}
	return refuse("Pack it again: edgeherd model push DIR, edgeherd release push.", "the file %s has %d bytes, the manifest says %d", name, have, size)
}

// checkContent reads the model itself: the manifest must say of it what it is.
func (a *API) checkContent(m models.Manifest) error {
	if m.Backend != nil { // its files are for another program
		if err := m.CheckProof(func(f models.File) (io.ReadCloser, error) { return a.opts.Blobs.Get(f.Digest) }); err != nil {
			return refuse("", "%s", err)
		}
		return nil
	}
	file, _ := m.File(models.ModelFile)
	f, err := a.opts.Blobs.Get(file.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := models.ReadONNX(f)
	if err != nil {
		return refuse("", "%s: %s", models.ModelFile, err)
	}
	if err := m.CheckExternal(models.ModelFile, info.External); err != nil {
		return refuse("Pack it again: edgeherd model push DIR.", "%s", err)
	}
	if err := sameSignature(info.Signature, m.Signature); err != nil {
		return refuse("Pack it again: edgeherd model push DIR.", "the manifest's signature is not that of %s: %s", models.ModelFile, err)
	}
	if err := m.CheckVariants(func(f models.File) (io.ReadCloser, error) { return a.opts.Blobs.Get(f.Digest) }); err != nil {
		return refuse("All variants of a model have the same inputs and outputs. Pack it again: edgeherd model push DIR.", "%s", err)
	}
	golden, ok := m.File(models.GoldenFile)
	if !ok {
		return nil
	}
	g, err := models.ReadGolden(a.opts.Blobs.Path(golden.Digest))
	if err == nil {
		err = g.Fits(m.Signature)
	}
	if err != nil {
		return refuse("", "%s: %s", models.GoldenFile, err)
	}
	return nil
}

func sameSignature(file, manifest models.Signature) error {
	for _, side := range []struct {
		name      string
		got, want []models.TensorSpec
	}{{"inputs", manifest.Inputs, file.Inputs}, {"outputs", manifest.Outputs, file.Outputs}} {
		if len(side.got) != len(side.want) {
			return fmt.Errorf("it has %d %s, the file %d", len(side.got), side.name, len(side.want))
		}
		for i, got := range side.got {
			want := side.want[i]
			if got.Name != want.Name || got.DType != want.DType || !slices.Equal(got.Shape, want.Shape) {
				return fmt.Errorf("it has %s %v %s, the file %s %v %s", got.Name, got.Shape, got.DType, want.Name, want.Shape, want.DType)
			}
		}
	}
	return nil
}

// changed tells browsers and the conductor.
func (a *API) changed(c fleetapi.Change) {
	a.opts.Hub.Publish(c)
	a.opts.Wake()
}

func (a *API) listReleases(ctx context.Context, _ *nothing) (fleetapi.ReleaseList, error) {
	list := fleetapi.ReleaseList{Items: []fleetapi.Release{}}
	stored, err := a.opts.Store.Releases(ctx)
	if err != nil {
		return list, err
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return list, err
	}
	running := map[string]int{}
	for _, b := range boxes {
		running[b.Inventory.AgentRelease]++
	}
	for _, r := range stored {
		v := releaseOf(r)
		v.Running = running[r.Digest.String()]
		list.Items = append(list.Items, v)
	}
	return list, nil
}

func releaseOf(r store.Release) fleetapi.Release {
	v := fleetapi.Release{
		Version: r.Release.Version, Counter: r.Release.Counter, Digest: r.Digest,
		Platforms: []string{}, Pushed: time.UnixMilli(r.PushedMs).UTC(),
	}
	for _, b := range r.Release.Builds {
		v.Platforms = append(v.Platforms, b.OS+"/"+b.Arch)
	}
	return v
}

type pushReleaseInput struct{ Body fleetapi.PushRelease }

func (a *API) pushRelease(ctx context.Context, in *pushReleaseInput) (fleetapi.Release, error) {
	keys, err := a.publishers(ctx)
	if err != nil {
		return fleetapi.Release{}, err
	}
	r, err := firmware.Open(keys, in.Body.Envelope)
	if err != nil {
		return fleetapi.Release{}, untrusted(err)
	}
	digest := blob.Sum(in.Body.Envelope)
	all, err := a.opts.Store.Releases(ctx)
	if err != nil {
		return fleetapi.Release{}, err
	}
	for _, other := range all {
		if other.Release.Version == r.Version && other.Digest != digest {
			return fleetapi.Release{}, fmt.Errorf("release %s is already pushed with other content: %w", r.Version, store.ErrConflict)
		}
		if other.Digest != digest && other.Release.Counter >= r.Counter {
			return fleetapi.Release{}, refuse(fmt.Sprintf("Use %d or more.", other.Release.Counter+1), "the counter %d is not above that of release %s, which has %d; boxes would refuse it", r.Counter, other.Release.Version, other.Release.Counter)
		}
	}
	for _, b := range r.Builds {
		if err := a.mustHold(b.OS+"/"+b.Arch, b.Digest, b.SizeBytes); err != nil {
			return fleetapi.Release{}, err
		}
	}
	if err := a.opts.Blobs.Put(bytes.NewReader(in.Body.Envelope), digest); err != nil {
		return fleetapi.Release{}, err
	}
	d := audit.Of(ctx)
	d.Object, d.After = "release "+r.Version, digest.String()
	if err := a.opts.Store.AddRelease(ctx, digest, r); err != nil {
		return fleetapi.Release{}, err
	}
	a.changed(fleetapi.Change{Topic: "releases", ID: r.Version})
	stored, err := a.opts.Store.Release(ctx, r.Version)
	return releaseOf(stored), err
}
