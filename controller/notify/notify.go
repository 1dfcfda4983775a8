// Package notify tells people and programs of tickets, rollouts and metadata that
// ends: by chat, mail and push services (shoutrrr), by signed webhooks, and by Alertmanager.
//
// Vocabulary: an endpoint is one place to tell. A notice (care.Notice) is what
// is told; the transaction that changes a ticket or a rollout queues it for each endpoint
// that wants it, so no crash loses one. A notice is told at least once: a crash
// between the telling and its record tells it again, with the same key.
//
// Webhooks are signed as Standard Webhooks says: webhook-id, webhook-timestamp
// and webhook-signature, the HMAC-SHA256 of "id.timestamp.body".
//
// The one rule a caller can break: never log the address of an endpoint; it
// often is the secret.
package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/site"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/outbound"
	"github.com/edgeherd/edgeherd/web/src/i18n"
)

// Endpoint is one place to tell. Exactly one of Shoutrrr, ShoutrrrFile, Webhook
// and Alertmanager is set.
type Endpoint struct {
	Name string
	// Shoutrrr is the address of a service, such as slack://… or smtp://…;
	// ShoutrrrFile names a file that holds it.
	Shoutrrr, ShoutrrrFile string
	// Webhook is an address that takes JSON by POST; SecretFile holds the secret
	// that signs it.
	Webhook, SecretFile string
	// Alertmanager is the address of an Alertmanager; TokenFile holds a bearer
	// token for it.
	Alertmanager, TokenFile string
	// About is what it is told of: "tickets", "trust" (the end of the fleet's
	// metadata), "rollouts", or single changes such as "rollouts.halted"; default
	// tickets and trust.
	About []string
	// Least is the level from which on it is told of tickets and metadata: watch, ticket or urgent;
	// default ticket. The weekly digest goes to those that want watch.
	Least fleetapi.Health
	// Sites are those that it is told of, with what is about the SKU of boxes
	// there; default all. One of a few sites is told of metadata only if About
	// names that.
	Sites []string
	// Quiet are times ("22:00-06:00 mon-fri") of the site in which only what is
	// urgent is told.
	Quiet []string
	// Language of what chats, mails and alerts say: en, de, pl or zh; default en.
	Language string
	// Guard keeps webhook and Alertmanager out of networks that nobody meant.
	Guard outbound.Guard
}

// kind is how an endpoint is told.
func (e Endpoint) kind() string {
	switch {
	case e.Webhook != "":
		return "webhook"
	case e.Alertmanager != "":
		return "alertmanager"
	}
	return "shoutrrr"
}

// Options of a Sender. Store is required.
type Options struct {
	Endpoints []Endpoint
	Store     *store.Store
	// Leader returns a context for what only the leader does; false when another
	// controller leads. nil: this controller is alone.
	Leader func(ctx context.Context) (context.Context, bool)
	// URL is the address of the pages, for links; nil: none.
	URL func() string
	// Tick is how often it is looked for notices; default 5 s.
	Tick time.Duration
	// Refresh is how often Alertmanager hears of what is open; default 4 min.
	Refresh time.Duration
	// WallClock stamps messages; nil means time.Now.
	WallClock func() time.Time
}

// Sender tells endpoints what waits for them. Safe for concurrent use.
type Sender struct {
	opts Options
	log  *slog.Logger
	to   map[string]teller
	in   map[string]*i18n.Dictionary // of each endpoint

	mu    sync.Mutex // guards the fields below
	ill   map[string]string
	lastN map[string]time.Time // last success
}

// teller tells one endpoint of notices.
type teller interface {
	tell(ctx context.Context, n care.Notice, link string, now time.Time) error
}

// New checks the endpoints. Errors name the endpoint and what to do.
func New(opts Options, log *slog.Logger) (*Sender, error) {
	if opts.Leader == nil {
		opts.Leader = func(ctx context.Context) (context.Context, bool) { return ctx, true }
	}
	if opts.URL == nil {
		opts.URL = func() string { return "" }
	}
	if opts.Tick <= 0 {
		opts.Tick = 5 * time.Second
	}
	if opts.Refresh <= 0 {
		opts.Refresh = 4 * time.Minute
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	s := &Sender{opts: opts, log: log, to: map[string]teller{}, in: map[string]*i18n.Dictionary{}, ill: map[string]string{}, lastN: map[string]time.Time{}}
	for _, e := range opts.Endpoints {
		t, err := open(e)
		if err != nil {
			return nil, fmt.Errorf("notify %q: %w", e.Name, err)
		}
		if s.to[e.Name] != nil {
			return nil, fmt.Errorf("notify %q: two endpoints have this name; rename one", e.Name)
		}
		s.to[e.Name] = t
		if s.in[e.Name], err = i18n.Open(e.Language); err != nil {
			return nil, fmt.Errorf("notify %q: %w", e.Name, err)
		}
	}
	return s, nil
}

func open(e Endpoint) (teller, error) {
	if err := e.CheckForm(); err != nil {
		return nil, err
	}
	switch e.kind() {
	case "webhook":
		return newWebhook(e)
	case "alertmanager":
		return newAlertmanager(e)
	}
	return newChat(e)
}

// CheckForm says what is wrong with an endpoint as far as can be told without
// its files.
func (e Endpoint) CheckForm() error {
	if e.Name == "" {
		return errors.New("it has no name: set `name`")
	}
	n := 0
	for _, v := range []string{e.Shoutrrr, e.ShoutrrrFile, e.Webhook, e.Alertmanager} {
		if v != "" {
			n++
		}
	}
	if n != 1 {
		return errors.New("want exactly one of `url`, `url_file`, `webhook` and `alertmanager`")
	}
	switch e.Least {
	case "", fleetapi.HealthWatch, fleetapi.HealthTicket, fleetapi.HealthUrgent:
	default:
		return fmt.Errorf("level %q: want watch, ticket or urgent", e.Least)
	}
	if _, err := i18n.Open(e.Language); err != nil {
		return err
	}
	if err := checkAbout(e.About); err != nil {
		return err
	}
	if e.Alertmanager != "" && len(e.Quiet) > 0 {
		return errors.New("an Alertmanager has quiet times of its own: take `quiet` away and set a mute time interval there")
	}
	return site.Check(fleetapi.SiteSettings{Quiet: &e.Quiet})
}

const (
	// atOnce notices of an endpoint are read in one go.
	atOnce = 100
	// tellTimeout bounds one attempt.
	tellTimeout = 15 * time.Second
	// roundTime is how long an endpoint may take in one round; the others wait
	// for the next one until it ends.
	roundTime = 10 * time.Second
	// The waits between attempts, and when a notice is given up.
	leastWait = 30 * time.Second
	mostWait  = time.Hour
	giveUp    = 7 * 24 * time.Hour
)

// Run tells until ctx is done.
func (s *Sender) Run(ctx context.Context) error {
	tick := time.NewTicker(s.opts.Tick)
	defer tick.Stop()
	var refreshed time.Time
	said := ""
	for {
		if lead, ok := s.opts.Leader(ctx); ok && len(s.to) > 0 {
			err := s.Flush(lead)
			if time.Since(refreshed) >= s.opts.Refresh {
				refreshed = time.Now()
				err = errors.Join(err, s.TellEnds(lead), s.refresh(lead))
			}
			if err != nil && ctx.Err() == nil && err.Error() != said {
				s.log.Error("notices wait", "err", err)
			}
			said = fmt.Sprint(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Flush tells what is due, once: all endpoints at the same time, a slow one for
// a while only. One that fails is left alone for half a minute.
func (s *Sender) Flush(ctx context.Context) error {
	due, err := s.opts.Store.DueNotices(ctx, atOnce)
	if err != nil {
		return err
	}
	byEndpoint := map[string][]store.Notice{}
	for _, n := range due {
		byEndpoint[n.Endpoint] = append(byEndpoint[n.Endpoint], n)
	}
	var wg sync.WaitGroup
	errs := make(chan error, len(byEndpoint)) // one each
	for name, all := range byEndpoint {
		wg.Go(func() { errs <- s.flush(ctx, name, all) })
	}
	wg.Wait()
	close(errs)
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

func (s *Sender) flush(ctx context.Context, name string, all []store.Notice) error {
	began := time.Now()
	for _, n := range all {
		now := s.opts.WallClock()
		if old(n, now) {
			n.State = store.NoticeFailed
			if n.Err == "" {
				n.Err = "it was not told within a week"
			}
			if err := s.opts.Store.KeepNotice(ctx, n); err != nil {
				return err
			}
			continue
		}
		if time.Since(began) > roundTime {
			return nil
		}
		err := s.attempt(ctx, name, n)
		if ctx.Err() != nil {
			return nil // it is told again
		}
		n.Tries++
		if err == nil {
			n.State, n.Err = store.NoticeSent, ""
			if err := s.opts.Store.KeepNotice(ctx, n); err != nil {
				return err
			}
			continue
		}
		// Each notice has its own waits: one that is refused, for what it says,
		// must not hold up the others until it is given up.
		n.Err, n.DueMs = err.Error(), now.Add(min(leastWait<<min(n.Tries-1, 10), mostWait)).UnixMilli()
		if err := s.opts.Store.KeepNotice(ctx, n); err != nil {
			return err
		}
		return s.opts.Store.PutOff(ctx, name, now.Add(leastWait).UnixMilli())
	}
	return nil
}

// old reports whether a notice is not worth telling any more.
func old(n store.Notice, now time.Time) bool {
	var c care.Notice
	return json.Unmarshal(n.Body, &c) != nil || now.Sub(c.Time) > giveUp
}

func (s *Sender) attempt(ctx context.Context, name string, n store.Notice) error {
	var c care.Notice
	if err := json.Unmarshal(n.Body, &c); err != nil {
		return fmt.Errorf("read the notice: %w", err)
	}
	return s.tell(ctx, name, c)
}

func (s *Sender) tell(ctx context.Context, name string, n care.Notice) error {
	t := s.to[name]
	if t == nil {
		return errors.New("the configuration has no endpoint of this name any more")
	}
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	err := t.tell(ctx, n, s.link(n), s.opts.WallClock())
	s.note(name, err)
	return err
}

func (s *Sender) link(n care.Notice) string {
	if base := s.opts.URL(); base != "" && n.Path != "" {
		return strings.TrimSuffix(base, "/") + n.Path
	}
	return ""
}

// note says once that an endpoint fails, and once that it is well again.
func (s *Sender) note(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ill := s.ill[name]
	switch {
	case err == nil && ill:
		delete(s.ill, name)
		s.log.Info("endpoint told again", "endpoint", name)
	case err != nil && was != err.Error():
		s.ill[name] = err.Error()
		s.log.Warn("endpoint not told; it is tried again for a week. Correct it in server.yaml and try `edgeherd notify test`", "endpoint", name, "err", err)
	}
	if err == nil {
		s.lastN[name] = s.opts.WallClock().UTC()
	}
}

// Test tells one endpoint, or all without a name, a word that means nothing.
func (s *Sender) Test(ctx context.Context, name string) ([]fleetapi.NotifyTestResult, error) {
	out := []fleetapi.NotifyTestResult{}
	for _, e := range s.opts.Endpoints {
		if name != "" && name != e.Name {
			continue
		}
		now := s.opts.WallClock().UTC()
		r := fleetapi.NotifyTestResult{Endpoint: e.Name, Kind: e.kind(), OK: true}
		if err := s.tell(ctx, e.Name, care.Trial(e.Name, now, s.in[e.Name])); err != nil {
			r.OK, r.Error = false, err.Error()
		}
		out = append(out, r)
	}
	if len(out) == 0 && name != "" {
		return nil, fmt.Errorf("endpoint %q: %w; there are %s", name, store.ErrNotFound, strings.Join(slices.Sorted(maps.Keys(s.to)), ", "))
	}
	return out, nil
}

// States tells how each endpoint does.
func (s *Sender) States(ctx context.Context) (map[string]fleetapi.NotifyState, error) {
	counts, err := s.opts.Store.NoticeCounts(ctx)
	out := map[string]fleetapi.NotifyState{}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.opts.Endpoints {
		st := fleetapi.NotifyState{Kind: e.kind(), Language: cmp.Or(e.Language, "en"), About: e.about(), Level: e.least(), Sites: slices.Concat([]string{}, e.Sites), Quiet: slices.Concat([]string{}, e.Quiet), Waiting: counts[e.Name][store.NoticeWaits], Failed: counts[e.Name][store.NoticeFailed], LastErr: s.ill[e.Name]}
		if at, ok := s.lastN[e.Name]; ok {
			st.LastOK = &at
		}
		out[e.Name] = st
	}
	return out, err
}
