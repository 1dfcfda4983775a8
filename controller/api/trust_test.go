package api

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
	keeper "github.com/edgeherd/edgeherd/controller/trust"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// TestRolesAreToldToWhoeverSeesBoxes: how near their ends are, and of keys no more
// than people are shown of them.
func TestRolesAreToldToWhoeverSeesBoxes(t *testing.T) {
	w := newWorld(t)
	repo := trusttest.New(t, w.clock.Now)
	k := keeper.New(keeper.Options{Store: w.store, Key: repo.Keys["online"][0], WallClock: w.clock.Now}, slog.New(slog.DiscardHandler))
	w.api.opts.Trust = k
	roles := func(viewer string) fleetapi.TrustRoles {
		t.Helper()
		w.grant(viewer, authz.Viewer, "kiel")
		got := w.ask(viewer, "GET", "/api/v1/trust/roles", "")
		if got.status != 200 {
			t.Fatalf("%d: %s", got.status, got.body)
		}
		if strings.Contains(got.body, "ed25519:") {
			t.Errorf("whole keys are in %s", got.body)
		}
		var out fleetapi.TrustRoles
		must(t, json.Unmarshal([]byte(got.body), &out))
		return out
	}
	if got := roles("kiel"); !got.Development || len(got.Items) != 0 {
		t.Errorf("in development: %+v", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got, err := w.api.getTrustRoles(ctx, nil); err == nil {
		t.Errorf("of a store that does not answer is said %+v", got)
	}
	must(t, w.store.ChangeTrust(t.Context(), func([]store.TrustDocument) (out []store.TrustDocument, err error) {
		for name, body := range repo.Files {
			role, _, err := tufrepo.ParseFileName(name)
			must(t, err)
			head, err := tufrepo.ParseHead(body)
			must(t, err)
			out = append(out, store.TrustDocument{Role: role, Version: head.Version, Body: body})
		}
		return out, nil
	}))
	w.clock.add(tufrepo.TargetsLife - tufrepo.WarnBefore(tufrepo.RoleTargets) + 1)
	var said []string
	got := roles("kiel, years later")
	for _, r := range got.Items {
		said = append(said, fmt.Sprintf("%s %s %d of %d, %d signed: %s", r.Role, r.Stage, r.Need, len(r.Keys), len(r.Signed), r.Do))
	}
	want := []string{
		"root good 2 of 3, 2 signed: edgeherd trust renew root --key FILE --key FILE",
		"targets soon 1 of 1, 1 signed: edgeherd trust renew targets --key FILE",
		"models-stable ended 1 of 1, 1 signed: edgeherd trust renew models-stable --key FILE",
		"agent-stable ended 1 of 1, 1 signed: edgeherd trust renew agent-stable --key FILE",
		"snapshot ended 1 of 1, 1 signed: ", "timestamp ended 1 of 1, 1 signed: ",
	}
	if got.Development || strings.Join(said, "\n") != strings.Join(want, "\n") {
		t.Errorf("told\n%s\nwant\n%s", strings.Join(said, "\n"), strings.Join(want, "\n"))
	}
	w.clock.add(tufrepo.WarnBefore(tufrepo.RoleTargets))
	for _, r := range roles("kiel, after the end").Items {
		if r.Role == tufrepo.RoleTargets && (r.Stage != "ended" || r.Do != "edgeherd trust renew targets --key FILE") {
			t.Errorf("targets that ended: %s, to do: %q", r.Stage, r.Do)
		}
	}
}
