package results

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/agent/secrets"
)

// Config is the results section of runner.yaml.
type Config struct {
	// HTTP is the host:port to serve subscribers on; empty: none.
	HTTP string `yaml:"http"`
	// TokenFile holds the bearer token that subscribers must show; required
	// unless HTTP is a loopback address.
	TokenFile string   `yaml:"token_file"`
	Targets   []Target `yaml:"targets"`

	tokenComes bool // TokenFile is a secret of the fleet, which may come later
}

// Target is a webhook or a broker.
type Target struct {
	// Name is unique on the box; the queue's file carries it.
	Name string `yaml:"name"`
	// Kind is webhook or mqtt.
	Kind string `yaml:"kind"`
	// URL is http(s)://… of a webhook, mqtt://host:port or mqtts:// of a broker.
	URL string `yaml:"url"`
	// Inputs whose results it gets; none: all.
	Inputs []string `yaml:"inputs"`
	// SecretFile holds the key that webhooks are signed with.
	SecretFile string `yaml:"secret_file"`
	// Username and PasswordFile are for a broker.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	// CAFile holds the certificates (PEM) to trust for https and mqtts.
	CAFile string `yaml:"ca_file"`
	// Topic of a broker, with {input} for the input's name; default
	// edgeherd/results/{input}.
	Topic string `yaml:"topic"`
	// QueueBytes bounds what waits; default 4 MiB.
	QueueBytes int64 `yaml:"queue_bytes"`

	secretComes bool // SecretFile is a secret of the fleet, which may come later
}

// Options of New.
type Options struct {
	Config
	// Dir is where the queues lie; required with targets. It exists.
	Dir string
	// Secrets is the directory of what secret:NAME means in place of a file's
	// path; required for such.
	Secrets string
	// KeepResults and KeepBytes bound what subscribers can still ask for;
	// default 1000 results and 4 MiB.
	KeepResults int
	KeepBytes   int
	// Inputs are those that subscribers may name; none: any.
	Inputs []string
	// Subscribers at once; default 32.
	Subscribers int
	// RetryFirst and RetryLast bound the wait after a target failed; default 1 s
	// and 5 min.
	RetryFirst, RetryLast time.Duration
	// WallClock signs webhooks; default time.Now.
	WallClock func() time.Time
}

// Hub hands results on.
type Hub struct {
	opts    Options
	log     *slog.Logger
	run     string // names this process life in cursors
	in      chan event
	missed  atomic.Int64 // results that came faster than the hub took them
	targets []*target
	listen  net.Listener // nil: none

	mu     sync.Mutex // guards all below
	kept   []event
	bytes  int
	last   uint64 // sequence number of the newest
	fresh  chan struct{}
	guests int
}

// event is one result.
type event struct {
	seq   uint64
	input string
	body  json.RawMessage
}

// inbox is how many results may come at once: every input of a big box.
const inbox = 256

var targetName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,40}$`)

// New checks the configuration, opens the queues and the listener. Run closes
// them.
func New(opts Options, log *slog.Logger) (h *Hub, err error) {
	opts = opts.withDefaults()
	var random [4]byte
	rand.Read(random[:]) // never fails
	h = &Hub{opts: opts, log: log, run: hex.EncodeToString(random[:]), in: make(chan event, inbox), fresh: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open results: %w", err), h.close())
			h = nil
		}
	}()
	if opts.TokenFile, opts.tokenComes, err = secrets.Path(opts.Secrets, opts.TokenFile); err != nil {
		return h, fmt.Errorf("token_file: %w", err)
	}
	h.opts.TokenFile = opts.TokenFile
	for i, cfg := range opts.Targets {
		if slices.IndexFunc(opts.Targets, func(t Target) bool { return t.Name == cfg.Name }) != i {
			return h, fmt.Errorf("two targets are called %q", cfg.Name)
		}
		t, err := newTarget(cfg, opts, log)
		if err != nil {
			return h, fmt.Errorf("target %q: %w", cfg.Name, err)
		}
		h.targets = append(h.targets, t)
	}
	if opts.HTTP == "" {
		return h, nil
	}
	if err := checkListen(opts.Config); err != nil {
		return h, err
	}
	if h.listen, err = net.Listen("tcp", opts.HTTP); err != nil {
		return h, fmt.Errorf("%w; choose another address with `results: http:` in runner.yaml", err)
	}
	return h, nil
}

func (o Options) withDefaults() Options {
	if o.KeepResults == 0 {
		o.KeepResults = 1000
	}
	if o.KeepBytes == 0 {
		o.KeepBytes = 4 << 20
	}
	if o.Subscribers == 0 {
		o.Subscribers = 32
	}
	if o.RetryFirst == 0 {
		o.RetryFirst = time.Second
	}
	if o.RetryLast == 0 {
		o.RetryLast = 5 * time.Minute
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	return o
}

// checkListen refuses to show results to a network without a token.
func checkListen(c Config) error {
	host, _, err := net.SplitHostPort(c.HTTP)
	if err != nil {
		return fmt.Errorf("http is %q, want host:port: %w", c.HTTP, err)
	}
	if c.TokenFile != "" {
		_, err := secrets.Read(c.TokenFile)
		if c.tokenComes && errors.Is(err, fs.ErrNotExist) {
			return nil // nobody is let in until it is there
		}
		return err
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("http is %q, which others than this box can reach: set token_file, or use 127.0.0.1", c.HTTP)
	}
	return nil
}

// Publish takes a result over. It never blocks.
func (h *Hub) Publish(input string, body json.RawMessage) {
	select {
	case h.in <- event{input: input, body: body}:
	default:
		h.missed.Add(1)
	}
}

// Run hands results on until ctx ends; what waits for targets stays in their
// files.
func (h *Hub) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { h.spread(gctx); return nil })
	for _, t := range h.targets {
		g.Go(func() error { t.run(gctx); return nil })
	}
	if h.listen != nil {
		g.Go(func() error { return h.serve(gctx) })
	}
	return errors.Join(g.Wait(), h.close())
}

func (h *Hub) close() error {
	var errs []error
	for _, t := range h.targets {
		errs = append(errs, t.queue.Close())
	}
	if h.listen != nil {
		if err := h.listen.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// spread gives each result to memory and to the queues.
func (h *Hub) spread(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-h.in:
			h.keep(e)
			for _, t := range h.targets {
				t.take(e)
			}
		case <-tick.C:
			for _, t := range h.targets {
				t.commit()
			}
			if n := h.missed.Swap(0); n > 0 {
				h.log.Warn("results came faster than they could be handed on", "lost", n)
			}
		}
	}
}

// keep makes e the newest result in memory.
func (h *Hub) keep(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	e.seq = h.last
	h.kept = append(h.kept, e)
	h.bytes += len(e.body)
	drop := 0
	for len(h.kept)-drop > h.opts.KeepResults || h.bytes > h.opts.KeepBytes && drop < len(h.kept)-1 {
		h.bytes -= len(h.kept[drop].body)
		drop++
	}
	if drop > 0 {
		h.kept = append([]event(nil), h.kept[drop:]...)
	}
	close(h.fresh)
	h.fresh = make(chan struct{})
}

// after returns what is kept after a sequence number, how many results between
// are gone, and a channel that is closed by the next result.
func (h *Hub) after(seq uint64) (events []event, lost uint64, fresh <-chan struct{}) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.last + 1
	if len(h.kept) > 0 {
		first = h.kept[0].seq
	}
	if seq+1 < first {
		lost = first - seq - 1
	}
	i, _ := slices.BinarySearchFunc(h.kept, seq, func(e event, s uint64) int {
		if e.seq <= s {
			return -1
		}
		return 1
	})
	return slices.Clone(h.kept[i:]), lost, h.fresh
}
