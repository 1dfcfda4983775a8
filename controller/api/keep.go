package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/models"
)

type versionInput struct {
	Name string `path:"name" maxLength:"63" example:"silero-vad"`
	Body fleetapi.VerifyModel
}

// verifyModel hashes the files of a version again, as they lie in the store.
func (a *API) verifyModel(ctx context.Context, in *versionInput) (fleetapi.VerifiedModel, error) {
	m, err := a.opts.Store.Model(ctx, in.Name, in.Body.Version)
	if err != nil {
		return fleetapi.VerifiedModel{}, err
	}
	out := fleetapi.VerifiedModel{Ref: m.Ref(), OK: true, Files: []fleetapi.VerifiedFile{}}
	files := append([]models.File{{Path: "(signed manifest)", Digest: m.Digest}}, m.Manifest.Files...)
	for _, f := range files {
		v := a.verifyFile(f)
		if v.State == fleetapi.FileDamaged && in.Body.Drop {
			if err := a.opts.Blobs.Delete(f.Digest); err != nil {
				return out, err
			}
			v.State = fleetapi.FileMissing
			audit.Of(ctx).Note = "damaged files removed"
		}
		out.OK = out.OK && v.State == fleetapi.FileOK
		out.Files = append(out.Files, v)
	}
	d := audit.Of(ctx)
	d.Object, d.After = "model "+m.Ref().String(), fmt.Sprintf("ok: %t", out.OK)
	return out, ctx.Err()
}

func (a *API) verifyFile(f models.File) fleetapi.VerifiedFile {
	v := fleetapi.VerifiedFile{Path: f.Path, Digest: f.Digest, State: fleetapi.FileOK}
	var err error
	v.SizeBytes, err = a.opts.Blobs.Verify(f.Digest)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		v.State = fleetapi.FileMissing
	case err != nil:
		v.State, v.Why = fleetapi.FileDamaged, err.Error()
	}
	return v
}

// maxPinned versions of a name take room on every box that has run them.
const maxPinned = 8

type pinInput struct {
	Name string `path:"name" maxLength:"63" example:"silero-vad"`
	Body fleetapi.PinModel
}

// pinModel keeps a version. Boxes hear of it with the next version that replaces
// something there: nothing is collected before.
func (a *API) pinModel(ctx context.Context, in *pinInput) (fleetapi.ModelVersion, error) {
	a.deciding.Lock() // it is not retired meanwhile
	defer a.deciding.Unlock()
	m, err := a.opts.Store.Model(ctx, in.Name, in.Body.Version)
	if err != nil {
		return fleetapi.ModelVersion{}, err
	}
	err = a.opts.Store.PinModel(ctx, m.Ref(), in.Body.Pinned, maxPinned)
	if errors.Is(err, store.ErrConflict) {
		return fleetapi.ModelVersion{}, conflict("Let one go first: edgeherd model unpin "+in.Name+":VERSION", "%d versions of %s are pinned already", maxPinned, in.Name)
	}
	if err != nil {
		return fleetapi.ModelVersion{}, err
	}
	d := audit.Of(ctx)
	d.Object, d.Before, d.After = "model "+m.Ref().String(), fmt.Sprintf("pinned: %t", m.Pinned), fmt.Sprintf("pinned: %t", in.Body.Pinned)
	m.Pinned = in.Body.Pinned
	a.changed(fleetapi.Change{Topic: "models", ID: in.Name})
	return versionOf(m), nil
}

func pinned(ref models.Ref) error {
	return conflict("If it may go: edgeherd model unpin "+ref.String(), "%s is pinned", ref)
}

// retireModel forgets a version that nobody runs or shall run.
func (a *API) retireModel(ctx context.Context, in *versionInput) (fleetapi.RetiredModel, error) {
	a.deciding.Lock() // no rollout of it begins meanwhile
	defer a.deciding.Unlock()
	m, err := a.opts.Store.Model(ctx, in.Name, in.Body.Version)
	if err != nil {
		return fleetapi.RetiredModel{}, err
	}
	if m.Pinned {
		return fleetapi.RetiredModel{}, pinned(m.Ref())
	}
	boxes, err := a.boxes(ctx)
	if err != nil {
		return fleetapi.RetiredModel{}, err
	}
	for _, b := range boxes {
		for _, x := range b.Models {
			if x.RunningDigest == m.Digest || x.DesiredDigest == m.Digest {
				return fleetapi.RetiredModel{}, conflict("Roll another version out first. edgeherd model where "+m.Ref().String()+" lists all.", "box %s runs %s or shall run it", b.Name, m.Ref())
			}
		}
	}
	rollouts, err := a.opts.Store.Rollouts(ctx, fleetapi.RolloutDraft, fleetapi.RolloutRunning, fleetapi.RolloutPaused, fleetapi.RolloutHalted)
	if err != nil {
		return fleetapi.RetiredModel{}, err
	}
	for _, r := range rollouts {
		if r.Target.Digest == m.Digest {
			return fleetapi.RetiredModel{}, conflict("Cancel it first: edgeherd rollout cancel "+r.ID, "rollout %s of %s is %s", r.ID, m.Ref(), r.State)
		}
	}
	rest, err := a.opts.Store.RetireModel(ctx, m.Digest)
	if errors.Is(err, store.ErrConflict) { // by another controller, a moment ago
		return fleetapi.RetiredModel{}, pinned(m.Ref())
	}
	if err != nil {
		return fleetapi.RetiredModel{}, err
	}
	d := audit.Of(ctx)
	d.Object, d.Before = "model "+m.Ref().String(), m.Digest.String()
	out := fleetapi.RetiredModel{Ref: m.Ref()}
	var errs []error
	for _, x := range rest {
		n, err := a.opts.Blobs.Size(x)
		if err == nil {
			err = a.opts.Blobs.Delete(x)
			out.FreedBytes += n
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		a.log.Warn("files of a retired version stay", "model", m.Ref(), "err", err)
	}
	a.changed(fleetapi.Change{Topic: "models", ID: in.Name})
	return out, nil
}
