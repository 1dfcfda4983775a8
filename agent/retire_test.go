package agent

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestARetiredBoxWipesItselfAndSaysSo: also when the power is cut before the
// controller has the receipt, and the fan that stands raised stays known.
func TestARetiredBoxWipesItselfAndSaysSo(t *testing.T) {
	w := newWorld(t)
	w.runner.records = []runnerapi.Result{{Cursor: 5}, {Cursor: 6}}
	a := w.open()
	if _, err := a.spool.Append(spool.Draft{Lane: wire.LaneEvents, Kind: wire.KindEvents, Count: 1, Payload: []byte{1}}); err != nil {
		t.Fatal(err)
	}
	waits := a.spool.Buffer().Blocks
	if err := a.retire(); err == nil || waits == 0 {
		t.Fatalf("retire = %v with %d blocks, want a restart", err, waits)
	}
	if err := a.spool.Close(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"fan.json", "health.json"} {
		if err := os.WriteFile(filepath.Join(w.state, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	away, cancel := context.WithCancel(t.Context())
	opts := Options{State: w.state, Runner: runnerapi.NewClient(w.runner), Version: "1.0.0"}
	opts.Dial = func(context.Context, string, string) (net.Conn, error) {
		cancel() // the power goes while the box looks for the controller
		return nil, net.ErrClosed
	}
	if err := Retire(away, opts, slog.New(slog.DiscardHandler)); err == nil {
		t.Fatal("done without a receipt")
	}
	for _, name := range []string{"spool.db", "blobs", "models", "health.json"} {
		if _, err := os.Stat(filepath.Join(w.state, name)); err == nil {
			t.Errorf("%s is still there", name)
		}
	}

	receipts := make(chan enrol.Receipt, 1)
	opts.Dial = w.controller(t, receipts)
	if err := Retire(t.Context(), opts, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if r := <-receipts; r.DeviceID != w.id || r.Lost != uint64(waits) || len(r.Wiped) != 4 {
		t.Errorf("receipt %+v, want %d lost blocks", r, waits)
	}
	if w.runner.acked != 6 {
		t.Errorf("results up to %d were taken from the runner", w.runner.acked)
	}
	left, err := filepath.Glob(filepath.Join(w.state, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "fan.json" {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := Retire(t.Context(), opts, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("once more: %v", err)
	}
}

// controller takes receipts.
func (w *world) controller(t *testing.T, receipts chan<- enrol.Receipt) func(context.Context, string, string) (net.Conn, error) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		receipt, err := enrol.OpenReceipt(body, r.TLS.PeerCertificates[0].PublicKey)
		if err != nil || r.URL.Path != enrol.PathReceipt {
			t.Errorf("%s: %v", r.URL.Path, err)
		}
		receipts <- receipt
		if err := json.NewEncoder(rw).Encode(enrol.Answer{V: enrol.Version, Code: enrol.Received}); err != nil {
			t.Error(err)
		}
	}))
	cert, err := w.ca.IssueServer([]string{"ctl"})
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = w.ca.ServerTLS(cert, func(identity.ID) error { return nil })
	server.StartTLS()
	t.Cleanup(server.Close)
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, server.Listener.Addr().String())
	}
}
