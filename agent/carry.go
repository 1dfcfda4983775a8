package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/bundle"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// A box takes a bundle from a stick when somebody at its console asks for it:
//
//	STATE/import/order.json   (ImportOrder) written by `edgeherd-agent import`
//	STATE/import/result.json  (ImportResult) how far it is, and how it ended
//	STATE/import/brought.json what imports brought, to be removed if nothing uses it
//
// The bundle stands where the controller stands otherwise: metadata, manifests
// and files go through the guard, the activator's check and the fetcher.

// ImportDir is where orders lie.
func ImportDir(state string) string { return filepath.Join(state, "import") }

// ImportOrder asks the agent to take a bundle. It stays until that has ended, so
// that a restart goes on with it.
type ImportOrder struct {
	ID   string `json:"id"`
	Path string `json:"path"`
}

// ImportResult tells how far an import is.
type ImportResult struct {
	ID         string   `json:"id"`
	Ended      bool     `json:"ended"`
	Err        string   `json:"error,omitempty"`
	DoneBytes  int64    `json:"done_bytes"`
	TotalBytes int64    `json:"total_bytes"`
	Versions   []string `json:"versions"`
	// Generation is that of the desired state that came along; 0: none did.
	Generation uint64 `json:"generation,omitempty"`
}

// ImportOrders is the journal of orders, ImportResults that of results.
func ImportOrders(state string) durable.Journal {
	return durable.Journal{Path: filepath.Join(ImportDir(state), "order.json"), Version: 1}
}

// ImportResults is where the agent tells how far an import is.
func ImportResults(state string) durable.Journal {
	return durable.Journal{Path: filepath.Join(ImportDir(state), "result.json"), Version: 1}
}

const (
	lookForOrders = 2 * time.Second
	tellImport    = time.Second
	// announceEvery is how often the controller hears what imports brought: it forgets
	// in a day who has a file.
	announceEvery = 12 * time.Hour
	// What it does not take is told again: soon, since the versions of a stick may
	// reach the controller a little later, and then less and less often, as all boxes
	// of a fleet may have had the stick. Another desired state is told at once: it is
	// with that that a version comes to the others of the site.
	announceAgain = time.Minute
	announceMost  = 6 * time.Hour
	// announceFor bounds how long one file may keep an order waiting.
	announceFor = 20 * time.Second
	// broughtFor is how long what an import brought waits to be used.
	broughtFor = 30 * 24 * time.Hour
)

// brought is a blob that an import brought.
type brought struct {
	Digest blob.Digest `json:"digest"`
	Until  time.Time   `json:"until"`
}

func (a *Agent) broughtJournal() durable.Journal {
	return durable.Journal{Path: filepath.Join(ImportDir(a.opts.State), "brought.json"), Version: 1}
}

// carryKey is the key of the bundle in the context of requests that it answers.
type carryKey struct{}

// carrier passes requests on to the network, but for those of an import.
type carrier struct{ *http.Transport }

func (c carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	if b, ok := req.Context().Value(carryKey{}).(*bundle.Bundle); ok {
		return b.RoundTrip(req)
	}
	return c.Transport.RoundTrip(req)
}

// importLoop takes bundles that somebody at the console asks for.
func (a *Agent) importLoop(ctx context.Context) error {
	if err := durable.MkdirAll(ImportDir(a.opts.State), 0o700); err != nil {
		a.log.Warn("bundles cannot be imported", "err", err)
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(lookForOrders)
	defer tick.Stop()
	var news announcement
	var told uint64 // the generation of the desired state that was looked at
	for {
		if gen := a.generation(); a.obeyImport(ctx) || gen != told {
			news, told = announcement{}, gen
		}
		if a.link.Status().Connected && !time.Now().Before(news.due) {
			err := a.announceBrought(ctx)
			if news = news.after(err, time.Now()); err != nil {
				a.log.Debug("the controller was not told what imports brought", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// announcement is when the controller is told next what imports brought.
type announcement struct {
	due  time.Time
	wait time.Duration // since the last one failed
}

// after is what follows from one that ended with err at now. Half of each wait is
// random: boxes that had a stick, or the controller back, together do not ask together.
func (n announcement) after(err error, now time.Time) announcement {
	every, next := announceEvery, announcement{}
	if err != nil {
		every = min(max(2*n.wait, announceAgain), announceMost)
		next.wait = every
	}
	next.due = now.Add(every/2 + rand.N(every/2+1))
	return next
}

// generation is that of the desired state that the box follows.
func (a *Agent) generation() uint64 {
	a.running.mu.Lock()
	defer a.running.mu.Unlock()
	return a.running.generation
}

// obeyImport carries out an order, if there is one; ended tells that it did.
func (a *Agent) obeyImport(ctx context.Context) (ended bool) {
	orders := ImportOrders(a.opts.State)
	if _, err := os.Stat(orders.Path); err != nil {
		return false
	}
	var o ImportOrder
	found, err := orders.Load(&o)
	if !found || err != nil {
		a.log.Error("order to import a bundle", "err", err)
		a.must(durable.Remove(orders.Path))
		return false
	}
	a.log.Info("import of a bundle begins", "path", o.Path)
	i := carrying{a: a, res: ImportResult{ID: o.ID, Versions: []string{}}}
	err = i.run(ctx, o.Path)
	if ctx.Err() != nil {
		return false // the next start goes on
	}
	i.res.Ended = true
	if err != nil {
		i.res.Err = err.Error()
		a.log.Warn("bundle not imported", "path", o.Path, "err", err)
	} else {
		a.log.Info("bundle imported", "path", o.Path, "versions", i.res.Versions, "gen", i.res.Generation)
	}
	a.must(errors.Join(ImportResults(a.opts.State).Save(i.res), durable.Remove(orders.Path)))
	return true
}

// announceBrought tells the controller which files this box has from sticks, so that
// the others of the site fetch them here and not over the line. What is smaller than a
// frame each box fetches for itself.
func (a *Agent) announceBrought(ctx context.Context) error {
	var all []brought
	if found, err := a.broughtJournal().Load(&all); err != nil || !found {
		return err
	}
	var errs []error
	for _, b := range all {
		if n, err := a.blobs.Size(b.Digest); err == nil && n > blob.FrameBytes {
			one, cancel := context.WithTimeout(ctx, announceFor)
			err = a.fetcher.Announce(one, b.Digest, n)
			late := err != nil && one.Err() != nil
			cancel()
			errs = append(errs, err)
			if late {
				break // so would the others be
			}
		}
	}
	return errors.Join(errs...)
}

// carrying is an import under way.
type carrying struct {
	a      *Agent
	b      *bundle.Bundle
	res    ImportResult
	done   int64 // bytes of files before the one under way
	told   time.Time
	news   []blob.Digest
	wanted []fetchable
}

// fetchable is a version that is allowed, with its files.
type fetchable struct {
	bundle.Item
	files []models.File
}

func (i *carrying) run(ctx context.Context, path string) (err error) {
	if i.b, err = bundle.Open(path); err != nil {
		if errors.Is(err, fs.ErrPermission) {
			err = fmt.Errorf("%w: the agent's user may not read it: mount the stick readable for all, or copy the bundle to %s", err, ImportDir(i.a.opts.State))
		}
		return err
	}
	defer i.b.Close()
	defer func() {
		if errors.Is(err, blob.ErrMismatch) {
			err = fmt.Errorf("%w: the bundle was hurt on its way, or the stick wears out; copy the bundle again", err)
		}
		err = errors.Join(err, i.keep())
	}()
	if err := i.a.sweepBrought(); err != nil {
		i.a.log.Warn("what imports brought before stays", "err", err)
	}
	ctx = context.WithValue(fetch.Local(ctx), carryKey{}, i.b)
	i.a.guard.Adopt(ctx)
	models, releases, envelope, err := i.due()
	if err != nil {
		return err
	}
	for _, m := range models {
		if err := i.model(ctx, m); err != nil {
			return fmt.Errorf("model %s: %w", m, err)
		}
	}
	for _, r := range releases {
		if err := i.release(ctx, r); err != nil {
			return fmt.Errorf("agent release %s: %w", r.Version, err)
		}
	}
	if err := i.a.fetcher.Room(i.files()); err != nil {
		return err
	}
	for _, w := range i.wanted {
		if err := i.fetch(ctx, w); err != nil {
			return fmt.Errorf("%s: %w", w, err)
		}
	}
	if envelope != nil {
		i.a.accept(envelope) // files first: what is followed is there
	}
	i.res.DoneBytes = i.res.TotalBytes
	return nil
}

// due are the versions that this box shall take: those that it is assigned, or,
// of a bundle for any site without such words, all.
func (i *carrying) due() (models, releases []bundle.Item, envelope []byte, err error) {
	if site := i.a.id.Site; i.b.Site != "" && i.b.Site != site {
		return nil, nil, nil, fmt.Errorf("the bundle is for the boxes of site %s, this box is of site %s: bring the right one", i.b.Site, site)
	}
	envelope, err = i.b.DesiredOf(i.a.id.ID)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(i.b.Desired) == 0:
		return i.b.Models, i.b.Releases, nil, nil
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, nil, fmt.Errorf("the bundle says what %d boxes shall run, and this one (%s) is not among them: export one for its site", len(i.b.Desired), i.a.id.ID)
	case err != nil:
		return nil, nil, nil, err
	}
	d, err := i.a.openDesired(envelope)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("what this box shall run: %w", err)
	}
	have := i.a.generation()
	if d.Generation < have {
		return nil, nil, nil, fmt.Errorf("the bundle is older than what this box follows (generation %d, here %d): export it again", d.Generation, have)
	}
	i.res.Generation = d.Generation
	foreign := func(x bundle.Item) bool {
		for _, m := range d.Models {
			if m.Digest == x.Digest {
				return false
			}
		}
		return d.Agent == nil || d.Agent.Digest != x.Digest
	}
	return slices.DeleteFunc(slices.Clone(i.b.Models), foreign), slices.DeleteFunc(slices.Clone(i.b.Releases), foreign), envelope, nil
}

// model checks a version as if it was about to be activated.
func (i *carrying) model(ctx context.Context, x bundle.Item) error {
	ref := models.Ref{Name: x.Name, Version: x.Version, Digest: x.Digest}
	if err := i.a.allowModel(ctx, ref); err != nil {
		if slices.Contains(i.a.activate.Running(), ref) {
			return nil // it goes on here, whatever the metadata lists since
		}
		return err
	}
	// Before it is written: a manifest that nobody signed takes no room.
	data, err := i.b.Envelope(x)
	if err != nil {
		return err
	}
	if _, err := i.a.guard.Keyring().OpenListed(trust.TypeModel, data); err != nil {
		return err
	}
	i.note(x.Digest)
	if err := i.a.fetcher.Blob(ctx, x.Digest, 0, nil); err != nil {
		return err
	}
	m, err := i.a.activate.Manifest(ref)
	if err != nil {
		return errors.Join(err, i.a.blobs.Delete(x.Digest))
	}
	i.want(x, m.Files)
	return nil
}

// release checks a release of the agent and wants the program for this machine.
func (i *carrying) release(ctx context.Context, x bundle.Item) error {
	data, err := i.b.Envelope(x)
	if err != nil {
		return err
	}
	r, err := firmware.OpenListed(i.a.guard.Keyring(), data)
	if err == nil {
		err = i.a.allowRelease(ctx, r.Version, x.Digest)
	}
	if err != nil {
		return err
	}
	build, ok := r.For(runtime.GOOS, runtime.GOARCH)
	if !ok {
		return fmt.Errorf("it has no program for %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	i.note(x.Digest)
	if err := i.a.fetcher.Blob(ctx, x.Digest, 0, nil); err != nil {
		return err
	}
	i.want(x, []models.File{{Digest: build.Digest, SizeBytes: build.SizeBytes}})
	return nil
}

func (i *carrying) want(x bundle.Item, files []models.File) {
	i.wanted = append(i.wanted, fetchable{x, files})
	i.res.Versions = append(i.res.Versions, x.String())
	for _, f := range files {
		i.res.TotalBytes += f.SizeBytes
	}
}

// files are those of all versions that are wanted.
func (i *carrying) files() (all []models.File) {
	for _, w := range i.wanted {
		all = append(all, w.files...)
	}
	return all
}

// fetch brings the files of a version.
func (i *carrying) fetch(ctx context.Context, w fetchable) error {
	for _, f := range w.files {
		i.note(f.Digest)
		err := i.a.fetcher.File(ctx, f, func(done, _ int64) { i.tell(done) })
		if errors.Is(err, fetch.ErrNotFound) {
			err = fmt.Errorf("%s: neither the file nor a way to it from what this box has is in the bundle: export it without --base: %w", f.Path, err)
		}
		if err != nil {
			return err
		}
		i.done += f.SizeBytes
	}
	return nil
}

// tell writes down how far it is, now and then.
func (i *carrying) tell(done int64) {
	if time.Since(i.told) < tellImport {
		return
	}
	i.told, i.res.DoneBytes = time.Now(), i.done+done
	if err := ImportResults(i.a.opts.State).Save(i.res); err != nil {
		i.a.log.Debug("progress of an import not written", "err", err)
	}
}

// note remembers what was not here before.
func (i *carrying) note(d blob.Digest) {
	if !i.a.blobs.Has(d) {
		i.news = append(i.news, d)
	}
}

// keep writes down what was brought, also by an import that failed.
func (i *carrying) keep() error {
	var all []brought
	if _, err := i.a.broughtJournal().Load(&all); err != nil {
		i.a.log.Warn("what imports brought before is not known", "err", err)
	}
	for _, d := range i.news {
		all = append(all, brought{d, i.a.clock.wall().Add(broughtFor)})
	}
	return i.a.broughtJournal().Save(all)
}

// sweepBrought removes what imports brought long ago and nothing uses. What was
// activated since is the activator's to remove.
func (a *Agent) sweepBrought() error {
	var all []brought
	if found, err := a.broughtJournal().Load(&all); err != nil || !found {
		return err
	}
	known, err := a.activate.Known()
	if err != nil {
		return err
	}
	var errs []error
	now := a.clock.wall()
	all = slices.DeleteFunc(all, func(b brought) bool {
		used := slices.Contains(known, b.Digest)
		if !used && now.After(b.Until) {
			errs = append(errs, a.blobs.Delete(b.Digest))
		}
		return used || now.After(b.Until)
	})
	return errors.Join(append(errs, a.broughtJournal().Save(all))...)
}
