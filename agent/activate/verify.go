package activate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// Who says that a file is damaged is the agent, which reads it itself: what the
// runner says only makes it look. How often it looks at a version is bounded, so
// that a disk that spoils all it is given is not worn out by downloads.
const (
	lookMin = time.Minute
	lookMax = 6 * time.Hour
	// lookForget is how long all must have been well for the next look to be at once.
	lookForget = 24 * time.Hour
	// unreadable reads in a row tell a bad place of the disk from a disk that was
	// away for a moment.
	unreadable = 2
	// askTimeout bounds the question whether the version before may serve.
	askTimeout = 5 * time.Second
)

// look is what is remembered of looking at the files of one version.
type look struct {
	next time.Time // not before
	wait time.Duration
	bad  map[blob.Digest]int // reads that failed, by file
}

// due reports whether the files of version d may be looked at now.
func (a *Activator) due(d blob.Digest) bool { return a.untilDue(d) <= 0 }

func (a *Activator) untilDue(d blob.Digest) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.looks[d]; l != nil {
		return time.Until(l.next)
	}
	return 0
}

// looking counts a look; again tells that it is not the first one.
func (a *Activator) looking(d blob.Digest) (again bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.looks[d]
	if l == nil || time.Since(l.next) > lookForget {
		l = &look{bad: map[blob.Digest]int{}}
		a.looks[d] = l
	}
	again = l.wait > 0
	l.wait = min(max(2*l.wait, lookMin), lookMax)
	l.next = time.Now().Add(l.wait)
	return again
}

// medium are the errors of a disk that cannot give back, or take, what it should.
var medium = []error{syscall.EIO, syscall.EUCLEAN, syscall.EBADMSG, syscall.ENODATA, syscall.EREMOTEIO}

// badDisk says whether a disk took no write because it fails; one that does is
// made read-only by the kernel.
func badDisk(err error) bool { return isAny(err, medium) || errors.Is(err, syscall.EROFS) }

func isAny(err error, of []error) bool {
	return slices.ContainsFunc(of, func(no error) bool { return errors.Is(err, no) })
}

// wellRead forgets reads of a file that failed: the next is the first in a row.
func (a *Activator) wellRead(version, file blob.Digest) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if l := a.looks[version]; l != nil {
		delete(l.bad, file)
	}
}

// unread counts a file that could not be read, and reports whether it is given up.
// What else than the disk keeps the agent from reading it speaks not against the file.
func (a *Activator) unread(version, file blob.Digest, err error) bool {
	if !isAny(err, medium) {
		return false
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	l := a.looks[version]
	l.bad[file]++
	return l.bad[file] >= unreadable
}

// flaw is a file that is not as it was signed.
type flaw struct {
	models.File
	what string
	here bool // something lies in its place
}

// filesOf are the files of a version and its manifest, the length of which is not known.
func filesOf(v Version) []models.File {
	return append([]models.File{{Path: "the manifest", Digest: v.Digest}}, v.Files...)
}

// lacking finds what can be seen of a version without reading it. A file of another
// length is read: it may be whole, and what the manifest says of it wrong.
func (a *Activator) lacking(ctx context.Context, v Version) (flaws []flaw) {
	for _, f := range filesOf(v) {
		size, err := a.opts.Blobs.Size(f.Digest)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			flaws = append(flaws, flaw{f, "is gone from the disk", false})
		case err == nil && f.SizeBytes > 0 && size != f.SizeBytes:
			if got, _, err := a.sum(ctx, f.Digest); err == nil && got == f.Digest {
				continue
			}
			flaws = append(flaws, flaw{f, fmt.Sprintf("has %d bytes on the disk in place of %d", size, f.SizeBytes), true})
		}
	}
	return flaws
}

// examine reads all files of a version.
func (a *Activator) examine(ctx context.Context, v Version) (flaws []flaw, err error) {
	for _, f := range filesOf(v) {
		got, n, err := a.sum(ctx, f.Digest)
		if err == nil {
			a.wellRead(v.Digest, f.Digest)
		}
		switch {
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case errors.Is(err, fs.ErrNotExist):
			flaws = append(flaws, flaw{f, "is gone from the disk", false})
		case err != nil && !a.unread(v.Digest, f.Digest, err):
			return nil, fmt.Errorf("%s of %s cannot be read: %w", f.Path, v.Ref, err)
		case err != nil:
			flaws = append(flaws, flaw{f, "cannot be read: " + err.Error(), true})
		case got == f.Digest && f.SizeBytes > 0 && n != f.SizeBytes: // another version may serve with it
			return nil, fmt.Errorf("%s of %s is whole and has %d bytes, but its manifest says %d", f.Path, v.Ref, n, f.SizeBytes)
		case got != f.Digest && f.SizeBytes > 0 && n != f.SizeBytes:
			flaws = append(flaws, flaw{f, fmt.Sprintf("has %d bytes on the disk in place of %d", n, f.SizeBytes), true})
		case got != f.Digest:
			flaws = append(flaws, flaw{f, "is damaged on the disk", true})
		}
	}
	return flaws, nil
}

// untilDone lets reading a large file be stopped.
type untilDone struct {
	done <-chan struct{}
	r    io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	select {
	case <-u.done:
		return 0, context.Canceled
	default:
		return u.r.Read(p)
	}
}

func (a *Activator) sum(ctx context.Context, d blob.Digest) (blob.Digest, int64, error) {
	f, err := a.opts.Blobs.Get(d)
	if err != nil {
		return blob.Digest{}, 0, err
	}
	defer f.Close()
	return blob.SumReader(untilDone{ctx.Done(), f})
}

// setAside takes what is damaged out of the store. A download of a file in frames
// goes on with those that are right, the first time: what is spoiled again may lie
// in a bad place.
func (a *Activator) setAside(flaws []flaw, again bool) error {
	var errs []error
	for _, f := range flaws {
		if !f.here {
			continue
		}
		remove := a.opts.Blobs.Delete
		if f.Framed() && !again {
			remove = a.opts.Blobs.Restage
		}
		errs = append(errs, remove(f.Digest))
	}
	return errors.Join(errs...)
}

// why says what is wrong with a version.
func why(flaws []flaw) string {
	var words []string
	for _, f := range flaws {
		words = append(words, f.Path+" "+f.what)
	}
	return "of its files, " + strings.Join(words, "; ")
}

// verify looks at the files of a version that the runner found damaged.
func (a *Activator) verify(ctx context.Context, s State, v Version) Event {
	if wait := a.untilDue(v.Digest); wait > 0 && !sleep(ctx, wait) {
		return failed(context.Cause(ctx))
	}
	again := a.looking(v.Digest)
	flaws, err := a.examine(ctx, v)
	if err != nil {
		return failed(err)
	}
	if len(flaws) == 0 {
		return Event{Kind: EventFailed, Err: "the runner finds files of " + v.String() + " damaged, the agent finds them as they should be"}
	}
	a.log.Warn("files of a model are damaged on the disk", "model", v.Name, "version", v.Ref.Version, "digest", v.Digest, "err", why(flaws))
	if err := a.setAside(flaws, again); err != nil {
		return failed(err)
	}
	return a.lostEvent(ctx, s, v, flaws)
}

// mendBeside fetches again what is damaged of a version while it serves: the runner
// found it when it went to another variant, or will need it when it starts anew.
func (a *Activator) mendBeside(ctx context.Context, v Version) Event {
	again := a.looking(v.Digest)
	flaws, err := a.examine(ctx, v)
	if err == nil && len(flaws) > 0 {
		a.log.Warn("files of a model are damaged on the disk, they are fetched again while it serves", "model", v.Name, "version", v.Ref.Version, "digest", v.Digest, "err", why(flaws))
		if err = a.allow(ctx, v.Ref); !errors.Is(err, trust.ErrUntrusted) { // not known any more is no matter
			err = a.setAside(flaws, again)
		}
	}
	if err != nil {
		return failed(err)
	}
	for _, f := range flaws {
		if err := a.fetchUntil(ctx, f.File); err != nil {
			return failed(err)
		}
	}
	// The runner stands where it was told of the damage, and looks again.
	return answer(ctx, a.opts.Runner.Reload)
}

// fetchUntil fetches a file however long it takes.
func (a *Activator) fetchUntil(ctx context.Context, f models.File) error {
	for tries := 1; ; tries++ {
		err := a.opts.Fetch(ctx, f, func(_, _ int64) {})
		if err == nil || ctx.Err() != nil {
			return err
		}
		a.log.Debug("a damaged file has to wait", "digest", f.Digest, "err", err)
		wait := retryDelay(tries)
		if e := failed(err); e.Blame != BlameNone {
			wait = roomDelay(tries)
		}
		if !sleep(ctx, wait/2+rand.N(wait/2+1)) {
			return context.Cause(ctx)
		}
	}
}

// spare reports whether a version can start without the files: each is of a variant
// that is not its best.
func (a *Activator) spare(v Version, flaws []flaw) bool {
	m, err := a.Manifest(v.Ref)
	return err == nil && !slices.ContainsFunc(flaws, func(f flaw) bool {
		return !slices.ContainsFunc(m.Ladder()[1:], func(o models.Variant) bool { return o.Path == f.Path })
	})
}

// lostEvent tells the rules of a version that is not whole.
func (a *Activator) lostEvent(ctx context.Context, s State, v Version, flaws []flaw) Event {
	e := Event{Kind: EventLost, Digest: v.Digest, Err: why(flaws)}
	if v.Digest == s.Current.Digest && !s.Previous.none() {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		// It was withdrawn, perhaps, since it served.
		e.Fallback = !errors.Is(a.allow(ctx, s.Previous.Ref), trust.ErrUntrusted)
	}
	return e
}

// recheck takes versions with files that are gone or cut short out of what a
// start goes on with. The one that serves comes last: the one before it would
// take its place.
func (a *Activator) recheck(ctx context.Context, name string) error {
	s := a.book.get(name)
	for _, v := range []Version{s.Previous, s.Candidate, s.Current} {
		if v.none() || v.Digest == s.Candidate.Digest && (s.Step == StepIdle || s.Step == StepFetching) {
			continue
		}
		flaws := a.lacking(ctx, v)
		if len(flaws) == 0 {
			continue
		}
		if v.Digest == s.Current.Digest && a.spare(v, flaws) {
			a.spared[v.Digest] = true // it is mended when it serves
			continue
		}
		a.log.Warn("files of a model are gone from the disk", "model", name, "digest", v.Digest, "err", why(flaws))
		if err := a.setAside(flaws, false); err != nil {
			a.log.Warn("a damaged file stays", "model", name, "err", err)
		}
		if err := a.apply(ctx, name, a.lostEvent(ctx, a.book.get(name), v, flaws)); err != nil {
			return err
		}
	}
	return nil
}
