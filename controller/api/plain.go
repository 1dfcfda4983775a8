package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"sync"

	"github.com/danielgtaylor/huma/v2"

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
	a.routes.HandleFunc("GET /metrics", a.opts.Metrics.ServeHTTP)
	a.routes.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		a.fail(w, r, fleetapi.Problem(http.StatusNotFound, fmt.Sprintf("there is no route %s %s", r.Method, r.URL.Path), "GET /api/v1/openapi.json lists all routes."))
	})
	a.routes.HandleFunc("/", a.page)
}
