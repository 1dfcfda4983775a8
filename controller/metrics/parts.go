package metrics

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Ingest counts what boxes send and what becomes of it.
type Ingest struct {
	messages   *prometheus.CounterVec
	blocks     *prometheus.CounterVec
	commits    *prometheus.HistogramVec
	batch      prometheus.Histogram
	ackSeconds prometheus.Histogram
}

func newIngest(r prometheus.Registerer) *Ingest {
	i := &Ingest{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgeherd_messages_total", Help: "Messages of boxes by topic and outcome: ok, malformed (never readable), failed (the box sends again).",
		}, []string{"topic", "outcome"}),
		blocks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "edgeherd_blocks_total", Help: "Blocks by outcome: stored, duplicate (was stored before), refused (wrong seal).",
		}, []string{"outcome"}),
		commits: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "edgeherd_commit_duration_seconds", Help: "How long one transaction of telemetry took, by outcome.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // 0.5 ms to 8 s
		}, []string{"outcome"}),
		batch: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "edgeherd_commit_blocks", Help: "Blocks in one transaction of telemetry.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 12), // to 2048
		}),
		ackSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "edgeherd_ack_duration_seconds", Help: "From the arrival of a DATA message to its acknowledgement.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 15), // 1 ms to 16 s
		}),
	}
	r.MustRegister(i.messages, i.blocks, i.commits, i.batch, i.ackSeconds)
	// What has not happened yet reads 0: an alert on a rate needs the first step.
	for _, outcome := range []string{"stored", "duplicate", "refused"} {
		i.blocks.WithLabelValues(outcome)
	}
	for _, outcome := range []string{"ok", "failed"} {
		i.commits.WithLabelValues(outcome)
	}
	return i
}

// Message counts one message; the topic is one of the protocol's.
func (i *Ingest) Message(topic, outcome string) {
	if i != nil {
		i.messages.WithLabelValues(topic, outcome).Inc()
	}
}

// Acked notes how long a DATA message took from arrival to acknowledgement.
func (i *Ingest) Acked(took time.Duration) {
	if i != nil {
		i.ackSeconds.Observe(took.Seconds())
	}
}

// Committed counts one transaction of telemetry: the blocks that came, how many
// of them were new, how long it took. After an error none was stored.
func (i *Ingest) Committed(blocks, fresh int, took time.Duration, err error) {
	if i == nil {
		return
	}
	if err != nil {
		i.commits.WithLabelValues("failed").Observe(took.Seconds())
		return
	}
	i.commits.WithLabelValues("ok").Observe(took.Seconds())
	i.batch.Observe(float64(blocks))
	i.blocks.WithLabelValues("stored").Add(float64(fresh))
	i.blocks.WithLabelValues("duplicate").Add(float64(max(0, blocks-fresh)))
}

// Refused counts blocks whose seal was wrong.
func (i *Ingest) Refused(blocks int) {
	if i != nil {
		i.blocks.WithLabelValues("refused").Add(float64(blocks))
	}
}

// exports is the metrics that all exports share.
type exports struct {
	samples, dropped, sends, replays *prometheus.CounterVec
	up                               *prometheus.GaugeVec
	all                              []*Export
}

func newExports(r prometheus.Registerer) *exports {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "edgeherd_export_" + name, Help: help}, append([]string{"export"}, labels...))
	}
	e := &exports{
		samples: counter("samples_total", "Samples that a receiver has confirmed; one that was sent again counts again."),
		dropped: counter("dropped_samples_total", "Samples that were not sent or refused for good, by reason.", "reason"),
		sends:   counter("sends_total", "Requests or messages by outcome.", "outcome"),
		replays: counter("replays_total", "How often what was confirmed lately was sent again, since the receiver may have lost it."),
		up: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "edgeherd_export_up", Help: "1 while the receiver takes what is sent, else 0.",
		}, []string{"export"}),
	}
	r.MustRegister(e.samples, e.dropped, e.sends, e.replays, e.up)
	return e
}

func (e *exports) of(name string) *Export {
	x := &Export{name: name, shared: e}
	e.all = append(e.all, x)
	return x
}

// Export counts what one export does. Nothing of it is shown before On.
type Export struct {
	name   string
	shared *exports

	mu   sync.Mutex // guards the fields below
	on   bool
	at   uint64
	idle bool // nothing stored waits for the receiver
}

// On shows the export: it is configured.
func (e *Export) On() {
	if e == nil {
		return
	}
	e.mu.Lock()
	e.on = true
	e.mu.Unlock()
	e.shared.samples.WithLabelValues(e.name)
	e.shared.replays.WithLabelValues(e.name)
	e.shared.up.WithLabelValues(e.name)
	for _, outcome := range []string{"ok", "refused", "failed"} {
		e.shared.sends.WithLabelValues(e.name, outcome)
	}
	for _, reason := range []string{"old", "refused"} {
		e.shared.dropped.WithLabelValues(e.name, reason)
	}
}

// At tells the LSN up to which the receiver has confirmed everything. idle says
// that nothing follows: commits without samples do not concern an export.
func (e *Export) At(lsn uint64, idle bool) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.at, e.idle = lsn, idle
}

// lag is how many commits the export is behind the store's newest.
func (e *Export) lag(newest uint64) (lag uint64, on bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.idle || newest <= e.at {
		return 0, e.on
	}
	return newest - e.at, e.on
}

// Up tells whether the receiver takes what is sent.
func (e *Export) Up(up bool) {
	if e == nil {
		return
	}
	v := 0.0
	if up {
		v = 1
	}
	e.shared.up.WithLabelValues(e.name).Set(v)
}

// Sent counts one request or message: "ok", "refused" or "failed".
func (e *Export) Sent(outcome string) {
	if e != nil {
		e.shared.sends.WithLabelValues(e.name, outcome).Inc()
	}
}

// Samples counts samples that the receiver has confirmed.
func (e *Export) Samples(n int) {
	if e != nil {
		e.shared.samples.WithLabelValues(e.name).Add(float64(n))
	}
}

// Dropped counts samples that the receiver will never have: "old" or "refused".
func (e *Export) Dropped(reason string, n int) {
	if e != nil {
		e.shared.dropped.WithLabelValues(e.name, reason).Add(float64(n))
	}
}

// Replayed counts one return to the cursor.
func (e *Export) Replayed() {
	if e != nil {
		e.shared.replays.WithLabelValues(e.name).Inc()
	}
}
