package deploy

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/metrics"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

// dashboard is what of Grafana's format these tests read.
type dashboard struct {
	Templating struct {
		List []struct{ Name string }
	}
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ H, W, X, Y int }
		Targets []struct{ Expr string }
	}
}

func readDashboard(t *testing.T) dashboard {
	t.Helper()
	text, err := os.ReadFile("grafana/edgeherd.json")
	must(t, err)
	var d dashboard
	must(t, json.Unmarshal(text, &d))
	return d
}

// rules is what of Prometheus' format these tests read; unknown keys are errors.
type rules struct {
	Groups []struct {
		Name  string
		Rules []struct {
			Alert, Expr, For    string
			Labels, Annotations map[string]string
		}
	}
}

func readRules(t *testing.T) rules {
	t.Helper()
	f, err := os.Open("prometheus/edgeherd.rules.yml")
	must(t, err)
	defer f.Close()
	dec := yaml.NewDecoder(f)
	dec.KnownFields(true)
	var r rules
	must(t, dec.Decode(&r))
	return r
}

// expressions are those of dashboard and rules, as Prometheus would see them.
func expressions(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, p := range readDashboard(t).Panels {
		for _, target := range p.Targets {
			all = append(all, strings.NewReplacer("$__rate_interval", "5m", "$site", ".*").Replace(target.Expr))
		}
	}
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			all = append(all, r.Expr)
		}
	}
	if len(all) < 30 {
		t.Fatalf("%d expressions", len(all))
	}
	return all
}

// told are the names of all metrics of a controller that has seen everything.
func told(t *testing.T) map[string]bool {
	t.Helper()
	s := metrics.New(metrics.Options{Version: "1", State: func(context.Context) (metrics.State, error) {
		return metrics.State{
			Boxes: map[metrics.BoxState]int{{}: 1}, Rollouts: map[string]int{"": 1}, RolloutBoxes: map[metrics.RolloutBox]int{{}: 1},
		}, nil
	}}, slog.New(slog.DiscardHandler))
	s.RemoteWrite.On()
	s.Ingest.Message("up/data", "ok")
	s.Ingest.Acked(time.Second)
	s.Ingest.Committed(1, 1, time.Second, nil)
	families, err := s.Gatherer().Gather()
	must(t, err)
	names := map[string]bool{"up": true, "edgeherd_box_info": true}
	for _, f := range families {
		names[f.GetName()] = true
		for _, part := range []string{"_bucket", "_sum", "_count"} {
			names[f.GetName()+part] = names[f.GetName()+part] || f.GetType().String() == "HISTOGRAM"
		}
	}
	return names
}

var (
	quoted     = regexp.MustCompile(`"[^"]*"`)
	metricName = regexp.MustCompile(`\b(?:edgeherd|go|process)_[a-z0-9_]+|\bup\b`)
)

func TestDashboardAndAlertsAskForMetricsThatExist(t *testing.T) {
	names := told(t)
	for _, expr := range expressions(t) {
		for _, name := range metricName.FindAllString(quoted.ReplaceAllString(expr, ""), -1) {
			sample := strings.TrimPrefix(name, "edgeherd_")
			if !names[name] && !(sample != name && export.DefaultSeries().Match(sample)) {
				t.Errorf("nobody tells %s, in %s", name, expr)
			}
		}
	}
}

// TestDashboardAndAlertsAreUnderstood lets a database of others read each
// expression.
func TestDashboardAndAlertsAreUnderstood(t *testing.T) {
	victoria := assets.Program(t, "victoria-metrics")
	address, err := freeport.Address()
	must(t, err)
	base := "http://" + address
	cmd := exec.Command(victoria, "-storageDataPath="+t.TempDir(), "-httpListenAddr="+address, "-loggerLevel=ERROR", "-memory.allowedBytes=64MiB")
	must(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(5 * time.Minute); ; {
		resp, err := http.Get(base + "/health")
		if err == nil {
			resp.Body.Close()
			break
		}
		select {
		case <-deadline:
			t.Fatal(err)
		case <-tick.C:
		}
	}
	for _, expr := range expressions(t) {
		resp, err := http.PostForm(base+"/api/v1/query", url.Values{"query": {expr}})
		must(t, err)
		body, err := io.ReadAll(resp.Body)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", expr, body)
		}
	}
}

func TestRulesSayWhatIsWrong(t *testing.T) {
	var seen []string
	for _, g := range readRules(t).Groups {
		for _, r := range g.Rules {
			if r.Alert == "" || r.Annotations["summary"] == "" || r.Labels["severity"] == "" || slices.Contains(seen, r.Alert) {
				t.Errorf("%s: rule %+v", g.Name, r)
			}
			if _, err := time.ParseDuration(r.For); r.For != "" && err != nil {
				t.Errorf("%s: %v", r.Alert, err)
			}
			seen = append(seen, r.Alert)
		}
	}
}

func TestPanelsDoNotOverlap(t *testing.T) {
	d := readDashboard(t)
	for i, a := range d.Panels {
		if a.Title == "" || a.ID == 0 || a.GridPos.X+a.GridPos.W > 24 || a.Type != "row" && len(a.Targets) == 0 {
			t.Errorf("panel %+v", a)
		}
		for _, b := range d.Panels[:i] {
			p, q := a.GridPos, b.GridPos
			if a.ID == b.ID || p.X < q.X+q.W && q.X < p.X+p.W && p.Y < q.Y+q.H && q.Y < p.Y+p.H {
				t.Errorf("%s and %s overlap or share a number", a.Title, b.Title)
			}
		}
	}
}

// TestPromtoolAcceptsConfigurationAndRules.
func TestPromtoolAcceptsConfigurationAndRules(t *testing.T) {
	promtool := assets.Program(t, "promtool")
	for _, args := range [][]string{
		{"check", "rules", "prometheus/edgeherd.rules.yml"},
		{"check", "config", "--syntax-only", filepath.Join("prometheus", "prometheus.yml")},
	} {
		if out, err := output(t, promtool, args...); err != nil {
			t.Errorf("promtool %v: %v\n%s", args, err, out)
		}
	}
}
