package serve

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
)

// metric is one family in Prometheus' text format. The nv_ names are those of
// Triton, so that existing dashboards work.
type metric struct {
	name, kind, help string
	value            func(v *version, c counts) uint64
}

func metricTable() []metric {
	return []metric{
		{"nv_inference_request_success", "counter", "Requests answered.",
			func(_ *version, c counts) uint64 { return c.successes }},
		{"nv_inference_request_failure", "counter", "Requests not answered, the request's own faults included.",
			func(_ *version, c counts) uint64 { return c.failures + c.refused }},
		{"nv_inference_count", "counter", "Inferences done; a request is one whatever its batch.",
			func(_ *version, c counts) uint64 { return c.successes }},
		{"nv_inference_request_duration_us", "counter", "Time of answered requests, microseconds.",
			func(_ *version, c counts) uint64 { return uint64(c.took.Microseconds()) }},
		{"edgeherd_runner_worker_restarts_total", "counter", "Workers that died and were started again.",
			func(v *version, _ counts) uint64 {
				v.mu.Lock()
				defer v.mu.Unlock()
				return v.restarts
			}},
	}
}

func (s *Server) getMetrics(w http.ResponseWriter, _ *http.Request) {
	versions := s.known()
	labels := make([]string, len(versions))
	read := make([]counts, len(versions))
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	for i, v := range versions {
		labels[i] = fmt.Sprintf(`{model="%s",version="%s"}`, escape.Replace(v.ref.Name), escape.Replace(v.ref.Version))
		read[i] = v.stats.read()
	}
	var b bytes.Buffer
	for _, m := range metricTable() {
		fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s %s\n", m.name, m.help, m.name, m.kind)
		for i, v := range versions {
			fmt.Fprintf(&b, "%s%s %d\n", m.name, labels[i], m.value(v, read[i]))
		}
	}
	fmt.Fprintf(&b, "# HELP nv_inference_pending_request_count Requests admitted and not yet answered.\n# TYPE nv_inference_pending_request_count gauge\nnv_inference_pending_request_count %d\n", s.gate.requests.Load())
	fmt.Fprintf(&b, "# HELP edgeherd_runner_cpu_seconds_total CPU time of the runner and its workers.\n# TYPE edgeherd_runner_cpu_seconds_total counter\nedgeherd_runner_cpu_seconds_total %g\n", s.cpuSeconds().Seconds())
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}
