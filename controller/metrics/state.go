package metrics

import (
	"context"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
)

// state collects what is counted at the moment of a scrape.
type state struct {
	ask     func(context.Context) (State, error)
	exports *exports
	log     *slog.Logger

	up, boxes, buffered, rollouts, rolloutBoxes *prometheus.Desc
	sessions, streams, queued                   *prometheus.Desc
	storeBytes, walBytes, lsn, lag              *prometheus.Desc
}

func newState(ask func(context.Context) (State, error), e *exports, log *slog.Logger) *state {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("edgeherd_"+name, help, labels, nil)
	}
	return &state{
		ask: ask, exports: e, log: log,
		up:           desc("database_up", "1 when the database answered this scrape, else 0."),
		boxes:        desc("boxes", "Boxes by state.", "link", "health", "update"),
		buffered:     desc("buffered_blocks", "Blocks that boxes keep and the controller does not have yet, as boxes last said."),
		rollouts:     desc("rollouts", "Rollouts by state.", "state"),
		rolloutBoxes: desc("rollout_boxes", "Boxes of running and paused rollouts by state.", "rollout", "state"),
		sessions:     desc("sessions", "Open MQTT sessions of boxes at this controller."),
		streams:      desc("event_streams", "Open streams of events."),
		queued:       desc("ingest_queue_length", "Messages that wait for their commit."),
		storeBytes:   desc("store_bytes", "Size of the database."),
		walBytes:     desc("store_wal_bytes", "Size of the write-ahead log; SQLite only, else 0."),
		lsn:          desc("store_commits_total", "Commits of telemetry, counted by the database over all its lives."),
		lag:          desc("export_lag_commits", "Commits of telemetry that an export has not confirmed yet.", "export"),
	}
}

// Describe implements prometheus.Collector.
func (c *state) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.up, c.boxes, c.buffered, c.rollouts, c.rolloutBoxes, c.sessions, c.streams, c.queued, c.storeBytes, c.walBytes, c.lsn, c.lag,
	} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *state) Collect(out chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTimeout)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	s, err := c.ask(ctx)
	if err != nil {
		c.log.Warn("scrape without the database", "err", err)
		gauge(c.up, 0)
		return
	}
	gauge(c.up, 1)
	for b, n := range s.Boxes {
		gauge(c.boxes, float64(n), b.Link, b.Health, b.Update)
	}
	gauge(c.buffered, float64(s.BufferedBlocks))
	for name, n := range s.Rollouts {
		gauge(c.rollouts, float64(n), name)
	}
	for b, n := range s.RolloutBoxes {
		gauge(c.rolloutBoxes, float64(n), b.Rollout, b.State)
	}
	gauge(c.sessions, float64(s.Sessions))
	gauge(c.streams, float64(s.EventStreams))
	gauge(c.queued, float64(s.QueuedBatches))
	gauge(c.storeBytes, float64(s.StoreBytes))
	gauge(c.walBytes, float64(s.WALBytes))
	out <- prometheus.MustNewConstMetric(c.lsn, prometheus.CounterValue, float64(s.LSN))
	for _, e := range c.exports.all {
		if lag, on := e.lag(s.LSN); on {
			gauge(c.lag, float64(lag), e.name)
		}
	}
}
