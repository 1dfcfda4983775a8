package serve

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// metric is one family in Prometheus' text format. The nv_ names are those of
// Triton, so that existing dashboards work.
type metric struct {
	name, kind, help string
	value            func(v *version, c counts) float64
}

func metricTable() []metric {
	us := func(t tally) float64 { return float64(t.took.Microseconds()) }
	return []metric{
		{"nv_inference_request_success", "counter", "Requests answered.",
			func(_ *version, c counts) float64 { return float64(c.success.count) }},
		{"nv_inference_request_failure", "counter", "Requests not answered, the request's own faults included.",
			func(_ *version, c counts) float64 { return float64(c.failure.count + c.refused) }},
		{"nv_inference_count", "counter", "Inferences done; a batch of n counts as n.",
			func(_ *version, c counts) float64 { return float64(c.items) }},
		{"nv_inference_exec_count", "counter", "Runs of the model; a batch counts as one.",
			func(_ *version, c counts) float64 { return float64(c.executions) }},
		{"nv_inference_request_duration_us", "counter", "Time of answered requests, microseconds.",
			func(_ *version, c counts) float64 { return us(c.success) }},
		{"nv_inference_queue_duration_us", "counter", "Time requests waited for their turn, microseconds.",
			func(_ *version, c counts) float64 { return us(c.queue) }},
		{"nv_inference_compute_input_duration_us", "counter", "Time of handing inputs to the worker, microseconds.",
			func(_ *version, c counts) float64 { return us(c.input) }},
		{"nv_inference_compute_infer_duration_us", "counter", "Time in ONNX Runtime, microseconds.",
			func(_ *version, c counts) float64 { return us(c.infer) }},
		{"nv_inference_compute_output_duration_us", "counter", "Time of taking outputs from the worker, microseconds.",
			func(_ *version, c counts) float64 { return us(c.output) }},
		{"nv_inference_pending_request_count", "gauge", "Requests that wait for their turn.",
			func(v *version, _ counts) float64 { return float64(v.queue.length()) }},
		{"edgeherd_runner_runtime_cpu_seconds_total", "counter", "CPU time of ONNX Runtime.",
			func(_ *version, c counts) float64 { return c.runtimeCPU.Seconds() }},
		{"edgeherd_runner_max_batch_items", "gauge", "Items that may share a run, as the probe found; 0: no batches.",
			func(v *version, _ counts) float64 { return float64(v.queue.plan().MaxItems) }},
		{"edgeherd_runner_worker_restarts_total", "counter", "Workers that died and were started again.",
			func(v *version, _ counts) float64 {
				v.mu.Lock()
				defer v.mu.Unlock()
				return float64(v.restarts)
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
			fmt.Fprintf(&b, "%s%s %.17g\n", m.name, labels[i], m.value(v, read[i]))
		}
	}
	fmt.Fprint(&b, "# HELP edgeherd_runner_variant_requests_total Requests answered, by the variant that did.\n# TYPE edgeherd_runner_variant_requests_total counter\n")
	for i, v := range versions {
		for at := range v.variants {
			fmt.Fprintf(&b, "edgeherd_runner_variant_requests_total%s,variant=\"%s\"} %d\n", strings.TrimSuffix(labels[i], "}"), v.variants[at].Name, v.served[at].Load())
		}
	}
	shadowMetrics(&b, versions, labels)
	fmt.Fprintf(&b, "# HELP edgeherd_runner_rung How many variants models go down for heat, power or load of the box.\n# TYPE edgeherd_runner_rung gauge\nedgeherd_runner_rung %d\n", s.rung.down())
	fmt.Fprintf(&b, "# HELP edgeherd_runner_requests_under_way Requests admitted and not yet answered.\n# TYPE edgeherd_runner_requests_under_way gauge\nedgeherd_runner_requests_under_way %d\n", s.gate.requests.Load())
	fmt.Fprintf(&b, "# HELP edgeherd_runner_requests_shed_total Requests refused because too many were under way.\n# TYPE edgeherd_runner_requests_shed_total counter\nedgeherd_runner_requests_shed_total %d\n", s.gate.shed.Load())
	fmt.Fprintf(&b, "# HELP edgeherd_runner_cpu_seconds_total CPU time of the runner and its workers.\n# TYPE edgeherd_runner_cpu_seconds_total counter\nedgeherd_runner_cpu_seconds_total %g\n", s.cpuSeconds().Seconds())
	fmt.Fprintf(&b, "# HELP edgeherd_runner_connections Connections open on TCP.\n# TYPE edgeherd_runner_connections gauge\nedgeherd_runner_connections %d\n", s.lobby.open.Load())
	fmt.Fprintf(&b, "# HELP edgeherd_runner_connections_refused_total Connections closed because too many were open.\n# TYPE edgeherd_runner_connections_refused_total counter\nedgeherd_runner_connections_refused_total %d\n", s.lobby.refused.Load())
	s.placeMetrics(&b)
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	_, _ = w.Write(b.Bytes())
}

// shadowMetrics tells how candidates do beside the versions before them.
func shadowMetrics(b *bytes.Buffer, versions []*version, labels []string) {
	for _, m := range []struct {
		name, kind, help string
		value            func(runnerapi.Shadow) float64
	}{
		{"compared_total", "counter", "Answers compared with those of the version before.", func(s runnerapi.Shadow) float64 { return float64(s.Compared) }},
		{"failures_total", "counter", "Requests failed that the version before could answer.", func(s runnerapi.Shadow) float64 { return float64(s.Failures) }},
		{"hot_total", "counter", "Requests not copied because the box was to do less.", func(s runnerapi.Shadow) float64 { return float64(s.Hot) }},
		{"agreement_ratio", "gauge", "Mean agreement of the answers.", func(s runnerapi.Shadow) float64 { return s.Agreement }},
		{"latency_ratio", "gauge", "Median time in the model against the version before.", func(s runnerapi.Shadow) float64 { return s.LatencyRatio }},
	} {
		fmt.Fprintf(b, "# HELP edgeherd_runner_shadow_%s %s\n# TYPE edgeherd_runner_shadow_%s %s\n", m.name, m.help, m.name, m.kind)
		for i, v := range versions {
			if at := v.shadow.Load(); at != nil {
				fmt.Fprintf(b, "edgeherd_runner_shadow_%s%s %g\n", m.name, labels[i], m.value(*at.status()))
			}
		}
	}
}
