package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/accept"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/freeport"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// ctrlC ends a context when something is written for the first time.
type ctrlC struct {
	bytes.Buffer
	stop context.CancelFunc
}

func (c *ctrlC) Write(p []byte) (int, error) {
	c.stop()
	return c.Buffer.Write(p)
}

func TestATestThatIsEndedEarlyLeavesASignedReportThatSaysSo(t *testing.T) {
	state := t.TempDir()
	ca, err := identity.OpenCA(t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	at, err := freeport.Address() // where nobody listens
	if err != nil {
		t.Fatal(err)
	}
	box := identity.Box{ID: identity.NewID(), Name: "till-3", Server: "ctl", MQTT: at, HTTPS: at, Keyring: trust.DevelopmentKeyring(key.Public())}
	if err := os.Mkdir(agent.IdentityDir(state), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := identity.Enrol(agent.IdentityDir(state), ca, box); err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	out, said := &ctrlC{stop: stop}, new(bytes.Buffer)
	err = run(ctx, []string{"accept", "--config", config, "--state", state, "--root", t.TempDir(), "--runner", filepath.Join(state, "none.sock"), "-o", "plain", "--by", "kim"}, out, said)
	if !errors.Is(err, errTestAborted) {
		t.Fatalf("%v\n%s%s", err, out.String(), said)
	}
	paths, err := accept.Waiting(state)
	if err != nil || len(paths) != 1 {
		t.Fatalf("%q wait to be sent, %v\n%s", paths, err, out.String())
	}
	data, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	s, err := acceptance.Open(data)
	if err != nil {
		t.Fatal(err)
	}
	if r := s.Report; !r.Aborted || r.Verdict() != acceptance.Aborted || r.Box != box.ID || r.By != "kim" {
		t.Errorf("%+v is %s", r, r.Verdict())
	}
}
