package api

import (
	"encoding/csv"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// fleet enrols n boxes in three sites; every third has never been heard, and
// those that have differ in temperature.
func (w *world) fleet(n int) []identity.ID {
	w.t.Helper()
	var ids []identity.ID
	for i := range n {
		arch := []string{"amd64", "arm64", ""}[i%3]
		id := w.box(fmt.Sprintf("box-%02d", i), fmt.Sprintf("site-%d", i%4), arch)
		if arch != "" {
			w.samples(id, 1, testStart.Add(-time.Minute), map[string][]float64{"temp_die_celsius": {float64(40 + i%5)}})
		}
		ids = append(ids, id)
	}
	return ids
}

func TestPagesShowEveryBoxOnceInEveryOrder(t *testing.T) {
	w := newWorld(t)
	const n = 17
	w.fleet(n)
	c := w.client("viewer")
	for _, field := range registry.Fields() {
		for _, order := range []string{field, field + " desc"} {
			seen := map[identity.ID]int{}
			q := fleetapi.ListQuery{OrderBy: order, PageSize: 3}
			for {
				page, err := c.Boxes(t.Context(), q)
				must(t, err)
				if page.TotalSize != n {
					t.Fatalf("order %q: total %d, want %d", order, page.TotalSize, n)
				}
				for _, b := range page.Items {
					seen[b.ID]++
				}
				if page.NextPageToken == "" {
					break
				}
				q.PageToken = page.NextPageToken
			}
			if len(seen) != n {
				t.Errorf("order %q: %d boxes seen, want %d", order, len(seen), n)
			}
			for id, times := range seen {
				if times != 1 {
					t.Errorf("order %q: %s seen %d times", order, id, times)
				}
			}
		}
	}
}

func TestPagesGoOnWhereABoxHasMoved(t *testing.T) {
	w := newWorld(t)
	ids := w.fleet(6) // die temperatures 40, 41, none, 43, 44, none
	c := w.client("viewer")
	q := fleetapi.ListQuery{OrderBy: "temp_die", PageSize: 2}
	first, err := c.Boxes(t.Context(), q)
	must(t, err)
	if first.Items[1].ID != ids[1] {
		t.Fatalf("second coolest is %s, want box-01", first.Items[1].Name)
	}
	// The last box of the page becomes the hottest: the boxes between must not be lost.
	w.samples(ids[1], 2, testStart, map[string][]float64{"temp_die_celsius": {99}})
	q.PageToken = first.NextPageToken
	next, err := c.Boxes(t.Context(), q)
	must(t, err)
	if next.Items[0].ID != ids[3] || next.Items[1].ID != ids[4] {
		t.Errorf("next page is %s, %s; want box-03, box-04", next.Items[0].Name, next.Items[1].Name)
	}
}

func TestScreenAndCSVShowTheSameBoxes(t *testing.T) {
	w := newWorld(t)
	w.fleet(9)
	w.box("=cmd()", "site-0", "")
	for _, filter := range []string{"", `site = "site-0"`, `temp_die > 41`, `NOT link = "never"`} {
		list, err := w.client("viewer").AllBoxes(t.Context(), filter, "name desc")
		must(t, err)
		got := w.ask("viewer", "GET", "/api/v1/boxes?order_by=name+desc&filter="+url.QueryEscape(filter), "", "Accept", "text/csv")
		if got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), "text/csv") {
			t.Fatalf("csv: %d %s", got.status, got.body)
		}
		rows, err := csv.NewReader(strings.NewReader(got.body)).ReadAll()
		must(t, err)
		if len(rows) != len(list.Items)+1 {
			t.Fatalf("filter %q: %d rows, want %d and a head", filter, len(rows), len(list.Items))
		}
		for i, b := range list.Items {
			if rows[i+1][0] != string(b.ID) {
				t.Errorf("filter %q, row %d is %s, want %s", filter, i, rows[i+1][0], b.ID)
			}
		}
		if strings.Contains(got.body, ",=cmd()") {
			t.Error("a name reaches the spreadsheet as a formula")
		}
	}
	if got := w.ask("viewer", "GET", "/api/v1/boxes?page_size=3", "", "Accept", "text/csv"); got.status != http.StatusBadRequest {
		t.Errorf("a page of CSV: %d", got.status)
	}
}

func TestBadInputIsAClearProblem(t *testing.T) {
	w := newWorld(t)
	id := w.box("box-1", "berlin-1", "amd64")
	w.box("box-2", "berlin-1", "amd64")
	page, err := w.client("viewer").Boxes(t.Context(), fleetapi.ListQuery{PageSize: 1})
	must(t, err)
	long := strings.Repeat("x", maxJSONBytes+1)
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		says                     string
	}{
		{"unknown filter field", "GET", "/boxes?filter=colour%3D1", "", 400, "(1:1); fields are agent, arch"},
		{"filter with a wrong type", "GET", "/boxes?filter=temp_die%3D%22hot%22", "", 400, "filter"},
		{"half a filter", "GET", "/boxes?filter=site+%3D", "", 400, "filter"},
		{"unknown order", "GET", "/boxes?order_by=colour", "", 400, "cannot order by colour"},
		{"page size 0", "GET", "/boxes?page_size=0", "", 422, "page_size"},
		{"page size too large", "GET", "/boxes?page_size=1001", "", 422, "page_size"},
		{"nonsense page token", "GET", "/boxes?page_token=%21%21", "", 400, "not one of this API"},
		{"page token of another filter", "GET", "/boxes?filter=site%3D%22x%22&page_token=" + page.NextPageToken, "", 400, "another filter"},
		{"unknown parameter", "GET", "/boxes?fitler=x", "", 422, "fitler"},
		{"box id of no form", "GET", "/boxes/box-1", "", 422, "path.id"},
		{"unknown box", "GET", "/boxes/d-aaaaaaaaaaaaa", "", 404, "d-aaaaaaaaaaaaa"},
		{"events of an unknown box", "GET", "/boxes/d-aaaaaaaaaaaaa/events", "", 404, "d-aaaaaaaaaaaaa"},
		{"results of an unknown box", "GET", "/boxes/d-aaaaaaaaaaaaa/results", "", 404, "d-aaaaaaaaaaaaa"},
		{"series of an unknown box", "GET", "/boxes/d-aaaaaaaaaaaaa/series?metrics=a", "", 404, "d-aaaaaaaaaaaaa"},
		{"limit 0", "GET", "/boxes/" + string(id) + "/events?limit=0", "", 422, "limit"},
		{"series without metrics", "GET", "/boxes/" + string(id) + "/series", "", 422, "metrics"},
		{"series backwards", "GET", "/boxes/" + string(id) + "/series?metrics=a&from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "", 400, "not before"},
		{"series of four years", "GET", "/boxes/" + string(id) + "/series?metrics=a&from=2022-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "", 400, "too long"},
		{"series from nonsense", "GET", "/boxes/" + string(id) + "/series?metrics=a&from=yesterday", "", 422, "from"},
		{"series with too many points", "GET", "/boxes/" + string(id) + "/series?metrics=a&points=2001", "", 422, "points"},
		{"unknown model", "GET", "/models/none", "", 404, "none"},
		{"unknown rollout", "GET", "/rollouts/r-none", "", 404, "r-none"},
		{"action on an unknown rollout", "POST", "/rollouts/r-none/actions", `{"action":"pause"}`, 404, "r-none"},
		{"unknown action", "POST", "/rollouts/r-none/actions", `{"action":"explode"}`, 422, "action"},
		{"plan of nothing", "POST", "/rollouts", `{}`, 400, "exactly one"},
		{"plan of both", "POST", "/rollouts", `{"model":"a:1","release":"1.0.0"}`, 400, "exactly one"},
		{"plan of a model without version", "POST", "/rollouts", `{"model":"a"}`, 400, "NAME:VERSION"},
		{"plan of an unknown model", "POST", "/rollouts", `{"model":"a:1"}`, 404, "a:1"},
		{"plan of an unknown release", "POST", "/rollouts", `{"release":"9.9.9"}`, 404, "9.9.9"},
		{"plan with an unknown key", "POST", "/rollouts", `{"modle":"a:1"}`, 422, "modle"},
		{"plan that is no JSON", "POST", "/rollouts", `{`, 400, ""},
		{"plan that is too long", "POST", "/rollouts", `{"model":"` + long + `"}`, 413, ""},
		{"too many digests", "POST", "/blobs:missing", `{"digests":[` + strings.Repeat(`"",`, maxMissing) + `""]}`, 400, "at most 1000"},
		{"digest of no form", "POST", "/blobs:missing", `{"digests":["md5:1"]}`, 422, "64 lower case"},
		{"blob name of no form", "PUT", "/blobs/xyz", "x", 400, "64 lower case"},
		{"blob with other content", "PUT", "/blobs/" + strings.Repeat("0", 64), "x", 422, "are not sha256:000"},
		{"model that is not signed", "POST", "/models", `{"envelope":"e30="}`, 422, "envelope"},
		{"release that is not signed", "POST", "/releases", `{"envelope":"e30="}`, 422, "envelope"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.ask("owner", c.method, "/api/v1"+c.path, c.body)
			if got.status != c.status {
				t.Fatalf("status %d, want %d: %s", got.status, c.status, got.body)
			}
			got.problem(t)
			if !strings.Contains(got.body, c.says) {
				t.Errorf("the problem does not say %q: %s", c.says, got.body)
			}
		})
	}
}

func TestSeriesShowMeasuredAndComputedMetrics(t *testing.T) {
	w := newWorld(t)
	id := w.box("box-1", "berlin-1", "amd64")
	start := testStart.Add(-10 * time.Minute)
	w.samples(id, 1, start, map[string][]float64{
		"temp_die_celsius": {50, 60, 70, 90}, "temp_inlet_celsius": {20, 20, 20, 20},
		"power_watts": {10, 10, 10, 0.5}, // too little to divide by
	})
	w.results(id, 1, start, 0.1, 0.3, 0.2)
	w.event(id, 1, start.Add(time.Second), wire.EventAlarm, "throttling")
	w.event(id, 2, start.Add(2*time.Second), wire.EventRunning, "serves 1 model")
	got, err := w.client("viewer").Series(t.Context(), id, fleetapi.SeriesQuery{
		Metrics: []string{"temp_die_celsius", metricResistance, metricLatency, "fan_rpm"},
		From:    start.Add(-time.Minute), To: start.Add(time.Minute), Points: 2,
	})
	must(t, err)
	want := []fleetapi.Point{{Min: 50, Median: 65, Max: 90, N: 4}, {Min: 3, Median: 4, Max: 5, N: 3}, {Min: 0.1, Median: 0.2, Max: 0.3, N: 3}}
	for i, p := range want {
		if len(got.Series[i].Points) != 1 {
			t.Fatalf("%s: %d points, want 1", got.Series[i].Metric, len(got.Series[i].Points))
		}
		is := got.Series[i].Points[0]
		p.UnixMs = start.UnixMilli()
		if is != p || got.Series[i].StepSeconds != 60 {
			t.Errorf("%s: %+v every %g s, want %+v every 60 s", got.Series[i].Metric, is, got.Series[i].StepSeconds, p)
		}
	}
	if p := got.Series[3].Points; p == nil || len(p) != 0 {
		t.Errorf("a metric that was never measured has points %v", p)
	}
	if len(got.Marks) != 1 || got.Marks[0].Text != "throttling" {
		t.Errorf("marks %+v, want the alarm alone", got.Marks)
	}
}

func TestBoxTellsItsEventsAndResultsNewestFirst(t *testing.T) {
	w := newWorld(t)
	id := w.box("box-1", "berlin-1", "amd64")
	w.event(id, 1, testStart.Add(-time.Minute), wire.EventStarted, "old")
	w.event(id, 2, testStart, wire.EventStarted, "new")
	w.results(id, 1, testStart.Add(-time.Minute), 0.1, 0.2)
	c := w.client("viewer")
	events, err := c.Events(t.Context(), id, 1)
	must(t, err)
	if len(events.Items) != 1 || events.Items[0].Text != "new" {
		t.Errorf("events %+v", events.Items)
	}
	results, err := c.Results(t.Context(), id, 10)
	must(t, err)
	if len(results.Items) != 2 || results.Items[0].LatencySeconds != 0.2 || results.Items[0].Models == nil {
		t.Errorf("results %+v", results.Items)
	}
	b, err := c.Box(t.Context(), id)
	must(t, err)
	if b.Reads != (fleetapi.Reads{Total: 2, Checked: 2, Right: 2}) {
		t.Errorf("reads %+v", b.Reads)
	}
	s, err := c.Summary(t.Context())
	must(t, err)
	if s.Total != 1 || s.Simulated != 1 || s.Links["live"] != 1 || !s.Development || s.Version != "v1-test" {
		t.Errorf("summary %+v", s)
	}
}

func TestMetricsAreForViewers(t *testing.T) {
	w := newWorld(t)
	if got := w.ask("viewer", "GET", "/metrics", ""); got.status != 200 || got.body != "edgeherd_up 1\n" {
		t.Errorf("%d %s", got.status, got.body)
	}
	if got := w.ask("", "GET", "/metrics", ""); got.status != 401 {
		t.Errorf("without a token: %d %s", got.status, got.body)
	}
}

// FuzzPageToken: whatever comes as a token, the answer is a page or a problem
// of the caller, and a token of ours is read as it was written.
func FuzzPageToken(f *testing.F) {
	boxes := []fleetapi.Box{{ID: "d-aaaaaaaaaaaaa", Name: "a"}, {ID: "d-bbbbbbbbbbbbb", Name: "b"}, {ID: "d-ccccccccccccc", Name: "c"}}
	f.Add(pageToken(queryHash("", ""), boxes[0]), "name", "a", 1.5)
	f.Add("e30", "temp_die desc", "", 0.0)
	f.Fuzz(func(t *testing.T, token, order, name string, temp float64) {
		rest, err := after(boxes, token, queryHash("", ""), order)
		if err != nil && rest != nil || len(rest) > len(boxes) {
			t.Errorf("token %q: %d boxes and error %v", token, len(rest), err)
		}
		if temp != temp || temp-temp != 0 {
			return // JSON has no such numbers, and no box reports them
		}
		name = strings.ToValidUTF8(name, "?")
		b := fleetapi.Box{ID: "d-ddddddddddddd", Name: name, Latest: map[string]fleetapi.Value{"temp_die_celsius": {Value: temp}}}
		if len(name) > 1000 {
			return
		}
		p, err := readToken(pageToken(queryHash("", order), b))
		if err != nil {
			t.Fatalf("own token: %v", err)
		}
		if got := p.box(); got.Name != name || got.Latest["temp_die_celsius"].Value != temp || p.Query != queryHash("", order) {
			t.Errorf("read back %+v", got)
		}
	})
}

// FuzzFilter: no filter makes the API fail, whoever wrote it.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"", `site = "berlin-1"`, `health = "urgent" AND temp_die > 85 AND NOT simulated = "true"`, `model:"vad"`, "temp_die", "a.b.c", `NOT (id != "x" OR temp_die <= 1e9)`, `"x"`, "-temp_die", "site:*"} {
		f.Add(s)
	}
	b := fleetapi.Box{ID: "d-aaaaaaaaaaaaa", Name: "a", Latest: map[string]fleetapi.Value{"temp_die_celsius": {Value: 50}}}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 4096 {
			return // refused before it gets there
		}
		filter, err := registry.ParseFilter(text)
		if err == nil {
			filter.Match(b)
		}
	})
}
