// Package remotewrite sends chosen series of all boxes to a receiver of
// Prometheus remote write 1.0: Prometheus, VictoriaMetrics, Mimir, Thanos.
//
// Vocabulary: a request is one POST; refused means that the receiver will never
// take its samples. A metric becomes the series edgeherd_<metric> with the
// labels box (the id, which never changes) and sensor; the name and the site of
// a box travel as edgeherd_box_info{box,name,site} 1, to be joined by box.
//
// Every stored sample is sent at least once, with the time and the value that
// the database has, so sending it again changes nothing. Receivers confirm
// before they have written to disk: after a lost connection or a failed request
// what was confirmed within Options.Settle is sent again.
//
// The one rule a caller can break: give two receivers two cursors.
package remotewrite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"regexp"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/metrics"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Options of an Exporter. URL, Source and Cursors are required.
type Options struct {
	// URL of the receiver, such as https://metrics.example.com/api/v1/write.
	URL string
	// Series chooses metrics; none means export.DefaultSeries.
	Series export.Series
	// Labels are added to every series.
	Labels map[string]string
	// TokenFile holds a bearer token; or User and PasswordFile go as basic
	// authentication. Files are read at each request.
	TokenFile, User, PasswordFile string
	// CAFile holds the authority of the receiver; default: those of the system.
	CAFile string
	// MaxAge leaves out older samples, for receivers that refuse them; 0: none.
	MaxAge time.Duration

	Source  export.Source
	Cursors export.Cursors
	// Boxes lists all boxes for edgeherd_box_info; nil leaves it out.
	Boxes func(context.Context) ([]export.Box, error)
	// Leader reports whether this controller is the one to send; nil means yes.
	Leader func() bool
	// Metrics counts; nil counts nothing.
	Metrics *metrics.Export
	Version string

	// MaxSamples of one request; default 5000.
	MaxSamples int
	// Poll is how often the store is asked for more; default 1 s.
	Poll time.Duration
	// Timeout of one request; default 30 s.
	Timeout time.Duration
	// Settle is how long after its confirmation a sample may still be lost by a
	// receiver that is killed; default 30 s, negative: 0.
	Settle time.Duration
	// WallClock tells the age of samples; nil means time.Now.
	WallClock func() time.Time
}

func (o Options) withDefaults() Options {
	if o.MaxSamples <= 0 {
		o.MaxSamples = 5000
	}
	if o.Poll <= 0 {
		o.Poll = time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 30 * time.Second
	}
	if o.Settle == 0 {
		o.Settle = 30 * time.Second
	}
	o.Settle = max(o.Settle, 0)
	if o.Leader == nil {
		o.Leader = func() bool { return true }
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	return o
}

var labelName = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]*$`)

// ours are the labels that name a series.
var ours = []string{"box", "sensor", "metric", "name", "site"}

// Check reports the first option that cannot work as an *export.FieldError.
func (o *Options) Check() error {
	const want = "http:// or https:// with host and path, such as https://metrics.example.com/api/v1/write"
	u, err := export.ParseAddress("url", o.URL, want)
	if err != nil {
		return err
	}
	if u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return export.Fault("url", "%q is not an address: write %s", o.URL, want)
	}
	if err := o.Series.Check(); err != nil {
		return &export.FieldError{Key: "series", Err: err}
	}
	for name := range o.Labels {
		if !labelName.MatchString(name) || slices.Contains(ours, name) {
			return export.Fault("labels", "%q cannot be a label: letters, digits and _, and none of %v, which name the series", name, ours)
		}
	}
	switch {
	case o.TokenFile != "" && (o.PasswordFile != "" || o.User != ""):
		return export.Fault("token_file", "give either token_file, or user and password_file")
	case (o.User == "") != (o.PasswordFile == ""):
		return export.Fault("user", "user and password_file belong together")
	case u.Scheme == "http" && o.TokenFile+o.PasswordFile != "" && !export.Loopback(u.Hostname()):
		return export.Fault("url", "a secret would travel in the clear: use https")
	case u.Scheme == "http" && o.CAFile != "":
		return export.Fault("ca_file", "an authority has no use without https")
	case o.MaxAge < 0:
		return export.Fault("max_age", "an age is not negative")
	}
	return nil
}

// Exporter sends. Run it once.
type Exporter struct {
	opts   Options
	log    *slog.Logger
	sender *sender
	reader *export.Reader
	boxes  map[identity.ID]export.Box
	asked  time.Time // when boxes was read
	down   bool      // the last attempt failed
	// replays counts how often what follows low, the cursor then, was sent again.
	replays int
	low     uint64
	said    map[int]time.Time // by status
}

// New prepares an Exporter.
func New(opts Options, log *slog.Logger) (*Exporter, error) {
	if err := opts.Check(); err != nil {
		return nil, fmt.Errorf("remote_write.%w", err)
	}
	e := &Exporter{opts: opts.withDefaults(), log: log, said: map[int]time.Time{}}
	var err error
	if e.sender, err = newSender(&e.opts); err != nil {
		return nil, err
	}
	e.reader = export.NewReader(export.ReaderOptions{
		Source: opts.Source, Cursors: opts.Cursors, Settle: e.opts.Settle,
		// Another receiver has nothing yet, and begins at the beginning.
		Name: "remote_write " + opts.URL,
	})
	return e, nil
}

// Bounds of the waits after a failure.
const (
	minWait = time.Second
	maxWait = time.Minute
)

// Run sends until ctx is done. A receiver that is away is waited for.
func (e *Exporter) Run(ctx context.Context) error {
	e.opts.Metrics.On()
	limit := minWait
	for {
		wait := e.opts.Poll
		if !e.opts.Leader() {
			e.reader.Forget()
			e.opts.Metrics.At(e.reader.Position(), true) // not ours to send
		} else if more, err := e.step(ctx); err != nil && ctx.Err() == nil {
			wait = limit/2 + rand.N(limit/2+1)
			var again *againError
			if errors.As(err, &again) {
				wait = max(wait, again.after)
			}
			limit = min(2*limit, maxWait)
			e.failed(err)
		} else {
			limit = minWait
			if more {
				wait = 0
			}
		}
		select {
		case <-ctx.Done():
			flush, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			// What is not saved is sent again by the next start.
			_ = e.reader.Flush(flush)
			return nil
		case <-time.After(wait):
		}
	}
}

// failed notes an attempt that did not succeed.
func (e *Exporter) failed(err error) {
	e.opts.Metrics.Up(false)
	e.opts.Metrics.Sent("failed")
	if !e.down {
		e.down = true
		e.log.Warn("remote write waits for its receiver; nothing is lost meanwhile", "err", err)
	}
	var again *againError
	if errors.As(err, &again) && again.gone {
		e.replay()
	}
}

// maxReplays bounds how often the same stretch is sent again. A proxy that ends
// each connection without a word looks like a receiver that dies each time, and
// the cursor has to move all the same.
const maxReplays = 3

// replay goes back to the cursor: the receiver may have died with what it
// confirmed lately. It reports whether that is any further back.
func (e *Exporter) replay() bool {
	if at := e.reader.Cursor(); at != e.low {
		e.low, e.replays = at, 0
	}
	if e.replays >= maxReplays || !e.reader.Rewind() {
		return false
	}
	e.replays++
	e.opts.Metrics.Replayed()
	return true
}

// step sends one page and reports whether there was one.
func (e *Exporter) step(ctx context.Context) (more bool, err error) {
	page, last, err := e.reader.Next(ctx)
	if err != nil {
		return false, err
	}
	e.opts.Metrics.At(e.reader.Position(), len(page) == 0)
	if len(page) == 0 {
		return false, e.reader.Done(ctx, last)
	}
	if err := e.readBoxes(ctx, page); err != nil {
		return false, err
	}
	oldest := int64(-1 << 62)
	if e.opts.MaxAge > 0 {
		oldest = e.opts.WallClock().Add(-e.opts.MaxAge).UnixMilli()
	}
	p := newPage(&e.opts)
	for _, t := range page {
		p.add(t, e.boxes[t.Box], oldest)
	}
	anew := false
	for _, r := range p.requests(e.opts.MaxSamples) {
		fresh, err := e.send(ctx, r)
		anew = anew || fresh
		if err != nil {
			return false, err
		}
	}
	e.opts.Metrics.Dropped("old", p.tooOld)
	if e.down {
		e.down = false
		e.log.Info("remote write goes on")
	}
	e.opts.Metrics.Up(true)
	if anew && e.replay() {
		return true, nil
	}
	err = e.reader.Done(ctx, last)
	e.opts.Metrics.At(e.reader.Position(), false)
	return true, err
}

// send posts one request. What is refused is halved until the bad samples are
// alone, since receivers refuse whole requests; they are dropped and counted.
func (e *Exporter) send(ctx context.Context, first []series) (anew bool, err error) {
	todo, tries := [][]series{first}, 0
	for len(todo) > 0 {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		fresh, err := e.sender.post(ctx, encode(r))
		anew = anew || fresh
		var refused *refusedError
		switch {
		case err == nil:
			e.opts.Metrics.Sent("ok")
			e.opts.Metrics.Samples(count(r))
			continue
		case !errors.As(err, &refused):
			return anew, err
		}
		e.opts.Metrics.Sent("refused")
		if tries++; tries <= maxHalvings && count(r) > 1 {
			a, b := halve(r)
			todo = append(todo, b, a) // a is older, and goes first
			continue
		}
		e.opts.Metrics.Dropped("refused", count(r))
		e.sayRefused(refused, count(r))
	}
	return anew, nil
}

// maxHalvings bounds the refused requests that one request may become.
const maxHalvings = 64

func halve(r []series) (a, b []series) {
	if n := len(r) / 2; n > 0 {
		return r[:n], r[n:]
	}
	s, n := r[0].samples, len(r[0].samples)/2
	return []series{{r[0].labels, s[:n]}}, []series{{r[0].labels, s[n:]}}
}

// sayEvery is how often one kind of refusal is logged.
const sayEvery = time.Hour

func (e *Exporter) sayRefused(err *refusedError, samples int) {
	if last, said := e.said[err.status]; said && time.Since(last) < sayEvery {
		return
	}
	e.said[err.status] = time.Now()
	e.log.Warn("samples dropped: the receiver refuses them for good; edgeherd_export_dropped_samples_total counts them", "samples", samples, "err", err)
}

// boxesAge is how old the list of boxes may be, and how soon it is read again
// for a box that it lacks.
const (
	boxesAge = time.Minute
	boxesGap = 5 * time.Second
)

func (e *Exporter) readBoxes(ctx context.Context, page []export.Tailed) error {
	if e.opts.Boxes == nil {
		return nil
	}
	age := time.Since(e.asked)
	stranger := slices.ContainsFunc(page, func(t export.Tailed) bool { return e.boxes[t.Box].ID == "" })
	if e.boxes != nil && age < boxesAge && !(stranger && age >= boxesGap) {
		return nil
	}
	all, err := e.opts.Boxes(ctx)
	if err != nil {
		return fmt.Errorf("list boxes: %w", err)
	}
	e.boxes, e.asked = make(map[identity.ID]export.Box, len(all)), time.Now()
	for _, b := range all {
		e.boxes[b.ID] = b
	}
	return nil
}
