// Package controller joins the parts of the central side and runs them: the
// broker that boxes talk to, ingest and store behind it, the API with its
// pages, and the conductor that moves rollouts.
//
//	DIR/store.db           what the controller knows (package store)
//	DIR/blobs/             models and releases by digest (package blob)
//	DIR/ca/                certificate authority of the boxes (package identity)
//	DIR/keys/signing.key   the controller's own key, mode 0600; before
//	                       production it signs everything
//	DIR/lock               held while a controller runs on DIR
//
// The one rule a caller can break: one process per DIR; Open refuses a second.
package controller

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/api"
	"github.com/edgeherd/edgeherd/controller/balancer"
	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/controller/cluster"
	"github.com/edgeherd/edgeherd/controller/config"
	"github.com/edgeherd/edgeherd/controller/deliver"
	"github.com/edgeherd/edgeherd/controller/enrol"
	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/notify"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/controller/s3"
	"github.com/edgeherd/edgeherd/controller/secrets"
	"github.com/edgeherd/edgeherd/controller/store"
	keeper "github.com/edgeherd/edgeherd/controller/trust"
	"github.com/edgeherd/edgeherd/controller/upkeep"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/keyfile"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Options of a Controller. Dir is required.
type Options struct {
	Dir string
	// HTTP, Device and MQTT are the addresses to listen on: pages and API,
	// blobs for boxes, broker. Defaults: 127.0.0.1 with ports 8443, 8444, 8883.
	HTTP, Device, MQTT string
	// Database is the address of a PostgreSQL database that several controllers
	// may share, PasswordFile holds its password. Default: SQLite in Dir.
	Database, PasswordFile string
	// Blobs is the folder of models and releases; default DIR/blobs. The
	// controllers of one database share it.
	Blobs string
	// S3 is a bucket behind the folder, which is a cache then; nil: none. CacheBytes
	// bounds the folder; default 50 GB. PackBytes bounds the packs; default 100 GB.
	S3         *s3.Options
	CacheBytes int64
	PackBytes  int64
	// Uplink bounds what boxes download at once.
	Uplink deliver.GateOptions
	// Retention says how long telemetry is kept; zero means for ever.
	Retention Retention
	// Broker is a broker of others to use; nothing listens on MQTT then.
	Broker ExternalBroker
	// Hosts are the names and addresses in the server certificate; the first
	// is what boxes are told to expect. Default: those of Advertise, else
	// 127.0.0.1.
	Hosts []string
	// Advertise is where boxes dial when that is not where we listen. Its names
	// are in the certificate, too.
	Advertise Advertise
	// Balancers are those that say who connects, by the PROXY protocol. From
	// their addresses the ports of boxes take nothing else. Default: none.
	Balancers []netip.Prefix
	// HTTPPlain serves pages and API without TLS; allowed on loopback only.
	HTTPPlain bool
	// Exports is what programs of others are told; default nothing.
	Exports Exports
	// OIDC vouches for people besides local users; nil: nobody does.
	OIDC *people.Provider
	// Notify is where notices of tickets go; default nowhere.
	Notify []notify.Endpoint
	// DeviceLife is how long certificates of boxes last, which are renewed at half of
	// it; default 30 days.
	DeviceLife time.Duration
	// Keys keeps the private keys in Dir sealed; nil: in plain text.
	Keys    *keyfile.Lock
	Version string
	// Tick is how often rollouts are looked at without a cause; default 1 s.
	Tick time.Duration
	// Listen opens listeners; nil means net.Listen. Tests pass a network of
	// their own.
	Listen func(network, address string) (net.Listener, error)
	// WallClock stamps rows and certificates; nil means time.Now.
	WallClock func() time.Time
}

func (o Options) withDefaults() Options {
	set := func(s *string, v string) {
		if *s == "" {
			*s = v
		}
	}
	set(&o.HTTP, "127.0.0.1:8443")
	set(&o.Device, "127.0.0.1:8444")
	set(&o.MQTT, "127.0.0.1:8883")
	set(&o.Blobs, filepath.Join(o.Dir, "blobs"))
	if len(o.Hosts) == 0 {
		o.Hosts = o.Advertise.Hosts(nil)
	}
	if len(o.Hosts) == 0 {
		o.Hosts = []string{"127.0.0.1"}
	}
	if o.Tick <= 0 {
		o.Tick = time.Second
	}
	if o.Listen == nil {
		o.Listen = net.Listen
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	return o
}

// Controller is an open controller. Run it once.
type Controller struct {
	opts   Options
	log    *slog.Logger
	lock   *durable.Lock
	store  *store.Store
	blobs  *blob.Store
	bucket *s3.Bucket // nil: none
	trust  *keeper.Keeper
	ca     *identity.CA
	key    trust.PrivateKey
	people *people.People
	hub    *api.Hub
	faults *fault.Book
	api    *api.API
	ingest *ingest.Ingest
	broker *broker.Broker
	remote *broker.External // nil: boxes come to broker
	nodeID string
	node   *cluster.Node // nil: this controller is alone
	missed chan struct{} // buffer 1: notices of other controllers may have been missed
	http   net.Listener
	device net.Listener
	mqtt   net.Listener
	behind []*balancer.Listener // which of the three; none without Options.Balancers
	acted  chan struct{}        // buffer 1: a person wants rollouts to be looked at
	// offerTime bounds how long one step tells boxes; the next goes on.
	offerTime time.Duration
	outed     chan struct{} // buffer 1: a box may have been revoked

	changes  changes              // boxes heard from, for the conductor
	underWay map[string]*underWay // of the conductor alone: rollouts by id
	late     late                 // of the conductor alone: boxes that may lack settings
	ledger   config.Ledger        // of documents that such boxes get

	exports    exports
	members    *enrol.Desk
	swept      time.Time // of sweep alone
	downloads  downloads
	packs      *deliver.Packer
	desk       *upkeep.Desk
	secrets    *secrets.Keeper
	notify     *notify.Sender
	pacer      *pacer
	websockets sync.WaitGroup // MQTT sessions that came in by the pages' port
}

// Open opens state and listeners. Nothing is served before Run.
func Open(ctx context.Context, opts Options, log *slog.Logger) (_ *Controller, err error) {
	// Not a named result: a return of nil would hide what is to be closed.
	c := &Controller{opts: opts.withDefaults(), log: log, hub: api.NewHub(), underWay: map[string]*underWay{}, offerTime: 300 * time.Millisecond, acted: make(chan struct{}, 1), outed: make(chan struct{}, 1), missed: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	if err := c.openState(ctx); err != nil {
		return nil, err
	}
	c.people = people.New(people.Options{Store: c.store, OIDC: c.opts.OIDC, WallClock: c.opts.WallClock}, log)
	if err := c.listen(ctx); err != nil {
		return nil, err
	}
	c.faults = fault.New(fault.Options{Keep: c.store.KeepFaults, WallClock: c.opts.WallClock}, log)
	if err := c.openSecrets(); err != nil {
		return nil, err
	}
	if err := c.openMembers(); err != nil {
		return nil, err
	}
	if err := c.openBroker(); err != nil {
		return nil, err
	}
	c.pacer = newPacer(c.store, c.opts.WallClock)
	if err := c.openExports(); err != nil {
		return nil, err
	}
	if err := c.openUpkeep(); err != nil {
		return nil, err
	}
	c.ingest = ingest.New(ingest.Options{
		Welcomed: c.tellHeat,
		Store:    c.store, Publish: c.tell, Changed: c.boxChanged, Live: c.boxLive,
		LiveFor: c.liveFor, Pace: c.pace, Faults: c.faults, Ask: c.question, Forked: c.memberChanged,
		Address: func(id identity.ID, sid wire.SID) string { return c.broker.AddressOf(id, sid) }, Observer: c.exports.metrics.Ingest, WallClock: c.opts.WallClock,
	}, log)
	c.packs = deliver.New(deliver.Options{Store: c.store, Blobs: c.blobs, Leads: c.leads, PackBytes: c.opts.PackBytes, CacheBytes: c.opts.CacheBytes}, log)
	c.api, err = api.New(api.Options{
		Packs: c.packs, Gate: deliver.NewGate(c.opts.Uplink), URL: c.blobURL(),
		Store: c.store, People: c.people, Blobs: c.blobs, Keyring: c.Keyring(), Trust: c.trust, Hub: c.hub, Wake: c.act, SitesChanged: c.pacer.changed,
		Version: c.opts.Version, WallClock: c.opts.WallClock, SecureCookies: !c.opts.HTTPPlain,
		Metrics: c.exports.metrics.Handler(), Faults: c.faults, Trouble: c.ingest.Trouble,
		SamplesFor: c.opts.Retention.Samples, Desk: c.desk, Notify: c.notify, Secrets: c.secrets,
		Members:     api.Members{Desk: c.members, At: c.TokenBase, Server: c.signer, Changed: c.memberChanged},
		Settle:      c.settle,
		Acceptances: api.Acceptances{Judge: c.ca.Renewing, Order: c.orderAcceptance, NewID: acceptance.NewID},
	}, log)
	return c, err
}

// sink breaks the circle between broker and ingest: each needs the other.
type sink struct{ c *Controller }

func (s sink) Deliver(ctx context.Context, id identity.ID, topic wire.Topic, payload []byte) error {
	began := time.Now()
	err := s.c.ingest.Deliver(ctx, id, topic, payload)
	s.c.count(topic, err, time.Since(began))
	if errors.Is(err, ingest.ErrMalformed) {
		return fmt.Errorf("%w: %w", broker.ErrMalformed, err)
	}
	return err
}

func (c *Controller) openState(ctx context.Context) error {
	if err := os.MkdirAll(c.opts.Dir, 0o700); err != nil {
		return fmt.Errorf("open state directory: %w", err)
	}
	var err error
	if c.lock, err = durable.LockDir(c.opts.Dir); errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("another controller runs on %s; stop it or choose another state directory", c.opts.Dir)
	} else if err != nil {
		return err
	}
	if err := c.openBlobs(ctx); err != nil {
		return err
	}
	if err := c.openStore(ctx); err != nil {
		return err
	}
	if c.ca, err = identity.OpenSealedCA(filepath.Join(c.opts.Dir, "ca"), c.opts.WallClock, c.opts.Keys); err != nil {
		return err
	}
	c.ca.DeviceLife = c.opts.DeviceLife
	if c.key, err = c.openKey(filepath.Join(c.opts.Dir, "keys", "signing.key")); err != nil {
		return err
	}
	if err := c.agreeOnKeys(ctx); err != nil {
		return err
	}
	if err := c.store.SignsAudit(ctx, c.key.Public().String()); err != nil {
		return err
	}
	c.trust = keeper.New(keeper.Options{Store: c.store, Key: c.key, WallClock: c.opts.WallClock}, c.log)
	return c.joinFleet(ctx)
}

// openStore comes before keys: those of a fleet with several controllers are
// never made twice.
func (c *Controller) openStore(ctx context.Context) (err error) {
	c.nodeID = cluster.NewID()
	opts := store.Options{
		Database: c.opts.Database, PasswordFile: c.opts.PasswordFile, WallClock: c.opts.WallClock,
		Node: c.nodeID, Brokered: c.opts.Broker.URL != "",
	}
	if opts.Database == "" {
		opts.Path = filepath.Join(c.opts.Dir, "store.db")
	}
	if c.store, err = store.Open(ctx, opts); err != nil {
		return err
	}
	return c.checkKeys(ctx)
}

// openKey reads the controller's own key and makes it when there is none.
func (c *Controller) openKey(path string) (trust.PrivateKey, error) {
	key, err := c.opts.Keys.LoadKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if key, err = trust.NewKey(); err != nil {
		return key, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return key, fmt.Errorf("make key directory: %w", err)
	}
	return key, c.opts.Keys.WriteKey(path, key)
}

// Keyring opens what this controller signs by itself.
func (c *Controller) Keyring() trust.Keyring { return trust.DevelopmentKeyring(c.key.Public()) }

// SigningKeyPath is where the controller's own key lies.
func (c *Controller) SigningKeyPath() string { return filepath.Join(c.opts.Dir, "keys", "signing.key") }

// Close releases state and listeners; Run does it as well.
func (c *Controller) Close() error {
	var errs []error
	for _, l := range []net.Listener{c.http, c.device, c.mqtt, c.exports.scrape} {
		if l != nil {
			l.Close() // closed already when Run has ended
		}
	}
	if c.node != nil {
		c.leave()
	}
	if c.store != nil {
		errs = append(errs, c.store.Close())
	}
	if c.lock != nil {
		errs = append(errs, c.lock.Close())
	}
	return errors.Join(errs...)
}

func (c *Controller) wakeConductor() {
	select {
	case c.acted <- struct{}{}:
	default:
	}
}

func (c *Controller) boxChanged(id identity.ID) {
	c.changes.add(id)
	c.hub.Publish(fleetapi.Change{Topic: "boxes", ID: string(id)})
}

func (c *Controller) boxLive(id identity.ID, l wire.Live) {
	s := &fleetapi.LiveSample{Box: id, UnixMs: c.opts.WallClock().UnixMilli(), Values: map[string]float64{}, Buffer: l.Buffer}
	for _, v := range l.Samples {
		s.Values[v.Name] = v.Value
	}
	c.hub.Publish(fleetapi.Change{Topic: "live", ID: string(id), Live: s})
}

// Waits between attempts to note the end of a session.
const (
	minLeftWait = 100 * time.Millisecond
	maxLeftWait = 5 * time.Second
)

// left notes that a session of a box has ended. Another session of the box may
// have begun: an agent that was killed comes back before the keep-alive of its
// old session has run out.
//
// While the database is away it is tried again: a box that never comes back
// would count as connected for ever. When ctx ends, leave or the next start ends
// all at once.
func (c *Controller) left(ctx context.Context, id identity.ID, sid wire.SID) {
	for wait := minLeftWait; ctx.Err() == nil; wait = min(2*wait, maxLeftWait) {
		gone, err := c.store.EndSession(ctx, id, sid, 0)
		if gone {
			c.boxChanged(id)
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		if wait == minLeftWait {
			c.log.Warn("the end of a session is not stored yet; it is tried again", "device", id, "err", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}
