// Package agent joins the parts of the control plane of a box and runs them:
// it senses, buffers, syncs, fetches, activates and updates. Serving is the
// runner's, another process.
//
//	STATE/identity/     who the box is (packages identity and enrol)
//	STATE/fence.json    how often an agent has started on this disk
//	STATE/retired.json  the box is about to wipe itself
//	STATE/spool.db      what waits for the controller (package spool)
//	STATE/desired.json  the newest signed desired state that was accepted
//	STATE/config.json, STATE/models/settings.json   (package config)
//	STATE/activate.json, STATE/models/active.json, STATE/blobs/   (package activate)
//	STATE/update.json   (package update)
//	STATE/witness.json  heads of the controller's audit log (package witness)
//	STATE/downloads.json bytes of this month, if they are bounded (package fetch)
//	STATE/trust.db      what the fleet lets boxes run (package trust)
//	STATE/health.json   hours and findings of the box's heat (package condition)
//	STATE/blackbox.ring the last hour, for the case of a reset (package blackbox)
//	STATE/fan.json      a fan that is raised (package fan)
//	STATE/way.json      the way to the controller that worked (package dial)
//	STATE/accept/       reports of acceptance tests (package accept)
//	STATE/import/       bundles from sticks: order, result, what they brought
//	STATE/status.json   how the connection stands, for `edgeherd-agent status`
//
// The one rule a caller can break: one process per STATE; the spool's file
// lock refuses a second.
package agent

import (
	"context"
	"crypto/ecdh"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/agent/activate"
	"github.com/edgeherd/edgeherd/agent/condition"
	"github.com/edgeherd/edgeherd/agent/config"
	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/agent/enrol"
	"github.com/edgeherd/edgeherd/agent/fan"
	"github.com/edgeherd/edgeherd/agent/fetch"
	"github.com/edgeherd/edgeherd/agent/govern"
	"github.com/edgeherd/edgeherd/agent/link"
	"github.com/edgeherd/edgeherd/agent/peer"
	"github.com/edgeherd/edgeherd/agent/secrets"
	"github.com/edgeherd/edgeherd/agent/sense"
	"github.com/edgeherd/edgeherd/agent/spool"
	guard "github.com/edgeherd/edgeherd/agent/trust"
	"github.com/edgeherd/edgeherd/agent/update"
	"github.com/edgeherd/edgeherd/agent/witness"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/slot"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Options of an Agent. State is required.
type Options struct {
	State string
	// Root is where sysfs and procfs are; default "/".
	Root string
	// Runner is how to reach the runner. Required.
	Runner *runnerapi.Client
	// Version is that of this program.
	Version string
	// SensePeriod is how often sensors are read; default 10 s.
	SensePeriod time.Duration
	// Sensors says what sensors stand for where sense chooses wrongly; see
	// sense.Options.Roles. Default: sense chooses.
	Sensors map[string]string
	// Outside names sensors that are not below Root; see sense.Outside.
	Outside sense.Outside
	// SealPeriod is how often samples are committed; default 1 min. A commit
	// writes about 32 KB, and flash wears.
	SealPeriod time.Duration
	// ResultPeriod is how often results are taken over; default 10 s.
	ResultPeriod time.Duration
	// Trial is how long a new model, or settings of the fleet, are watched before
	// they are kept; default 30 s.
	Trial time.Duration
	// HeatWindow is how long the power of the box is read for each variant of a new
	// model, and twice without any; default 0: the heat of variants is not measured.
	HeatWindow time.Duration
	// Probation is how long a new agent must be well; default 3 min.
	Probation time.Duration
	// FirstDelay spreads the first connection after a start over this time,
	// so that a site does not come back as one; default 0.
	FirstDelay time.Duration
	// SpoolBytes bounds the spool; default 64 MiB.
	SpoolBytes int64
	// MinFreeBytes of the disk are left free by downloads; default 1 GiB.
	MinFreeBytes int64
	// PeerListen is where the box gives frames of models to others of its site, such
	// as ":7443"; default: nowhere, and it fetches for itself. PeerAddress is what
	// they dial; default: the address by which the box reaches the controller.
	PeerListen, PeerAddress string
	// Listen opens the port for peers; nil means the system's network.
	Listen func(ctx context.Context, address string) (net.Listener, error)
	// DownloadRate bounds downloads in bytes a second, MonthBytes in bytes a
	// calendar month; default no bounds.
	DownloadRate, MonthBytes int64
	// BucketAllow are networks beyond the public internet where the controller's bucket
	// may be; default none.
	BucketAllow []netip.Prefix
	// BucketHosts are hosts of that bucket which may be asked through Proxy; default
	// none, and behind a proxy the controller gives all.
	BucketHosts []string
	// SettingsAllow are hosts beyond the site's own network to which settings of the
	// fleet may make the box send; default none.
	SettingsAllow boxconfig.Allow
	// CheckSpool looks at a spool that was not closed cleanly, before it is
	// opened: in a child process, since damage can end the one that looks. Nil
	// checks in this process.
	CheckSpool func(path string) error
	// Secrets is where opened secrets lie, for all programs of the box, such as
	// secrets.DefaultDir; default nowhere: those that come are refused.
	Secrets string
	// Server, Proxy and ProxyAuth say how to reach the controller; see
	// dial.Options. Empty: the addresses of enrolment, no proxy.
	Server, Proxy, ProxyAuth string
	// Dial opens a TCP connection; nil means the system's network.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// WallClock stamps records and checks certificates; nil means the kernel's.
	// Only the kernel tells whether its clock is synchronised: the stamps of
	// another one count as not.
	WallClock func() time.Time
	// Uptime is the time since boot; nil asks the kernel. Tests on fake time
	// must pass one that keeps step with it.
	Uptime func() time.Duration
	// Fans are policies that may raise a fan above the firmware's curve; the one
	// for this kind of box is followed. Default none. FanGuard starts their
	// guard, see fan.Options; without it none is followed.
	Fans     []fan.Policy
	FanGuard func(order []byte) (io.WriteCloser, error)
	// NoBlackbox keeps no ring of the last hour, and so no cause of a reset is
	// told. BlackboxPeriod is how often it is written in quiet times; default 1
	// min. See agent/blackbox for the wear.
	NoBlackbox     bool
	BlackboxPeriod time.Duration
	// Accept runs an acceptance test that the controller asked for, and returns
	// after its report was kept; level is told which one begins. Nil: this box runs
	// none for the controller.
	Accept func(ctx context.Context, order wire.DesiredAccept, level func(string)) error
	// NoSync leaves out fsync in the spool and the ring: for tests with thousands of commits.
	NoSync bool
	// OnJournal, if set, runs after each write of the activation journal.
	// Crash tests return an error from it.
	OnJournal func() error
}

func (o Options) withDefaults() Options {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	if o.Root == "" {
		o.Root = "/"
	}
	def(&o.SensePeriod, 10*time.Second)
	def(&o.SealPeriod, time.Minute)
	def(&o.ResultPeriod, 10*time.Second)
	def(&o.Trial, 30*time.Second)
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Uptime == nil {
		o.Uptime = sinceBoot
	}
	return o
}

// stageAge is how long a download that nobody goes on with keeps its room.
const stageAge = 7 * 24 * time.Hour

// Agent is an opened agent. Run it once.
type Agent struct {
	opts     Options
	log      *slog.Logger
	id       *identity.Identity
	clock    clock
	starts   uint64 // of the agent on this disk; 0: not kept
	sampler  *sense.Sampler
	spool    *spool.Spool
	dialer   *dial.Dialer
	renewer  *enrol.Renewer
	link     *link.Link
	blobs    *blob.Store
	fetcher  *fetch.Fetcher
	peer     *peer.Peer // nil: it does not share
	guard    *guard.Guard
	activate *activate.Activator
	update   *update.Updater
	desired  durable.Journal
	secrets  *secrets.Keeper // of the link, after Open
	witness  *witness.Witness
	settings *config.Keeper
	doubted  time.Time // of the link: the last alarm about the audit log

	condition *condition.Condition
	last      lastHour // of the sense loop
	fan       *fan.Fan // of the sense loop; nil: the firmware's alone
	setup     setup    // of the sense loop
	telemetry *telemetry
	disk      disk
	duty      govern.State // of the sense loop
	eased     atomic.Bool  // the duty is less than full: no work that nobody asked for
	serving   serving      // of resultLoop alone
	ladder    ladder       // of the sense loop
	running   running
	runner    runnerInfo
	slot      slot.ID
	order     order
}

// Open opens the files of an agent. It starts nothing.
func Open(opts Options, log *slog.Logger) (_ *Agent, err error) {
	// Not a named result: a return of nil would hide what is to be closed.
	a := &Agent{log: log, slot: slot.ID(os.Getenv(slot.EnvSlot)), serving: serving{}}
	if a.id, err = enrol.Load(IdentityDir(opts.State)); err != nil {
		return nil, err
	}
	a.log = log.With("device", a.id.ID)
	if opts, err = openSettings(opts, a); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	a.opts = opts
	a.sampler = sense.New(sense.Options{Root: opts.Root, StateDir: opts.State, Roles: opts.Sensors, Outside: opts.Outside}, a.log)
	a.clock = newClock(opts, a.sampler.Board().BootID)
	a.clock.notBefore(a.id.Certificate.Leaf.NotBefore)
	a.disk.log, a.disk.changed = a.log, func() {}
	a.order.fresh = make(chan struct{}, 1)
	a.spool, err = spool.Open(spool.Options{
		Path: filepath.Join(opts.State, "spool.db"), MaxBytes: opts.SpoolBytes, Boot: a.clock.boot,
		SinceBoot: opts.Uptime, Check: opts.CheckSpool, NoSync: opts.NoSync,
		WallClock: func() time.Time { _, wall := a.clock.now(); return time.UnixMilli(wall) },
	}, a.log)
	if err != nil {
		return nil, err
	}
	a.clock.notBefore(a.spool.Known())
	a.telemetry = newTelemetry(a.clock)
	defer func() {
		if err != nil {
			a.spool.Close()
		}
	}()
	if a.blobs, err = blob.Open(filepath.Join(opts.State, "blobs")); err != nil {
		return nil, err
	}
	a.secrets = secrets.New(secrets.Options{Dir: opts.Secrets, Box: a.id.ID, Keys: func() ([]ecdh.KeyExchanger, error) {
		return enrol.SealKeys(IdentityDir(opts.State))
	}})
	if a.witness, err = witness.Open(filepath.Join(opts.State, "witness.json")); err != nil {
		a.log.Error("what this box has seen of the audit log", "err", err)
	}
	a.openCondition()
	a.openLastHour()
	a.openFan()
	if err := a.openParts(); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *Agent) openParts() (err error) {
	a.dialer, err = dial.New(dial.Options{
		Identity: a.id, Server: a.opts.Server, Proxy: a.opts.Proxy, ProxyAuth: a.opts.ProxyAuth,
		Net: a.opts.Dial, Memory: filepath.Join(a.opts.State, "way.json"), WallClock: a.clock.wall,
	}, a.log)
	if err != nil {
		return err
	}
	a.openRenewer()
	files := &http.Client{Transport: carrier{&http.Transport{
		DialTLSContext: a.dialer.Files, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute,
	}}}
	a.fetcher, err = fetch.New(fetch.Options{
		Peers: a.openPeer(), Blobs: a.blobs, BaseURL: "https://" + a.id.HTTPS, MinFreeBytes: a.opts.MinFreeBytes, WallClock: a.clock.wall,
		RateBytesPerSec: a.opts.DownloadRate, MonthBytes: a.opts.MonthBytes, Ledger: filepath.Join(a.opts.State, "downloads.json"), Client: files,
		Direct: a.direct(), Shunned: a.reportShunned,
	}, a.log)
	if err != nil {
		return err
	}
	if a.peer != nil {
		a.peer.Serve(a.fetcher.Held)
	}
	if err := a.openGuard(files); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(a.opts.State, "models"), 0o755); err != nil {
		return fmt.Errorf("make model directory: %w", err)
	}
	a.activate, err = activate.New(activate.Options{
		Journal:    durable.Journal{Path: filepath.Join(a.opts.State, "activate.json"), Version: activate.JournalVersion, OnSave: a.opts.OnJournal},
		ActivePath: filepath.Join(a.opts.State, "models", "active.json"),
		Blobs:      a.blobs, Keyring: a.guard.Keyring, Allow: a.allowModel, Fetch: a.fetcher.File, Room: a.fetcher.Room, Runner: a.opts.Runner,
		Heat: a.measureHeat, Report: a.reportModel, Trial: a.opts.Trial,
	}, a.log)
	if err != nil {
		return err
	}
	a.update, err = update.New(update.Options{
		Slot: a.slot, LauncherDir: os.Getenv(slot.EnvDir), StateDir: a.opts.State, Version: a.opts.Version,
		Keys: a.guard.Keyring, Allow: a.allowRelease, Fetch: a.fetchRelease, Healthy: a.healthy, Report: a.reportUpdate,
		ProbationMin: a.opts.Probation, WallClock: a.clock.wall,
	}, a.log)
	if err != nil {
		return err
	}
	a.desired = durable.Journal{Path: filepath.Join(a.opts.State, "desired.json"), Version: 1}
	a.link = link.New(link.Options{
		ID: a.id.ID, Dial: a.dialer.Broker, Spool: a.spool, Hello: a.hello,
		OnWelcome: func(w wire.Welcome) {
			a.dialer.Worked()
			a.update.Connected()
			a.guard.Connected()
			a.condition.SetClock(a.clock.uptime(), time.UnixMilli(w.WallMs))
			a.see(w.Head)
			a.paceDownloads(w)
		},
		OnDesired: a.accept, OnLive: a.telemetry.liveFor, OnCare: a.condition.SetCare,
		FirstDelay: a.opts.FirstDelay,
	}, a.log)
	a.disk.changed = a.link.SayHello // the controller shall know
	a.resumeDesired()
	return nil
}

// Run works until ctx is done or a part fails. It returns update.ErrRestart
// when the launcher shall start another agent, or this one with other settings.
//
// The spool is closed last, since every part may still append to it. When its
// disk has failed, Run returns: only a new process may use the file again.
func (a *Agent) Run(ctx context.Context) error {
	defer func() {
		if err := a.spool.Close(); err != nil {
			a.log.Warn("spool not closed cleanly", "err", err)
		}
	}()
	defer a.fetcher.Close()
	defer a.guard.Close()
	defer a.opts.Runner.Close()
	a.must(a.started()) // a full disk is no reason to stop looking after the box
	if err := a.blobs.SweepStage(time.Now().Add(-stageAge)); err != nil {
		a.log.Warn("old downloads stay", "err", err)
	}
	g, ctx := errgroup.WithContext(ctx)
	if a.peer != nil {
		g.Go(func() error { return a.peer.Run(ctx) })
	}
	for name, run := range map[string]func(context.Context) error{
		"link": a.link.Run, "renew": a.renewer.Run, "trust": a.guard.Run, "activate": a.activate.Run, "update": a.update.Run,
		"sense": a.senseLoop, "results": a.resultLoop, "status": a.statusLoop, "spool": a.spool.Run,
		"accept": a.acceptLoop, "import": a.importLoop, "settings": a.settingsLoop,
	} {
		g.Go(func() error {
			err := run(ctx)
			if err == nil && ctx.Err() == nil {
				return fmt.Errorf("%s stopped by itself", name)
			}
			if err != nil && !errors.Is(err, update.ErrRestart) && !errors.Is(err, config.ErrRestart) && !errors.Is(err, enrol.ErrRetired) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return err
		})
	}
	err := g.Wait()
	if errors.Is(err, enrol.ErrRetired) {
		return a.retire()
	}
	if errors.Is(err, config.ErrRestart) {
		return errors.Join(a.update.CleanStop(), update.ErrRestart)
	}
	if err == nil {
		// This end was asked for: it must not count against an agent on trial.
		return a.update.CleanStop()
	}
	return err
}

// direct makes connections to a bucket. A box behind a proxy takes all through the
// controller, unless somebody says which hosts the proxy is there for.
func (a *Agent) direct() *http.Client {
	switch {
	case a.opts.Proxy != "" && len(a.opts.BucketHosts) > 0:
		return fetch.Through(a.opts.BucketHosts, a.dialer.Through)
	case a.opts.Proxy != "":
		return nil
	}
	if a.opts.Dial != nil {
		return &http.Client{Transport: &http.Transport{DialContext: a.opts.Dial, ResponseHeaderTimeout: time.Minute, IdleConnTimeout: time.Minute}}
	}
	return fetch.Straight(a.opts.BucketAllow)
}

// openRenewer prepares what keeps the certificate good.
func (a *Agent) openRenewer() {
	var err error
	a.starts, err = enrol.CountStart(filepath.Join(a.opts.State, "fence.json"))
	if err != nil {
		a.log.Warn("start not counted: a copy of this disk would be noticed later", "err", err)
	}
	a.renewer = enrol.NewRenewer(enrol.RenewOptions{
		Dir: IdentityDir(a.opts.State), Root: a.opts.Root, Version: a.opts.Version, Fence: a.starts, Box: a.id,
		Dial: a.dialer.Renewals, Renewed: a.renewed, Connected: func() bool { return a.link.Status().Connected }, WallClock: a.clock.wall,
	}, a.log)
}

// fetchPath brings a blob of a release to the box and returns where it lies.
func (a *Agent) fetchPath(ctx context.Context, d blob.Digest) (string, error) {
	if err := a.fetcher.Blob(ctx, d, 0, nil); err != nil {
		return "", err
	}
	return a.blobs.Path(d), nil
}

// healthy tells the updater whether this agent can do its work: the spool took
// the last write. There is one at the start and several a minute.
func (a *Agent) healthy() error { return a.disk.last() }
