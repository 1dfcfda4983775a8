package activate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// book is the journal's content.
type book struct {
	Generation uint64           `json:"generation"`
	Models     map[string]State `json:"models"`
	// Known are the blobs that this package asked for and has not deleted;
	// blobs of others in the same store are none of its business.
	Known []blob.Digest `json:"known,omitempty"`
	// Keep are versions that are not deleted although nothing needs them: pinned ones.
	Keep []models.Ref `json:"keep,omitempty"`
	// Pending are reports that may not have been delivered.
	Pending []Phase `json:"pending,omitempty"`
}

func (b *book) names() []string { return sortedKeys(b.Models) }

func (b *book) get(name string) State {
	if s, ok := b.Models[name]; ok {
		return s
	}
	return State{Name: name, Step: StepIdle}
}

func (b *book) put(s State) {
	if s.gone() {
		delete(b.Models, s.Name)
	} else {
		b.Models[s.Name] = s
	}
	known := b.needed()
	for _, d := range b.Known {
		known[d] = true
	}
	b.Known = sortedDigests(known)
}

// needed are the blobs of all versions that are kept.
func (b *book) needed() map[blob.Digest]bool {
	need := map[blob.Digest]bool{}
	for _, s := range b.Models {
		for _, v := range s.kept() {
			if v.none() {
				continue
			}
			need[v.Digest] = true
			for _, f := range v.Files {
				need[f.Digest] = true
			}
		}
	}
	return need
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sortedDigests(set map[blob.Digest]bool) []blob.Digest {
	return slices.SortedFunc(maps.Keys(set), func(x, y blob.Digest) int { return bytes.Compare(x[:], y[:]) })
}

// load reads the journal, or rebuilds it from active.json.
func (a *Activator) load() error {
	var b book
	found, err := a.opts.Journal.Load(&b)
	if err == nil && found {
		if b.Models == nil {
			b.Models = map[string]State{}
		}
		a.book = b
		return nil
	}
	if err != nil {
		a.log.Error("activation journal is not readable, rebuilding it from active.json; failures before this are forgotten", "err", err)
	}
	a.book = book{Models: map[string]State{}}
	var act runnerapi.Active
	if ok, err := a.activeJournal().Load(&act); err != nil || !ok {
		if err != nil {
			a.log.Error("active.json is not readable, starting without models", "err", err)
		}
		return nil
	}
	a.book.Generation = act.Generation
	for _, ref := range act.Models {
		v, err := a.open(ref)
		if err != nil {
			a.log.Error("active model is not usable", "model", ref.Name, "digest", ref.Digest, "err", err)
			continue
		}
		want := Want{Ref: ref}
		a.book.put(State{Name: ref.Name, Step: StepIdle, Want: want, Current: v, Confirmed: want})
	}
	return nil
}

// open reads the manifest of a version whose blob is present.
func (a *Activator) open(ref models.Ref) (Version, error) {
	m, err := a.Manifest(ref)
	return described(ref, m), err
}

// errUntrusted marks a manifest that this box must not follow.
var errUntrusted = errors.New("manifest is not acceptable")

// Manifest reads the manifest of a version whose blob is present, if it is signed.
func (a *Activator) Manifest(ref models.Ref) (models.Manifest, error) {
	env, err := a.opts.Blobs.ReadAll(ref.Digest, trust.MaxEnvelopeBytes)
	if err != nil {
		return models.Manifest{}, fmt.Errorf("read manifest: %w", err)
	}
	if blob.Sum(env) != ref.Digest {
		return models.Manifest{}, fmt.Errorf("read manifest: %w", blob.ErrMismatch)
	}
	payload, err := a.opts.Keyring().OpenListed(trust.TypeModel, env)
	if err != nil {
		return models.Manifest{}, fmt.Errorf("%w: %w", errUntrusted, err)
	}
	m, err := models.DecodeManifest(payload)
	if err != nil {
		return models.Manifest{}, fmt.Errorf("%w: %w", errUntrusted, err)
	}
	if m.Name != ref.Name || m.Version != ref.Version {
		return models.Manifest{}, fmt.Errorf("%w: it is of %s:%s, not of %s", errUntrusted, m.Name, m.Version, ref)
	}
	return m, nil
}

// save writes the journal if it differs from what is on disk.
func (a *Activator) save(ctx context.Context) error {
	data, err := json.Marshal(a.book)
	if err != nil {
		return fmt.Errorf("encode activation journal: %w", err)
	}
	if bytes.Equal(data, a.saved) {
		return nil
	}
	if err := a.write(ctx, func() error { return a.opts.Journal.Save(a.book) }); err != nil {
		return err
	}
	a.saved = data
	return nil
}

// full says whether a disk took no write for lack of room.
func full(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// write repeats a write for as long as the disk is full: going on without the
// journal would be wrong, and ending the agent would not make room.
func (a *Activator) write(ctx context.Context, save func() error) error {
	var began time.Time
	for told := false; ; {
		err := save()
		if !full(err) {
			if told && err == nil {
				a.log.Info("disk has room again, activation goes on")
				a.excuse(time.Since(began))
				a.tellDisk(nil)
			}
			return err
		}
		if !told {
			told, began = true, time.Now()
			a.log.Error("disk is full, activation waits", "err", err)
			a.tellDisk(err)
		}
		if !sleep(ctx, 10*time.Second) {
			return ctx.Err()
		}
	}
}

// excuse takes the time in which nothing could go on out of the time of each step:
// no version is late for it.
func (a *Activator) excuse(waited time.Duration) {
	for _, name := range a.book.names() {
		s := a.book.Models[name]
		s.Since = s.Since.Add(waited)
		a.book.Models[name] = s
	}
}

// tellDisk reports of each version on its way why it stands still. It cannot be
// in the journal, and what reports are for may have room: the link, or the spool.
func (a *Activator) tellDisk(err error) {
	for _, name := range a.book.names() {
		s := a.book.get(name)
		switch s.Step {
		case StepFetching, StepProbing, StepShadow, StepSwitching, StepTrial:
			p := s.report(string(s.Step), "", nil).Phase
			if err != nil {
				p.Disk = true
				p.Err = fmt.Sprintf("waits: the state folder takes no writes: %v; make room on its disk, then the box goes on by itself", err)
			}
			a.opts.Report(p)
		}
	}
}

// deliver hands pending reports over.
func (a *Activator) deliver(ctx context.Context) error {
	if len(a.book.Pending) == 0 {
		return nil
	}
	for _, p := range a.book.Pending {
		a.opts.Report(p)
	}
	a.book.Pending = nil
	return a.save(ctx)
}

func (a *Activator) activeJournal() durable.Journal {
	return durable.Journal{Path: a.opts.ActivePath, Version: runnerapi.ActiveVersion, OnSave: a.opts.Journal.OnSave}
}

// syncActive makes active.json say what the journal says.
func (a *Activator) syncActive(ctx context.Context) error {
	want := runnerapi.Active{Generation: a.book.Generation, Blobs: a.opts.Blobs.Dir(), Models: []models.Ref{}}
	for _, name := range a.book.names() {
		if v := a.book.get(name).Serving(); !v.none() {
			want.Models = append(want.Models, v.Ref)
		}
	}
	if a.active == nil {
		var have runnerapi.Active
		if ok, err := a.activeJournal().Load(&have); ok && err == nil {
			a.active = &have
		}
	}
	if a.active != nil && reflect.DeepEqual(*a.active, want) {
		return nil
	}
	if err := a.write(ctx, func() error { return a.activeJournal().Save(want) }); err != nil {
		return fmt.Errorf("write active models: %w", err)
	}
	a.active = &want
	return nil
}

// Known are the blobs that this package looks after, as the journal has them.
func (a *Activator) Known() ([]blob.Digest, error) {
	var b book
	_, err := a.opts.Journal.Load(&b)
	return b.Known, err
}

// sweep deletes blobs that no kept version needs, nor a pinned one, nor one that the runner
// still has: requests may be on their way through it, and its worker may start again.
func (a *Activator) sweep(ctx context.Context) error {
	need := a.book.needed()
	stay := slices.Clone(a.book.Keep)
	for _, m := range a.status.Models {
		stay = append(stay, m.Ref)
	}
	for _, ref := range stay {
		if need[ref.Digest] || !slices.Contains(a.book.Known, ref.Digest) {
			continue
		}
		need[ref.Digest] = true
		v, err := a.open(ref)
		if err != nil {
			continue // what cannot be read cannot be started again either
		}
		for _, f := range v.Files {
			if slices.Contains(a.book.Known, f.Digest) {
				need[f.Digest] = true
			}
		}
	}
	if len(need) == len(a.book.Known) {
		return nil
	}
	for _, d := range a.book.Known {
		if need[d] {
			continue
		}
		if err := errors.Join(a.opts.Blobs.Delete(d), a.opts.Blobs.Unstage(d)); err != nil {
			a.log.Warn("old blob stays", "digest", d, "err", err)
			need[d] = true // try again later
		}
	}
	a.book.Known = sortedDigests(need)
	return a.save(ctx)
}
