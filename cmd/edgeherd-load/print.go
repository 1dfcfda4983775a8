package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"text/tabwriter"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/loadgen"
)

// transport trusts the CA of a state directory.
func transport(state string) (http.RoundTripper, error) {
	ca, err := identity.OpenCA(filepath.Join(state, "ca"), nil)
	if err != nil {
		return nil, err
	}
	return &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: ca.Pool()}}, nil
}

func (t *terminal) print(form string, r loadgen.Report) error {
	if form == "json" {
		return t.json(r)
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }
	row("devices", "%d, twins %d, seed %d, TLS %v", r.Devices, r.Twins, r.Seed, r.TLS)
	row("connected", "%d in %.1f s", r.Connected, r.ConnectSeconds)
	row("blocks", "made %d, acked %d, held %d, not made %d, refused %d", r.Made, r.Acked, r.Waiting, r.Skipped, r.Refused)
	row("sent", "%d, again %d", r.Sent, r.Resent)
	row("rate", "%.1f acked/s over %.1f s", r.Rate, r.Seconds)
	row("publish to ACK", "p50 %.2f ms, p99 %.2f ms, longest %.1f ms", r.Latency.P50Ms, r.Latency.P99Ms, r.Latency.MaxMs)
	row("faults", "dropped %d, doubled %d, cut %d, restarted %d, clock jumps %d", r.Fired.Drops, r.Fired.Dups, r.Fired.Cuts, r.Fired.Restarts, r.Fired.Clocks)
	for i, s := range r.Storms {
		row(fmt.Sprintf("storm %d", i+1), "%d devices, %.1f s until all were back (%v), errors %d", s.Devices, s.Seconds, s.Back, s.Errors)
	}
	row("connections", "%d, failed %d, lost %d", r.Connects, r.Failures, r.Lost)
	for _, e := range r.Errors[:min(len(r.Errors), 8)] {
		row("  error", "%d times: %s", e.Times, e.Error)
	}
	if c := r.Controller; c.PID != 0 {
		row("controller", "%.1f %% of one core, RSS %.1f MB, %.1f KB per connection (%.1f MB before the first), connecting took %.1f s of CPU",
			100*c.Cores, float64(c.RSSBytes)/1e6, c.RSSPerConnection/1e3, float64(c.RSSIdleBytes)/1e6, c.CPUConnectsSeconds)
	}
	if r.Connected > 0 {
		row("this program", "%.2f KB a device before it connects, %.2f KB connected", float64(r.Own.State)/float64(r.Devices)/1e3, float64(r.Own.Connected)/float64(r.Connected)/1e3)
	}
	row("load average", "%.1f before, %.1f after", r.LoadBefore, r.LoadAfter)
	verdict(row, r.Verdict)
	return w.Flush()
}

func verdict(row func(name, format string, args ...any), v *loadgen.Verdict) {
	if v == nil {
		row("database", "not looked at: stop the controller and run `edgeherd-load check`")
		return
	}
	row("database", "made %d, stored %d, lost %d, doubled %d, neither acked nor stored %d, of others %d", v.Made, v.Stored, v.Lost, v.Doubled, v.Missing, v.Foreign)
}

func (t *terminal) printVerdict(form string, v loadgen.Verdict) error {
	if form == "json" {
		return t.json(v)
	}
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	verdict(func(name, format string, args ...any) { fmt.Fprintf(w, name+"\t"+format+"\n", args...) }, &v)
	return w.Flush()
}

func (t *terminal) json(v any) error {
	enc := json.NewEncoder(t.out)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
