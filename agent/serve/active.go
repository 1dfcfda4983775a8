package serve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

// table says which versions serve. It is replaced as a whole, never changed.
type table struct {
	generation uint64
	// models holds the versions of each name; the last is the default.
	models map[string][]*version
	// named is what active.json names.
	named []models.Ref
	// failed tells which versions active.json names that do not serve.
	failed []runnerapi.ModelStatus
}

func (t *table) find(name, number string) (*version, error) {
	vs := t.models[name]
	if len(vs) == 0 {
		return nil, faultf(http.StatusNotFound, "no model %q is loaded", name)
	}
	if number == "" {
		return vs[len(vs)-1], nil
	}
	for _, v := range vs {
		if v.ref.Version == number {
			return v, nil
		}
	}
	return nil, faultf(http.StatusNotFound, "model %q has no version %q loaded", name, number)
}

// serves reports whether v is in the table.
func (t *table) serves(v *version) bool { return slices.Contains(t.models[v.ref.Name], v) }

// fileStamp tells one content of a file from the next: every write of
// internal/durable makes a new inode.
type fileStamp struct {
	inode   uint64
	changed time.Time
}

func stampOf(path string) (fileStamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return fileStamp{}, err
	}
	stamp := fileStamp{changed: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		stamp.inode = st.Ino
	}
	return stamp, nil
}

const (
	watchInterval = 250 * time.Millisecond
	retryMin      = time.Second
	retryMax      = time.Minute
)

// watch applies active.json when it changes, and again, less and less often,
// while a version that it names does not load.
func (s *Server) watch(ctx context.Context) error {
	tick := time.NewTicker(watchInterval)
	defer tick.Stop()
	pause := retryMin
	var retryAt time.Time
	for {
		seen := s.seen()
		now, err := stampOf(s.opts.Active)
		changed := err == nil && now != seen
		if err != nil && !errors.Is(err, fs.ErrNotExist) && retryAt.IsZero() {
			retryAt = time.Now() // reload says what is wrong
		}
		if changed {
			pause = retryMin
		}
		if changed || !retryAt.IsZero() && !time.Now().Before(retryAt) {
			err := s.reload(ctx)
			if err != nil && ctx.Err() == nil {
				s.log.Error("models stay as they are", "err", err)
			}
			retryAt = time.Time{}
			if err != nil || len(s.table.Load().failed) > 0 {
				retryAt = time.Now().Add(pause)
				pause = min(2*pause, retryMax)
			}
		}
		s.looked.Store(true)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (s *Server) seen() fileStamp {
	s.switching.Lock()
	defer s.switching.Unlock()
	return s.lastSeen
}

// reload reads active.json, loads what it names and switches. A version that
// does not load leaves those of the same name that serve now in place; that is
// no error of reload but told by Status. No file means that nothing changes.
func (s *Server) reload(ctx context.Context) error {
	s.switching.Lock()
	defer s.switching.Unlock()
	stamp, err := stampOf(s.opts.Active)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read active models: %w", err)
	}
	s.lastSeen = stamp
	var active runnerapi.Active
	if _, err := (durable.Journal{Path: s.opts.Active, Version: runnerapi.ActiveVersion}).Load(&active); err != nil {
		return fmt.Errorf("read active models: %w", err)
	}
	next, err := s.prepare(ctx, active)
	if err != nil {
		return err
	}
	old := s.table.Swap(next)
	s.endShadows(next)
	defer s.measured.forget(s.isKnown)
	for _, vs := range old.models {
		for _, v := range vs {
			if !next.serves(v) {
				s.log.Info("model retired", "model", v.ref.Name, "version", v.ref.Version, "digest", v.ref.Digest.Short())
				s.forget(v)
			}
		}
	}
	return nil
}

// promotable refuses a candidate whose worker has died since it was proved; the
// next attempt loads it afresh. What serves already stays, up or down.
func (s *Server) promotable(v *version) error {
	up, why := v.ready()
	if up || s.table.Load().serves(v) {
		return nil
	}
	s.forget(v)
	return fmt.Errorf("worker of model %s is down: %w", v.ref, why)
}

// loadsAtOnce bounds how many models start together: loading is bound by the
// CPU, and the old versions are still serving beside them.
const loadsAtOnce = 2

// prepare loads what is missing and returns the table to switch to.
func (s *Server) prepare(ctx context.Context, active runnerapi.Active) (*table, error) {
	if active.Blobs == "" {
		active.Blobs = s.blobsBeside()
	}
	if active.Generation != s.table.Load().generation {
		s.loadAgain("") // the agent has decided anew
	}
	loaded := make([]*version, len(active.Models))
	errs := make([]error, len(active.Models))
	// Asked once: a client may load or unload a model while others are loaded.
	unloaded := make([]bool, len(active.Models))
	var g errgroup.Group
	g.SetLimit(loadsAtOnce)
	for i, ref := range active.Models {
		if unloaded[i] = s.isUnloaded(ref.Name); unloaded[i] {
			continue
		}
		g.Go(func() error {
			loaded[i], errs[i] = s.load(ctx, ref, active.Blobs)
			if errs[i] == nil {
				errs[i] = s.promotable(loaded[i])
			}
			return nil
		})
	}
	_ = g.Wait() // each error is kept beside its model
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("switch models: %w", context.Cause(ctx))
	}
	old := s.table.Load()
	next := &table{generation: active.Generation, models: map[string][]*version{}, named: active.Models}
	for i, ref := range active.Models {
		if unloaded[i] {
			continue
		}
		if errs[i] != nil {
			s.log.Error("model does not load", "model", ref.Name, "version", ref.Version, "digest", ref.Digest.Short(), "err", errs[i])
			next.failed = append(next.failed, runnerapi.ModelStatus{Ref: ref, State: runnerapi.ModelFailed, Err: errs[i].Error(), Damaged: errors.Is(errs[i], errDamaged)})
			continue
		}
		if !slices.Contains(next.models[ref.Name], loaded[i]) {
			next.models[ref.Name] = append(next.models[ref.Name], loaded[i])
		}
	}
	for _, f := range next.failed {
		if len(next.models[f.Name]) == 0 && len(old.models[f.Name]) > 0 {
			next.models[f.Name] = old.models[f.Name]
		}
	}
	return next, nil
}
