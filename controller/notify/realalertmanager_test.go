package notify_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/care"
	"github.com/edgeherd/edgeherd/controller/notify"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

// alertmanagerBin is Debian's.
const alertmanagerBin = "/usr/bin/prometheus-alertmanager"

// TestAlertmanagerHearsOfTicketsAndOfTheirEnd: a ticket stands there once, and
// its receivers hear of no end of what never was.
func TestAlertmanagerHearsOfTicketsAndOfTheirEnd(t *testing.T) {
	if _, err := os.Stat(alertmanagerBin); err != nil {
		assets.Absent(t, err)
	}
	w, r := newWorld(t), newReceiver(t)
	w.now = time.Now() // Alertmanager has a clock of its own
	at := startAlertmanager(t, r.URL)
	s := w.sender(notify.Endpoint{Name: "am", Alertmanager: at}, notify.Endpoint{Name: "urgent", Alertmanager: at, Least: fleetapi.HealthUrgent})
	open := ticket(fleetapi.TicketOpen)
	open.Opened = w.now.Add(-time.Hour)
	part := ticket(fleetapi.TicketOpen) // of another ticket: no alert of its own
	part.ID, part.Cause, part.Within = "T-2", "paste", "T-1"
	w.check(w.store.Care(t.Context(), func(c *store.CareTx) error {
		return errors.Join(c.PutTicket(t.Context(), &open), c.PutTicket(t.Context(), &part))
	}))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }() // it tells of what is open when it starts
	stands := func(want string) {
		t.Helper()
		wait(t, "alerts "+want, func() bool { return strings.Join(alerts(t, at), ", ") == want })
	}
	hears := func(want string) {
		t.Helper()
		wait(t, "the receiver being told: "+want, func() bool { return strings.HasSuffix(r.told(), want) })
	}
	stands("EdgeherdTicket T-1 warning active")
	hears("T-1 warning firing\n")
	cancel()
	w.check(<-done)
	tell := func(endpoint string, was *fleetapi.Ticket, is fleetapi.Ticket) {
		t.Helper()
		w.check(w.store.Care(t.Context(), func(c *store.CareTx) error {
			for _, n := range care.Notices(was, is, w.now, nil) {
				body, _ := json.Marshal(n)
				if err := c.Notify(t.Context(), store.Notice{Endpoint: endpoint, Key: n.Key, DueMs: w.now.UnixMilli(), Body: body}); err != nil {
					return err
				}
			}
			return nil
		}))
		w.now = time.Now()
		w.check(s.Flush(t.Context()))
	}
	raised, other := open, open
	raised.Level, other.ID = fleetapi.HealthUrgent, "T-3"
	tell("am", &open, raised)
	stands("EdgeherdTicket T-1 critical active")
	hears("T-1 critical firing, T-1 warning resolved\n")
	worse := other
	worse.Level = fleetapi.HealthUrgent
	tell("urgent", &other, worse) // which it had not heard of
	hears("T-3 critical firing\n")
	for _, is := range []fleetapi.Ticket{raised, worse} {
		ended := is
		ended.State = fleetapi.TicketVerified
		tell("am", &is, ended)
		hears(is.ID + " critical resolved\n")
	}
	stands("")
}

// told is what an Alertmanager told the receiver.
func (r *receiver) told() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, body := range r.bodies {
		var group struct {
			Alerts []struct {
				Labels map[string]string
				Status string
			}
		}
		json.Unmarshal(body, &group)
		var all []string
		for _, a := range group.Alerts {
			all = append(all, strings.Join([]string{a.Labels["ticket"], a.Labels["severity"], a.Status}, " "))
		}
		b.WriteString(strings.Join(all, ", ") + "\n")
	}
	return b.String()
}

func startAlertmanager(t *testing.T, tells string) string {
	t.Helper()
	dir := t.TempDir()
	config := filepath.Join(dir, "am.yml")
	if err := os.WriteFile(config, fmt.Appendf(nil, `
route: {receiver: r, group_by: [ticket], group_wait: 1ms, group_interval: 1ms}
receivers: [{name: r, webhook_configs: [{url: %q, send_resolved: true}]}]
`, tells), 0o600); err != nil {
		t.Fatal(err)
	}
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(alertmanagerBin, "--config.file="+config, "--storage.path="+dir, "--web.listen-address="+address, "--cluster.listen-address=")
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		if t.Failed() {
			t.Log(said.String())
		}
	})
	wait(t, "Alertmanager to be ready", func() bool {
		res, err := http.Get("http://" + address + "/-/ready")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
	return "http://" + address
}

// alerts are those that stand.
func alerts(t *testing.T, at string) (out []string) {
	t.Helper()
	res, err := http.Get(at + "/api/v2/alerts")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var all []struct {
		Labels map[string]string
		Status struct{ State string }
	}
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		state := a.Status.State
		if state == "unprocessed" {
			state = "active" // it has not been routed yet
		}
		out = append(out, strings.Join([]string{a.Labels["alertname"], a.Labels["ticket"], a.Labels["severity"], state}, " "))
	}
	return out
}
