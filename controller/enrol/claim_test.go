package enrol_test

import (
	"testing"
	"time"

	desk "github.com/edgeherd/edgeherd/controller/enrol"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
)

// TestAClaimedMachineComesIntoThePlaceThatWasChosen: with its name and history,
// and the machine that stood there is out.
func TestAClaimedMachineComesIntoThePlaceThatWasChosen(t *testing.T) {
	w := newWorld(t, nil)
	old := w.box("sn-old")
	tok := w.token(desk.Terms{TTL: time.Hour, TokenTerms: store.TokenTerms{Site: "hamburg-3", Uses: 5}})
	m := w.machine("sn-new")
	status, a := m.enrol(tok)
	if status != 202 || a.Code != enrol.Pending {
		t.Fatalf("%d %+v", status, a)
	}
	_, err := w.store.ClaimMachine(t.Context(), store.EnrolClaim{ID: "c", Token: tok.ID, Code: a.ShortCode, By: "tom", Where: "north wall", Box: old.id.Box.ID})
	check(t, err)
	status, a = m.enrol(tok)
	if status != 201 || a.DeviceID != old.id.Box.ID || a.Member.Box.Name != old.id.Box.Name {
		t.Fatalf("%d %+v", status, a)
	}
	if st := old.state(); st.Generation != 2 {
		t.Errorf("the place has seen %d machines", st.Generation)
	}
	if _, err := old.contact(); err == nil {
		t.Error("the machine that stood there is still let in")
	}
	// A place that was retired between claim and coming takes nobody.
	other := w.machine("sn-late")
	_, a = other.enrol(tok)
	_, err = w.store.ClaimMachine(t.Context(), store.EnrolClaim{ID: "d", Token: tok.ID, Code: a.ShortCode, By: "tom", Box: old.id.Box.ID})
	check(t, err)
	_, err = w.store.ChangeStanding(t.Context(), store.Change{Box: old.id.Box.ID, From: []store.State{store.StateActive, store.StateEnrolled}, To: store.StateRetired, By: "ops", Why: "sold"})
	check(t, err)
	if status, a = other.enrol(tok); status != 403 || a.Code != enrol.TokenExpired {
		t.Errorf("into a retired place: %d %+v", status, a)
	}
}
