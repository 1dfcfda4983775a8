package controller

import (
	"errors"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// addAdmin makes somebody who can sign in at the controller of opts.
func addAdmin(t *testing.T, opts Options) {
	t.Helper()
	c := mustOpen(t, opts)
	if err := c.store.AddAccount(t.Context(), store.Account{Name: "anna", Role: "admin", Sites: []string{"*"}, Password: "x"}); err != nil {
		t.Fatal(err)
	}
	mustClose(t, c)
}

func TestPagesForOthersNeedAUser(t *testing.T) {
	opts := options(t.TempDir())
	c := mustOpen(t, opts)
	if u, err := c.SetupURL(t.Context()); err != nil || !strings.Contains(u, "/set-password#") {
		t.Errorf("setup at %q, %v", u, err)
	}
	mustClose(t, c)
	open := opts
	open.HTTPPlain, open.HTTP = false, "0.0.0.0:0"
	if _, err := Open(t.Context(), open, quiet); err == nil || !strings.Contains(err.Error(), "setup address") {
		t.Fatalf("opened to others without a user: %v", err)
	}
	addAdmin(t, opts)
	c = mustOpen(t, open)
	defer mustClose(t, c)
	if u, err := c.SetupURL(t.Context()); err != nil || u != "" {
		t.Errorf("setup is offered again: %q, %v", u, err)
	}
}

// T30: what somebody changes in the database is at odds with what the
// controller had signed, also when the chain was made anew.
func TestT30TheHeadIsSignedAndKept(t *testing.T) {
	c := mustOpen(t, options(t.TempDir()))
	defer mustClose(t, c)
	if err := c.sealNow(t.Context()); err != nil {
		t.Fatal(err)
	}
	if all, err := c.store.Seals(t.Context()); err != nil || len(all) != 0 {
		t.Fatalf("an empty log is sealed: %+v, %v", all, err)
	}
	for range 2 {
		if _, err := c.LoginURL(t.Context()); err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second has nothing to do
			if err := c.sealNow(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	all, err := c.store.Seals(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%d seals, %v", len(all), err)
	}
	payload, err := c.Keyring().Open(trust.TypeAudit, all[1].Envelope)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := audit.ParseSeal(payload)
	head, err2 := c.store.AuditHead(t.Context())
	if err := errors.Join(err, err2); err != nil || sealed != head || head.Seq != 2 {
		t.Errorf("sealed %+v, head %+v, %v", sealed, head, err)
	}
}
