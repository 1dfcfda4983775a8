package agent

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"runtime"

	"github.com/edgeherd/edgeherd/agent/enrol"
	guard "github.com/edgeherd/edgeherd/agent/trust"
	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
	"github.com/edgeherd/edgeherd/models"
)

// TrustFile is where the fleet's metadata lies in STATE.
const TrustFile = "trust.db"

// openGuard prepares what says whether a version may be installed.
func (a *Agent) openGuard(files *http.Client) (err error) {
	a.guard, err = guard.Open(guard.Options{
		Path: filepath.Join(a.opts.State, TrustFile), Keyring: a.id.Keyring, Root: a.id.TrustRoot,
		HTTP: files, BaseURL: "https://" + a.id.HTTPS, Adopt: a.adopt,
		Machine: []string{a.sampler.Board().Class, runtime.GOARCH}, Version: a.opts.Version,
		NotBefore: a.id.Certificate.Leaf.NotBefore, WallClock: a.clock.wall, NoSync: a.opts.NoSync,
	}, a.log)
	return err
}

// adopt keeps the root of a fleet that has gone into production.
func (a *Agent) adopt(ring trust.Keyring, root []byte) error {
	id, err := enrol.Load(IdentityDir(a.opts.State)) // renewed, perhaps
	if err != nil {
		return err
	}
	if len(id.TrustRoot) > 0 {
		return errors.New("there is one already")
	}
	id.Keyring, id.TrustRoot = ring, root
	return id.Box.Write(IdentityDir(a.opts.State))
}

func (a *Agent) allowModel(ctx context.Context, ref models.Ref) error {
	return a.guard.Allow(ctx, tufrepo.KindModel, ref.Name, ref.Version, ref.Digest)
}

func (a *Agent) allowRelease(ctx context.Context, version string, d blob.Digest) error {
	return a.guard.Allow(ctx, tufrepo.KindRelease, firmware.KindAgent, version, d)
}

// fetchRelease fetches a part of a release, whose signature is looked at before
// Allow is asked.
func (a *Agent) fetchRelease(ctx context.Context, d blob.Digest) (string, error) {
	a.guard.Adopt(ctx)
	return a.fetchPath(ctx, d)
}
