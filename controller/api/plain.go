package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"
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

	read := get("/blobs/{hex}", "getBlob", "A file by its SHA-256", "artefacts")
	read.Parameters = put.Parameters
	a.describe(read, http.StatusOK, map[string]*huma.MediaType{"application/octet-stream": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}})
	a.routes.HandleFunc("GET /api/v1/blobs/{hex}", a.getBlob)

	export := get("/bundles:export", "exportBundle", "A tar to be carried to where no network is: signed versions with what boxes check them by", "artefacts")
	for name, what := range map[string]string{"model": "NAME:VERSION, once for each", "release": "version of the agent, once for each",
		"base": "NAME:VERSION that those have whom it is for, once for each", "site": "whose boxes it is for"} {
		export.Parameters = append(export.Parameters, &huma.Param{Name: name, In: "query", Description: what, Schema: &huma.Schema{Type: huma.TypeArray, Items: &huma.Schema{Type: huma.TypeString}}})
	}
	slices.SortFunc(export.Parameters, func(a, b *huma.Param) int { return strings.Compare(a.Name, b.Name) })
	a.describe(export, http.StatusOK, map[string]*huma.MediaType{"application/x-tar": {Schema: &huma.Schema{Type: huma.TypeString, Format: "binary"}}})
	a.routes.HandleFunc("GET /api/v1/bundles:export", a.exportBundle)

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
