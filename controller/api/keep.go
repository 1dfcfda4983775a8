package api

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/edgeherd/edgeherd/controller/audit"
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

// retireModel forgets a version that nobody runs or shall run.
func (a *API) retireModel(ctx context.Context, in *versionInput) (fleetapi.RetiredModel, error) {
	a.deciding.Lock() // no rollout of it begins meanwhile
	defer a.deciding.Unlock()
	m, err := a.opts.Store.Model(ctx, in.Name, in.Body.Version)
	if err != nil {
		return fleetapi.RetiredModel{}, err
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
	rollouts, err := a.opts.Store.Rollouts(ctx)
	if err != nil {
		return fleetapi.RetiredModel{}, err
	}
	for _, r := range rollouts {
		if r.State != fleetapi.RolloutDone && r.State != fleetapi.RolloutCanceled && r.Target.Digest == m.Digest {
			return fleetapi.RetiredModel{}, conflict("Cancel it first: edgeherd rollout cancel "+r.ID, "rollout %s of %s is %s", r.ID, m.Ref(), r.State)
		}
	}
	rest, err := a.opts.Store.RetireModel(ctx, m.Digest)
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
