package controller

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/export/remotewrite"
	"github.com/edgeherd/edgeherd/controller/export/sparkplug"
	"github.com/edgeherd/edgeherd/controller/ingest"
	"github.com/edgeherd/edgeherd/controller/metrics"
	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Exports is what the controller tells programs of others. The zero value tells
// them nothing; /metrics is there for who may see the fleet all the same.
type Exports struct {
	// Metrics is a loopback address that serves /metrics to scrapers without a
	// token, such as 127.0.0.1:9464.
	Metrics string
	// RemoteWrite sends samples to its URL, Sparkplug publishes at its Broker.
	// Of both only what people choose is set; the controller adds the rest.
	RemoteWrite remotewrite.Options
	Sparkplug   sparkplug.Options
}

// exports is what runs of them.
type exports struct {
	metrics *metrics.Set
	scrape  net.Listener // nil: none
	run     []func(context.Context) error
}

// tail lets exports read the store.
type tail struct{ *store.Store }

func (t tail) Tail(ctx context.Context, after uint64, limit int, each func(export.Tailed) error) (uint64, error) {
	return t.Store.Tail(ctx, after, limit, func(s store.Tailed) error { return each(export.Tailed(s)) })
}

// openExports prepares metrics and exports. It comes before all that counts.
func (c *Controller) openExports() (err error) {
	c.exports.metrics = metrics.New(metrics.Options{Version: c.opts.Version, State: c.state}, c.log)
	if address := c.opts.Exports.Metrics; address != "" {
		if c.exports.scrape, err = c.listenOn("metrics", address); err != nil {
			return err
		}
		if err := mustBeLoopback(c.exports.scrape.Addr()); err != nil {
			return fmt.Errorf("%w; scrape %s/metrics with a token of the role viewer instead", err, c.URL())
		}
	}
	if o := c.opts.Exports.RemoteWrite; o.URL != "" {
		o.Source, o.Cursors, o.Boxes, o.Leader = tail{c.store}, c.store, c.places, c.leads
		o.Metrics, o.Version, o.WallClock = c.exports.metrics.RemoteWrite, c.opts.Version, c.opts.WallClock
		e, err := remotewrite.New(o, c.log.With("export", "remote_write"))
		if err != nil {
			return err
		}
		c.exports.run = append(c.exports.run, e.Run)
	}
	if o := c.opts.Exports.Sparkplug; o.Broker != "" {
		o.Source, o.Cursors, o.Boxes, o.Leader = tail{c.store}, c.store, c.places, c.leads
		o.Metrics, o.Version, o.WallClock = c.exports.metrics.Sparkplug, c.opts.Version, c.opts.WallClock
		b, err := sparkplug.New(o, c.log.With("export", "sparkplug"))
		if err != nil {
			return err
		}
		c.exports.run = append(c.exports.run, b.Run)
	}
	return nil
}

// count notes what became of a message of a box.
func (c *Controller) count(topic wire.Topic, err error, took time.Duration) {
	m := c.exports.metrics.Ingest
	name := string(topic)
	switch topic {
	case wire.TopicHello, wire.TopicData, wire.TopicLive, wire.TopicWill:
	default:
		name = "other" // whatever a box makes up
	}
	switch {
	case err == nil:
		m.Message(name, "ok")
		if topic == wire.TopicData {
			m.Acked(took)
		}
	case errors.Is(err, ingest.ErrMalformed):
		m.Message(name, "malformed")
	default:
		m.Message(name, "failed")
	}
}

func (c *Controller) runExports(ctx context.Context, g *errgroup.Group) {
	for _, run := range c.exports.run {
		g.Go(func() error { return run(ctx) })
	}
	if c.exports.scrape != nil {
		mux := http.NewServeMux()
		mux.Handle("GET /metrics", c.exports.metrics.Handler())
		g.Go(func() error { return c.serveHTTP(ctx, c.exports.scrape, mux, time.Minute) })
	}
}

// places lists boxes for exports.
func (c *Controller) places(ctx context.Context) ([]export.Box, error) {
	all, err := c.store.Places(ctx)
	if err != nil {
		return nil, err
	}
	out := make([]export.Box, len(all))
	for i, p := range all {
		out[i] = export.Box(p)
	}
	return out, nil
}

// state counts the fleet for a scrape.
func (c *Controller) state(ctx context.Context) (metrics.State, error) {
	size, err := c.store.Size(ctx)
	if err != nil {
		return metrics.State{}, err
	}
	stored, err := c.store.Boxes(ctx, c.opts.WallClock().UnixMilli())
	if err != nil {
		return metrics.State{}, err
	}
	rollouts, err := c.store.RolloutHeads(ctx)
	if err != nil {
		return metrics.State{}, err
	}
	s := metrics.State{
		Boxes: map[metrics.BoxState]int{}, Rollouts: map[string]int{}, RolloutBoxes: map[metrics.RolloutBox]int{},
		Sessions: size.Sessions, EventStreams: c.hub.Streams(), QueuedBatches: c.ingest.Queued(),
		StoreBytes: size.Bytes, WALBytes: size.WALBytes, LSN: size.LSN,
	}
	now := c.opts.WallClock()
	for _, b := range stored {
		v := registry.View(b, now)
		s.Boxes[metrics.BoxState{Link: string(v.Link), Health: string(v.Health), Update: string(v.Update)}]++
		s.BufferedBlocks += v.Buffer.Blocks
	}
	for _, ro := range rollouts {
		s.Rollouts[string(ro.State)]++
		if ro.State != fleetapi.RolloutRunning && ro.State != fleetapi.RolloutPaused {
			continue
		}
		whole, err := c.store.Rollout(ctx, ro.ID)
		if err != nil {
			return metrics.State{}, err
		}
		for _, wave := range whole.Waves {
			for _, t := range wave.Targets {
				s.RolloutBoxes[metrics.RolloutBox{Rollout: ro.ID, State: string(t.State)}]++
			}
		}
	}
	return s, nil
}
