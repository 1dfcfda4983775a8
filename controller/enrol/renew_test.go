package enrol_test

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	desk "github.com/edgeherd/edgeherd/controller/enrol"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
)

const day = 24 * time.Hour

// active is a box that was seen once.
func (w *world) active(serial string) *box {
	w.t.Helper()
	b := w.box(serial)
	_, err := b.contact()
	check(w.t, err)
	return b
}

func TestARenewalIsPendingUntilItIsUsed(t *testing.T) {
	w := newWorld(t, nil)
	old := w.active("SN-1001")
	w.pass(15 * day)
	key := newKey(t)
	status, a := old.renew(key, 1)
	if status != http.StatusCreated || a.Code != enrol.Issued {
		t.Fatalf("%d %+v", status, a)
	}
	// The answer was lost: the same again, and the certificate of now is good.
	if status, b := old.renew(key, 1); status != http.StatusOK || b.Member.Certificate != a.Member.Certificate {
		t.Errorf("asked again: %d %+v", status, b)
	}
	if m, err := old.contact(); err != nil || m.State != store.StateActive {
		t.Errorf("the old certificate: %+v, %v", m, err)
	}
	next := old.take(a, key)
	if m, err := next.contact(); err != nil || m.State != store.StateActive {
		t.Errorf("the new certificate: %+v, %v", m, err)
	}
	certs, err := w.store.Certs(t.Context(), old.id.ID)
	check(t, err)
	if len(certs) != 2 {
		t.Errorf("%d certificates", len(certs))
	}
}

// A key that lives in a TPM stays; its certificate changes.
func TestTheSameKeyRenews(t *testing.T) {
	w := newWorld(t, nil)
	b := w.active("SN-1001")
	for range 3 {
		w.pass(15 * day)
		status, a := b.renew(b.key, 0)
		if status != http.StatusCreated {
			t.Fatalf("%d %+v", status, a)
		}
		b = b.take(a, b.key)
		if m, err := b.contact(); err != nil || m.State != store.StateActive {
			t.Fatalf("%+v, %v", m, err)
		}
	}
}

func TestABoxThatSleptRenewsWithAnEndedCertificate(t *testing.T) {
	w := newWorld(t, nil)
	b, late := w.active("SN-1001"), w.active("SN-1002")
	w.pass(200 * day)
	key := newKey(t)
	status, a := b.renew(key, 0)
	if status != http.StatusCreated {
		t.Fatalf("%d %+v", status, a)
	}
	if m, err := b.take(a, key).contact(); err != nil || m.State != store.StateActive {
		t.Errorf("%+v, %v", m, err)
	}
	w.pass(300 * day)
	if status, a := late.renew(newKey(t), 0); status != http.StatusForbidden || a.Code != enrol.Denied {
		t.Errorf("after more than a year: %d %+v", status, a)
	}
}

// T23: two machines from one disk. Whichever renews second is told, and both
// wait for a person; what they tell is kept.
func TestT23ACopiedDiskIsFoundOutByTheFirstRenewal(t *testing.T) {
	w := newWorld(t, nil)
	b := w.active("SN-1001")
	twin := *b
	w.pass(15 * day)
	key := newKey(t)
	_, a := b.renew(key, 7)
	first := b.take(a, key)
	if _, err := first.contact(); err != nil {
		t.Fatal(err)
	}
	status, a := twin.renew(newKey(t), 7)
	if status != http.StatusConflict || a.Code != enrol.IdentityFork || a.Member != nil {
		t.Fatalf("the twin: %d %+v", status, a)
	}
	m := b.state()
	if m.State != store.StateQuarantined {
		t.Fatalf("it is %s", m.State)
	}
	contains(t, "why", m.Why, "127.0.0.1", "copied")
	for name, one := range map[string]*box{"first": first, "twin": &twin} {
		if m, err := one.contact(); err != nil || m.State != store.StateQuarantined {
			t.Errorf("%s may not tell: %+v, %v", name, m, err)
		}
		if status, a := one.call(http.MethodPost, enrol.PathState, []byte(`{"v":1}`)); status != http.StatusOK || a.Code != enrol.Quarantined {
			t.Errorf("%s asks how it stands: %d %+v", name, status, a)
		}
	}
	// A person looked: the one that was seen last is it.
	_, err := w.store.ChangeStanding(t.Context(), store.Change{Box: b.id.ID, From: []store.State{store.StateQuarantined}, To: store.StateActive, Why: "it is the one on the wall", By: "olga"})
	check(t, err)
	if m, err := first.contact(); err != nil || m.State != store.StateActive {
		t.Errorf("after release: %+v, %v", m, err)
	}
	if _, err := twin.contact(); err == nil {
		t.Error("the copy is still let in")
	}
	if status, a := twin.renew(newKey(t), 8); status != http.StatusConflict || a.Code != enrol.IdentityFork {
		t.Errorf("the copy renews: %d %+v", status, a)
	}
	if m := b.state(); m.State != store.StateActive {
		t.Errorf("a copy that was dealt with brings the box back into quarantine: %s", m.Why)
	}
}

func TestTwinsThatRenewAtOnceAreFoundOutByTheSecondUse(t *testing.T) {
	w := newWorld(t, nil)
	b := w.active("SN-1001")
	w.pass(15 * day)
	mine, other := newKey(t), newKey(t)
	_, a := b.renew(mine, 0)
	_, c := b.renew(other, 0) // nobody can tell yet: the first key may be lost
	if m, err := b.take(c, other).contact(); err != nil || m.State != store.StateActive {
		t.Fatalf("%+v, %v", m, err)
	}
	w.pass(2 * time.Minute)
	if m, err := b.take(a, mine).contact(); err != nil || m.State != store.StateQuarantined {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestSignsOfAnotherMachineMeanQuarantine(t *testing.T) {
	for name, tc := range map[string]struct {
		fence  uint64
		change func(*enrol.Hardware)
		want   store.State
		why    string
	}{
		"a repair":       {10, func(h *enrol.Hardware) { h.DiskSerial = "disk-new" }, store.StateActive, ""},
		"another board":  {10, func(h *enrol.Hardware) { h.BoardSerial, h.MACs = "SN-9999", []string{"02:ff"} }, store.StateQuarantined, "board serial number"},
		"an old disk":    {3, func(*enrol.Hardware) {}, store.StateQuarantined, "start 3"},
		"no fence today": {0, func(*enrol.Hardware) {}, store.StateActive, ""},
	} {
		w := newWorld(t, nil)
		b := w.active("SN-1001")
		key := newKey(t)
		_, a := b.renew(key, 9)
		b = b.take(a, key)
		tc.change(&b.hw)
		// The first question of how it stands tells of the machine already.
		body, err := json.Marshal(enrol.Renewal{V: enrol.Version, Hardware: b.hw, Fence: tc.fence})
		check(t, err)
		want := enrol.Active
		if tc.want == store.StateQuarantined && tc.fence > 9 {
			want = enrol.Quarantined
		}
		if status, a := b.call(http.MethodPost, enrol.PathState, body); status != http.StatusOK || a.Code != want {
			t.Errorf("%s: it is told %d %+v, want %s", name, status, a, want)
		}
		if status, a := b.renew(newKey(t), tc.fence); status != http.StatusCreated {
			t.Errorf("%s: %d %+v", name, status, a)
		}
		m := b.state()
		if m.State != tc.want {
			t.Errorf("%s: %s, want %s", name, m.State, tc.want)
		}
		contains(t, name, m.Why, tc.why)
		if tc.why == "" {
			continue
		}
		// Who releases it decides that this is the machine from now on.
		_, err = w.store.ChangeStanding(t.Context(), store.Change{Box: b.id.ID, To: store.StateActive, Why: "the board was replaced", By: "olga"})
		check(t, err)
		for range 2 {
			if _, a := b.call(http.MethodPost, enrol.PathState, body); a.Code != enrol.Active {
				t.Errorf("%s: after its release %+v", name, a)
			}
		}
		if status, _ := b.renew(newKey(t), tc.fence); status == http.StatusConflict || b.state().State != store.StateActive {
			t.Errorf("%s: after its release it renews: %d, %+v", name, status, b.state())
		}
	}
}

func TestARetiredBoxWipesItselfAndLeavesAReceipt(t *testing.T) {
	w := newWorld(t, nil)
	b := w.active("SN-1001")
	receipt, err := enrol.SignReceipt(enrol.Receipt{DeviceID: b.id.ID, Wiped: []string{"spool", "models"}, Lost: 4}, b.key)
	check(t, err)
	if status, a := b.call(http.MethodPost, enrol.PathReceipt, receipt); status != http.StatusBadRequest {
		t.Errorf("a receipt of an active box: %d %+v", status, a)
	}
	_, err = w.store.ChangeStanding(t.Context(), store.Change{Box: b.id.ID, To: store.StateRetired, Why: "sold", By: "olga"})
	check(t, err)
	if _, err := b.contact(); err == nil {
		t.Error("a retired box is let in")
	}
	if status, a := b.call(http.MethodPost, enrol.PathState, []byte(`{"v":1}`)); status != http.StatusOK || a.Code != enrol.Retired {
		t.Errorf("state: %d %+v", status, a)
	}
	if status, a := b.renew(newKey(t), 0); status != http.StatusOK || a.Code != enrol.Retired || a.Member != nil {
		t.Errorf("renewal: %d %+v", status, a)
	}
	other, err := enrol.SignReceipt(enrol.Receipt{DeviceID: b.id.ID}, newKey(t))
	check(t, err)
	if status, _ := b.call(http.MethodPost, enrol.PathReceipt, other); status != http.StatusBadRequest {
		t.Errorf("a receipt that somebody else signed: %d", status)
	}
	for range 2 { // the answer to the first may be lost
		if status, a := b.call(http.MethodPost, enrol.PathReceipt, receipt); status != http.StatusOK || a.Code != enrol.Received {
			t.Errorf("receipt: %d %+v", status, a)
		}
	}
	events, err := w.store.IdentityEvents(t.Context(), b.id.ID)
	check(t, err)
	contains(t, "history", events[0].Text, "spool", "4 blocks")
}

// T4: the machine that was replaced, or one that says to be it, is not the box.
func TestT4AReplacementShutsTheMachineOfBeforeOut(t *testing.T) {
	w := newWorld(t, nil)
	was := w.active("SN-1001")
	tok := w.token(terms(func(k *desk.Terms) { k.Box = was.id.ID }))
	if _, err := was.contact(); err != nil {
		t.Errorf("shut out when the token was made: %v", err)
	}
	// A machine with the same serial number and another key, with any token.
	thief := w.machine("SN-1001")
	thief.hw = was.hw
	if status, a := thief.enrol(w.token(desk.Terms{})); status != http.StatusConflict || a.Code != enrol.HardwareKnown || a.DeviceID != was.id.ID {
		t.Errorf("same serial, other key: %d %+v", status, a)
	}
	m := w.machine("SN-1002")
	status, a := m.enrol(tok)
	if status != http.StatusCreated || a.DeviceID != was.id.ID {
		t.Fatalf("%d %+v", status, a)
	}
	if _, err := was.contact(); err == nil {
		t.Error("the machine of before is still let in")
	}
	if status, a := was.renew(newKey(t), 0); status != http.StatusConflict || a.Code != enrol.IdentityFork {
		t.Errorf("the machine of before renews: %d %+v", status, a)
	}
	if m, err := w.boxOf(m.key, m.hw, a).contact(); err != nil || m.Generation != 2 || m.State != store.StateActive {
		t.Errorf("%+v, %v", m, err)
	}
	// Its old serial number is free for a place of its own.
	again := w.machine("SN-1001")
	if status, a := again.enrol(w.token(desk.Terms{})); status != http.StatusCreated {
		t.Errorf("the old machine elsewhere: %d %+v", status, a)
	}
}
