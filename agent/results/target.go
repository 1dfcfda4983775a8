package results

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs"
	"github.com/edgeherd/edgeherd/agent/secrets"
)

const (
	batchSize   = 50
	sendTimeout = 30 * time.Second
)

// sender brings a batch to a receiver. An error of type refusedError says that
// this batch will never be taken.
type sender interface {
	send(ctx context.Context, id string, batch []inputs.Queued) error
	close()
}

// refusedError: the receiver will not take this batch, however often it is sent.
type refusedError struct{ why string }

func (e *refusedError) Error() string { return "receiver refuses the results: " + e.why }

// laterError: the receiver named the time after which it will listen again.
type laterError struct {
	err  error
	wait time.Duration
}

func (e *laterError) Error() string { return e.err.Error() }
func (e *laterError) Unwrap() error { return e.err }

// target is one receiver with its queue.
type target struct {
	cfg    Target
	opts   Options
	log    *slog.Logger
	queue  *inputs.Queue
	sender sender
	wake   chan struct{}

	mu            sync.Mutex // guards all below
	sent, refused int64
	err           error
}

func newTarget(cfg Target, opts Options, log *slog.Logger) (*target, error) {
	if !targetName.MatchString(cfg.Name) {
		return nil, errors.New("name: use lower case letters, digits and -, at most 41")
	}
	if cfg.QueueBytes == 0 {
		cfg.QueueBytes = 4 << 20
	}
	if cfg.QueueBytes < 64<<10 || cfg.QueueBytes > 1<<30 {
		return nil, fmt.Errorf("queue_bytes is %d, want 65536 to 1073741824", cfg.QueueBytes)
	}
	u, err := url.Parse(cfg.URL)
	if err != nil || u.Host == "" {
		return nil, errors.New("url is no address")
	}
	if u.User != nil {
		return nil, errors.New("url holds a user or password, which would show in logs: use username and password_file, or secret_file")
	}
	if cfg.SecretFile, cfg.secretComes, err = secrets.Path(opts.Secrets, cfg.SecretFile); err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	if cfg.PasswordFile, _, err = secrets.Path(opts.Secrets, cfg.PasswordFile); err != nil {
		return nil, fmt.Errorf("password_file: %w", err)
	}
	t := &target{cfg: cfg, opts: opts, log: log.With("target", cfg.Name), wake: make(chan struct{}, 1)}
	switch {
	case cfg.Kind == "webhook" && (u.Scheme == "http" || u.Scheme == "https"):
		t.sender, err = newWebhook(cfg, opts.WallClock)
	case cfg.Kind == "mqtt" && (u.Scheme == "mqtt" || u.Scheme == "mqtts"):
		t.sender, err = newBroker(cfg, u)
	default:
		return nil, fmt.Errorf("kind %q with a url of %s: use webhook with http or https, or mqtt with mqtt or mqtts", cfg.Kind, u.Scheme)
	}
	if err != nil {
		return nil, err
	}
	path := filepath.Join(opts.Dir, "deliver-"+cfg.Name+".db")
	if t.queue, err = inputs.OpenQueue(path, cfg.QueueBytes, opts.WallClock, t.log); err != nil {
		return nil, err
	}
	return t, nil
}

// take queues a result that the target wants.
func (t *target) take(e event) {
	if len(t.cfg.Inputs) > 0 && !slices.Contains(t.cfg.Inputs, e.input) {
		return
	}
	if err := t.queue.Add(e.body); err != nil {
		t.note(fmt.Errorf("queue result: %w", err))
	}
}

// commit makes what was queued durable, and then it may be sent.
func (t *target) commit() {
	if err := t.queue.Commit(); err != nil {
		t.note(fmt.Errorf("queue results: %w", err))
		return
	}
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// run empties the queue until ctx ends.
func (t *target) run(ctx context.Context) {
	defer t.sender.close()
	wait := t.opts.RetryFirst
	for ctx.Err() == nil {
		more, err := t.once(ctx)
		if ctx.Err() != nil {
			return
		}
		t.note(err)
		pause := time.Duration(0)
		var later *laterError
		switch {
		case err == nil:
			wait = t.opts.RetryFirst
		case errors.As(err, &later):
			pause = min(later.wait, t.opts.RetryLast)
		default:
			// Half is chance, so that many boxes do not come back together.
			pause = wait/2 + rand.N(wait/2+1)
			wait = min(2*wait, t.opts.RetryLast)
		}
		if err == nil && more {
			continue
		}
		wake, over := t.wake, (<-chan time.Time)(nil)
		if err != nil { // news do not make it well again
			wake, over = nil, time.After(pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-wake:
		case <-over:
		}
	}
}

// once sends one batch and reports whether there may be more.
func (t *target) once(ctx context.Context) (more bool, err error) {
	id, batch, err := t.queue.Oldest(batchSize)
	if err != nil || len(batch) == 0 {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	err = t.sender.send(ctx, id, batch)
	var refused *refusedError
	if err != nil && !errors.As(err, &refused) {
		return false, err
	}
	t.mu.Lock()
	if refused != nil {
		t.refused += int64(len(batch))
	} else {
		t.sent += int64(len(batch))
	}
	t.mu.Unlock()
	if refused != nil {
		t.log.Warn("results are left out", "lost", len(batch), "err", refused)
	}
	return true, t.queue.Done(id, batch[len(batch)-1].Cursor)
}

// note keeps how the last attempt went, and logs when that changes.
func (t *target) note(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case err != nil && t.err == nil:
		t.log.Warn("results cannot be handed on; they wait", "err", err)
	case err == nil && t.err != nil:
		t.log.Info("results are handed on again")
	}
	t.err = err
}

func (t *target) status() TargetStatus {
	waiting, dropped := t.queue.Counts()
	t.mu.Lock()
	defer t.mu.Unlock()
	s := TargetStatus{Name: t.cfg.Name, Kind: t.cfg.Kind, Waiting: waiting, Dropped: dropped, Refused: t.refused, Sent: t.sent}
	if t.err != nil {
		s.Err = t.err.Error()
	}
	return s
}
