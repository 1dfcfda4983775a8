package loadgen

import "time"

// Progress is how far a Run is.
type Progress struct {
	Seconds                      float64
	Connected, Devices           int
	Made, Acked, Waiting, Resent int64
	P99                          time.Duration
	Load                         float64
}

func (r *run) snapshot() Progress {
	s := r.stats
	s.mu.Lock()
	p99 := s.latency.quantile(0.99)
	s.mu.Unlock()
	return Progress{
		Seconds: time.Since(r.began).Seconds(), Connected: int(s.welcomed.Load()), Devices: len(r.opts.Boxes),
		Made: s.made.Load(), Acked: s.acked.Load(), Waiting: s.waiting.Load(), Resent: s.resent.Load(),
		P99: p99, Load: loadAverage(),
	}
}

// Report is what a Run measured.
type Report struct {
	Devices        int     `json:"devices"`
	Twins          int     `json:"twins"`
	TLS            bool    `json:"tls"`
	Seed           uint64  `json:"seed"`
	Connected      int     `json:"connected"`
	ConnectSeconds float64 `json:"connect_seconds"`
	Seconds        float64 `json:"seconds"` // in which blocks were made
	DrainSeconds   float64 `json:"drain_seconds"`

	Made    int64   `json:"made"`
	Sent    int64   `json:"sent"`
	Resent  int64   `json:"resent"`
	Acked   int64   `json:"acked"`   // by the device that made it or its twin
	Waiting int64   `json:"waiting"` // still held at the end
	Skipped int64   `json:"skipped"` // not made: the device held 256 already
	Refused int64   `json:"refused"`
	Rate    float64 `json:"acked_per_second"`
	Latency Latency `json:"publish_to_ack"`

	Connects int64   `json:"connects"`
	Failures int64   `json:"connect_failures"`
	Lost     int64   `json:"connections_lost"` // other than by a fault of ours
	Fired    Fired   `json:"faults"`
	Storms   []Storm `json:"storms"`
	Errors   []Blame `json:"errors"`

	Controller Usage   `json:"controller"`
	Own        Own     `json:"generator"`
	LoadBefore float64 `json:"load_average_before"`
	LoadAfter  float64 `json:"load_average_after"`

	Verdict *Verdict `json:"database,omitempty"`
}

// Latency is of blocks first sent and acknowledged while blocks were made,
// since the last storm.
type Latency struct {
	P50Ms float64 `json:"p50_ms"`
	P99Ms float64 `json:"p99_ms"`
	MaxMs float64 `json:"max_ms"`
	Count int     `json:"count"`
}

func latencyOf(h *histogram) Latency {
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1e3 }
	return Latency{P50Ms: ms(h.quantile(0.5)), P99Ms: ms(h.quantile(0.99)), MaxMs: ms(h.max), Count: h.n}
}

// Fired counts the faults.
type Fired struct {
	Drops    int64 `json:"drops"`
	Dups     int64 `json:"dups"`
	Cuts     int64 `json:"cuts"`
	Restarts int64 `json:"restarts"`
	Clocks   int64 `json:"clocks"`
}

// Storm is one reconnect of many at once.
type Storm struct {
	Devices int     `json:"devices"`
	Seconds float64 `json:"seconds"` // until all had their WELCOME
	Back    bool    `json:"all_back"`
	Errors  int     `json:"errors"`
}

// Usage is what the controller took while blocks were made.
type Usage struct {
	PID                int     `json:"pid"`
	Cores              float64 `json:"cpu_of_one_core"`
	RSSBytes           int64   `json:"rss_bytes"` // at the end
	RSSPerConnection   float64 `json:"rss_per_connection_bytes"`
	RSSIdleBytes       int64   `json:"rss_before_bytes"` // before the first connection
	CPUConnectsSeconds float64 `json:"cpu_seconds_of_connecting"`
}

// Own is the memory of the generator: of its devices before they connect, and
// of all when they are connected, with TLS if there is TLS.
type Own struct {
	State     int64 `json:"state_bytes"`
	Connected int64 `json:"connected_bytes"`
}

func (rep *Report) begin(opts Options) {
	rep.Devices, rep.Twins, rep.TLS, rep.Seed = len(opts.Boxes), opts.Twins, opts.TLS != nil, opts.Seed
	rep.LoadBefore, rep.Storms = loadAverage(), []Storm{}
	rep.Controller.PID = opts.Controller.PID
	if opts.Controller.PID != 0 {
		// An error comes again when it matters.
		rep.Controller.RSSIdleBytes, _ = opts.Controller.RSS()
		cpu, _ := opts.Controller.CPU()
		rep.Controller.CPUConnectsSeconds = -cpu.Seconds()
	}
}

// watch begins to measure the controller; what it returns ends it.
func (r *run) watch() (func(*Usage) error, error) {
	p := r.opts.Controller
	if p.PID == 0 {
		return func(*Usage) error { return nil }, nil
	}
	began := time.Now()
	first, err := p.CPU()
	r.report.Controller.CPUConnectsSeconds += first.Seconds()
	return func(u *Usage) error {
		last, err := p.CPU()
		if err != nil {
			return err
		}
		u.Cores = (last - first).Seconds() / time.Since(began).Seconds()
		if u.RSSBytes, err = p.RSS(); err != nil {
			return err
		}
		u.RSSPerConnection = float64(u.RSSBytes) / float64(max(1, r.stats.welcomed.Load()))
		return nil
	}, err
}

// conclude fills in what is counted over the whole run.
func (r *run) conclude() {
	rep, s := &r.report, r.stats
	rep.Made, rep.Sent, rep.Resent, rep.Acked = s.made.Load(), s.sent.Load(), s.resent.Load(), s.acked.Load()
	rep.Waiting, rep.Skipped, rep.Refused = s.waiting.Load(), s.skipped.Load(), s.refused.Load()
	rep.Connects, rep.Failures, rep.Lost = s.connects.Load(), s.failures.Load(), s.lost.Load()
	rep.Fired = Fired{s.drops.Load(), s.dups.Load(), s.cuts.Load(), s.restarts.Load(), s.clocks.Load()}
	rep.Errors, rep.LoadAfter = s.blames(), loadAverage()
}
