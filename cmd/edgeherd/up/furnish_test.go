package up

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// What boxes run is for people to say once a fleet is in production: the demo's key
// lists nothing there any more.
func TestAFleetInProductionGetsNoDemoModels(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			t.Errorf("%s %s", r.Method, r.URL.Path)
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"development": false, "items": []}`)
	}))
	defer srv.Close()
	f := &Fleet{opts: Options{Data: t.TempDir(), Assets: t.TempDir()}}
	if err := f.pushStarters(t.Context(), fleetapi.New(srv.URL, "", nil)); err != nil {
		t.Errorf("it is not left alone: %v", err)
	}
}
