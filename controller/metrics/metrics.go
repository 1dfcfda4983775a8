// Package metrics is what the controller tells Prometheus of itself and of the
// fleet as a whole.
//
// Vocabulary: a Set is one registry with all collectors of one controller; none
// is global, so several controllers live in one process. The parts that count
// hold a structure of the Set (Ingest, Export) and call its methods, all of
// which do nothing on nil. What the database knows is asked at each scrape.
//
// There is no series for each box here: 10,000 boxes times their sensors belong
// into remote write (package controller/export), where their owner chose them.
//
// The one rule a caller can break: a label has few values, all known beforehand.
package metrics

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// scrapeTimeout bounds how long the database is asked for one scrape.
const scrapeTimeout = 10 * time.Second

// Options of a Set. The zero value gives a Set without a fleet.
type Options struct {
	// Version of the program.
	Version string
	// State is asked at each scrape; nil leaves its metrics out.
	State func(context.Context) (State, error)
}

// State is what is counted at the moment of a scrape.
type State struct {
	Boxes          map[BoxState]int
	BufferedBlocks int64          // that boxes keep and the controller has not
	Rollouts       map[string]int // by state
	RolloutBoxes   map[RolloutBox]int
	Sessions       int // open MQTT sessions
	EventStreams   int
	QueuedBatches  int // messages that wait for their commit
	StoreBytes     int64
	WALBytes       int64
	LSN            uint64
}

// BoxState is one combination of the three judgements about a box.
type BoxState struct{ Link, Health, Update string }

// RolloutBox is the state of a box in one running or paused rollout.
type RolloutBox struct{ Rollout, State string }

// Set holds all collectors of a controller.
type Set struct {
	Ingest      *Ingest
	RemoteWrite *Export
	Sparkplug   *Export

	registry *prometheus.Registry
	log      *slog.Logger
}

// New makes a Set.
func New(opts Options, log *slog.Logger) *Set {
	s := &Set{registry: prometheus.NewRegistry(), log: log}
	s.registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "edgeherd_build_info", Help: "Always 1; the labels tell the version.",
			ConstLabels: prometheus.Labels{"version": opts.Version},
		}, func() float64 { return 1 }),
	)
	s.Ingest = newIngest(s.registry)
	exports := newExports(s.registry)
	s.RemoteWrite, s.Sparkplug = exports.of("remote_write"), exports.of("sparkplug")
	if opts.State != nil {
		s.registry.MustRegister(newState(opts.State, exports, log))
	}
	return s
}

// Gatherer gives all metrics, for tests and linters.
func (s *Set) Gatherer() prometheus.Gatherer { return s.registry }

// Handler serves the Set to scrapers.
func (s *Set) Handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
		// What could be gathered is worth more than nothing: a database that is
		// busy must not hide that it is.
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 4,
		EnableOpenMetrics:   true,
	})
}
