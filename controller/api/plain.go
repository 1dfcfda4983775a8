package api

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

var (
	errorType  = reflect.TypeFor[fleetapi.Error]()
	changeType = reflect.TypeFor[fleetapi.Change]()
	blobType   = reflect.TypeFor[fleetapi.Blob]()
)

// registerPlain adds the routes that stream, and those that are not JSON.
func (a *API) registerPlain() {
	schemas := a.huma.OpenAPI().Components.Schemas
	events := get("/events", "events", "Changes as server-sent events; the data of each event `change` is a Change", "fleet")
	a.describe(events, http.StatusOK, map[string]*huma.MediaType{"text/event-stream": {Schema: schemas.Schema(changeType, true, "Change")}})
	a.routes.HandleFunc("GET /api/v1/events", a.events)

	put := get("/blobs/{hex}", "putBlob", "Upload a file by its SHA-256", "artefacts")
	put.Method = http.MethodPut
	put.Parameters = []*huma.Param{{Name: "hex", In: "path", Required: true, Schema: &huma.Schema{Type: huma.TypeString, Pattern: "^[0-9a-f]{64}$"}}}
	put.RequestBody = &huma.RequestBody{Required: true, Content: map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}}}
	a.describe(put, http.StatusCreated, map[string]*huma.MediaType{"application/json": {Schema: schemas.Schema(blobType, true, "Blob")}})
	a.routes.HandleFunc("PUT /api/v1/blobs/{hex}", a.putBlob)

	spec := sync.OnceValues(func() ([]byte, error) { return json.Marshal(a.huma.OpenAPI()) })
	a.routes.HandleFunc("GET /api/v1/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		data, err := spec()
		if err != nil {
			a.fail(w, r, err)
			return
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		w.Write(data)
	})
	a.routes.HandleFunc("GET /metrics", a.metrics)
	a.routes.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, fleetapi.Problem(http.StatusNotFound, fmt.Sprintf("there is no route %s %s", r.Method, r.URL.Path), "GET /api/v1/openapi.json lists all routes."))
	})
	a.routes.HandleFunc("/", a.page)
}

// metrics is the fleet in Prometheus' text format 0.0.4: aggregates only, a
// time series per box would be a choice of the fleet's owner.
func (a *API) metrics(w http.ResponseWriter, r *http.Request) {
	stored, err := a.opts.Store.Boxes(r.Context(), 0)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	rollouts, err := a.opts.Store.Rollouts(r.Context())
	if err != nil {
		a.fail(w, r, err)
		return
	}
	now := a.opts.WallClock()
	boxes, waiting := map[string]int{}, int64(0)
	for _, s := range stored {
		b := registry.View(s, now)
		boxes[labels("link", b.Link, "health", b.Health, "update", b.Update)]++
		waiting += b.Buffer.Blocks
	}
	states, targets := map[string]int{}, map[string]int{}
	for _, ro := range rollouts {
		states[labels("state", ro.State)]++
		if ro.State != fleetapi.RolloutRunning && ro.State != fleetapi.RolloutPaused {
			continue
		}
		for _, wave := range ro.Waves {
			for _, t := range wave.Targets {
				targets[labels("rollout", ro.ID, "state", t.State)]++
			}
		}
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	family(w, "edgeherd_boxes", "Boxes by state.", boxes)
	family(w, "edgeherd_buffered_blocks", "Blocks that boxes keep and the controller does not have yet, as boxes last said.", map[string]int{"": int(waiting)})
	family(w, "edgeherd_rollouts", "Rollouts by state.", states)
	family(w, "edgeherd_rollout_boxes", "Boxes of running and paused rollouts by state.", targets)
	family(w, "edgeherd_event_streams", "Open streams of events.", map[string]int{"": a.opts.Hub.count()})
	family(w, "edgeherd_build_info", "Always 1; the labels tell the version.", map[string]int{labels("version", a.opts.Version): 1})
}

// labels joins names and values in turn as {name="value",…}.
func labels(pairs ...any) string {
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
	var parts []string
	for i := 0; i+1 < len(pairs); i += 2 {
		parts = append(parts, fmt.Sprintf(`%s="%s"`, pairs[i], escape.Replace(fmt.Sprint(pairs[i+1]))))
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// family writes one gauge with all its label sets, in a fixed order.
func family(w http.ResponseWriter, name, help string, values map[string]int) {
	fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name)
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, cmp.Compare[string])
	for _, k := range keys {
		fmt.Fprintf(w, "%s%s %d\n", name, k, values[k])
	}
}
