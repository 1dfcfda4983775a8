package enrol_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	desk "github.com/edgeherd/edgeherd/controller/enrol"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func pemKey(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func terms(change func(*desk.Terms)) desk.Terms {
	var t desk.Terms
	change(&t)
	return t
}

func TestAMachineBecomesABoxAndALostAnswerIsGivenAgain(t *testing.T) {
	w := newWorld(t, nil)
	tok, m := w.token(desk.Terms{}), w.machine("SN-1")
	status, a := m.enrol(tok)
	if status != http.StatusCreated || a.Code != enrol.Issued || a.Member.Box.Name != "till-3" || a.Member.Box.Site != "hamburg-3" {
		t.Fatalf("%d %+v", status, a)
	}
	again, b := m.enrol(tok)
	if again != http.StatusOK || b.Member == nil || b.Member.Certificate != a.Member.Certificate || b.DeviceID != a.DeviceID {
		t.Errorf("asked again: %d %+v", again, b)
	}
	box := w.boxOf(m.key, m.hw, a)
	leaf := box.id.Certificate.Leaf
	if leaf.Subject.CommonName != string(a.DeviceID) || a.DeviceID == "d-aaaaaaaaaaaaa" || len(leaf.DNSNames) > 0 {
		t.Errorf("the machine chose its own names: %s %v", leaf.Subject, leaf.DNSNames)
	}
	if half := leaf.NotBefore.Add(leaf.NotAfter.Sub(leaf.NotBefore) / 2); !a.Member.RenewAfter.Equal(half) {
		t.Errorf("renew after %s, want %s", a.Member.RenewAfter, half)
	}
	if got := box.state().State; got != store.StateEnrolled {
		t.Errorf("before the first contact it is %s", got)
	}
	if m, err := box.contact(); err != nil || m.State != store.StateActive {
		t.Errorf("first contact: %+v, %v", m, err)
	}
}

// T2: a token from a sticker or a stick is good for one machine, once.
func TestT2OneTokenRacedByFiftyMachines(t *testing.T) {
	w := newWorld(t, nil)
	tok := w.token(desk.Terms{})
	var mu sync.Mutex
	counts, bodies := map[int]int{}, map[enrol.Code]int{}
	var all sync.WaitGroup
	for range 50 {
		m := &machine{w: w, key: newKey(t)}
		all.Go(func() {
			status, a := m.enrol(tok)
			mu.Lock()
			defer mu.Unlock()
			counts[status]++
			bodies[a.Code]++
		})
	}
	all.Wait()
	if counts[http.StatusCreated] != 1 || counts[http.StatusConflict] != 49 || bodies[enrol.TokenUsed] != 49 {
		t.Errorf("statuses %v, codes %v; want one 201 and 49 × 409", counts, bodies)
	}
	boxes, err := w.store.Boxes(t.Context(), 0)
	check(t, err)
	if len(boxes) != 1 {
		t.Errorf("%d boxes", len(boxes))
	}
}

func TestEveryRefusalHasItsCodeAndSentence(t *testing.T) {
	w := newWorld(t, func(o *desk.Options) { o.MinAgent = "1.0.0" })
	used := w.token(desk.Terms{})
	first := w.machine("SN-USED")
	if status, a := first.enrol(used); status != http.StatusCreated {
		t.Fatalf("%d %+v", status, a)
	}
	good := func() enrol.Token { return w.token(desk.Terms{}) }
	foreign := good()
	foreign.Secret = strings.Repeat("A", 32)
	unknown := good()
	unknown.ID = "ZZZZZZZZ"
	expired := w.token(terms(func(k *desk.Terms) { k.TTL = time.Minute }))
	w.pass(3 * time.Hour)
	ended := good()
	check(t, w.store.EndEnrolToken(t.Context(), ended.ID, "withdrawn by ops"))
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	check(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	for _, tc := range []struct {
		name   string
		token  enrol.Token
		change func(*enrol.Request)
		status int
		code   enrol.Code
		says   string
	}{
		{"unknown token", unknown, nil, 401, enrol.TokenUnknown, "Copy it again"},
		{"wrong secret", foreign, nil, 401, enrol.TokenUnknown, "Copy it again"},
		{"expired", expired, nil, 403, enrol.TokenExpired, "expired 2 h ago"},
		{"withdrawn", ended, nil, 403, enrol.TokenExpired, "withdrawn by ops"},
		{"used by another key", used, nil, 409, enrol.TokenUsed, "SN-USED"},
		{"another network", w.token(terms(func(k *desk.Terms) { k.Networks = []string{"10.0.0.0/8"} })), nil, 403, enrol.TokenSite, "127.0.0.1"},
		{"another machine", w.token(terms(func(k *desk.Terms) { k.Serial = "SN-OTHER" })), nil, 403, enrol.TokenSite, "SN-OTHER"},
		{"no CSR", good(), func(q *enrol.Request) { q.CSR = []byte("x") }, 422, enrol.BadCSR, ""},
		{"P-384", good(), func(q *enrol.Request) { q.CSR = csrOf(t, p384, "") }, 422, enrol.BadKeyType, "P-256"},
		{"Ed25519", good(), func(q *enrol.Request) { q.CSR = csrOf(t, ed, "") }, 422, enrol.BadKeyType, "P-256"},
		{"a key used before", good(), func(q *enrol.Request) { q.CSR = csrOf(t, first.key, "") }, 409, enrol.IdentityConflict, "copied"},
		{"T4: known serial", good(), func(q *enrol.Request) { q.Hardware = first.hw }, 409, enrol.HardwareKnown, "till-3"},
		{"old agent", good(), func(q *enrol.Request) { q.Agent.Version = "0.9.1" }, 426, enrol.AgentTooOld, "1.0.0"},
		{"another version", good(), func(q *enrol.Request) { q.V = 2 }, 400, enrol.BadRequest, "version 2"},
		{"a long word", good(), func(q *enrol.Request) { q.Hardware.Model = strings.Repeat("x", 200) }, 400, enrol.BadRequest, "200 bytes"},
		{"no TPM in tpm", good(), func(q *enrol.Request) { q.TPM = &enrol.TPM{EKPublic: []byte("x"), KeyPublic: []byte("y")} }, 422, enrol.BadTPM, ""},
	} {
		q := w.machine("SN-NEW").request(tc.token)
		if tc.change != nil {
			tc.change(&q)
		}
		status, a := w.post(tc.token, q)
		if status != tc.status || a.Code != tc.code || !strings.Contains(a.Detail, tc.says) || a.Member != nil {
			t.Errorf("%s: %d %s %q, want %d %s with %q", tc.name, status, a.Code, a.Detail, tc.status, tc.code, tc.says)
		}
	}
	boxes, err := w.store.Boxes(t.Context(), 0)
	check(t, err)
	if len(boxes) != 1 {
		t.Errorf("%d boxes: something is half enrolled", len(boxes))
	}
	// Whatever is no request at all.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: used.ClientTLS(w.now)}}
	defer client.CloseIdleConnections()
	for _, body := range []string{"", "{", "[]", `{"v":1}{"v":1}`, strings.Repeat(" ", enrol.MaxBytes+1)} {
		status, a := w.answer(client.Post("https://"+w.pages+enrol.PathRequests, "application/json", strings.NewReader(body)))
		if status != http.StatusBadRequest || a.Code != enrol.BadRequest {
			t.Errorf("%.20q: %d %s", body, status, a.Code)
		}
	}
}

func TestSerialNumbersThatMakersForgotTellNothing(t *testing.T) {
	w := newWorld(t, nil)
	for _, junk := range []string{"To Be Filled By O.E.M.", "Default string", "0000000", ""} {
		for range 2 {
			m := w.machine(junk)
			if status, a := m.enrol(w.token(desk.Terms{})); status != http.StatusCreated {
				t.Errorf("serial %q: %d %+v", junk, status, a)
			}
		}
	}
}

func TestAPersonAgreesOrNot(t *testing.T) {
	w := newWorld(t, nil)
	tok := w.token(terms(func(k *desk.Terms) { k.Uses = 2 }))
	yes, no, late := w.machine("SN-1"), w.machine("SN-2"), w.machine("SN-3")
	status, a := yes.enrol(tok)
	if status != http.StatusAccepted || a.Code != enrol.Pending || a.PollSeconds < 1 || len(a.ShortCode) != 7 || a.Member != nil {
		t.Fatalf("%d %+v", status, a)
	}
	contains(t, "pending", a.Detail, a.ShortCode)
	_, b := no.enrol(tok)
	// Both uses are held.
	if status, c := late.enrol(tok); status != http.StatusConflict || c.Code != enrol.TokenUsed {
		t.Errorf("a third machine: %d %+v", status, c)
	}
	for word, agree := range map[string]bool{a.ShortCode: true, b.ShortCode: false} {
		r, err := w.store.FindEnrol(t.Context(), word)
		check(t, err)
		_, err = w.store.DecideEnrol(t.Context(), r.Key, agree, "olga", "")
		check(t, err)
	}
	if status, a := yes.enrol(tok); status != http.StatusCreated || a.Code != enrol.Issued {
		t.Errorf("agreed: %d %+v", status, a)
	}
	status, a = no.enrol(tok)
	if status != http.StatusForbidden || a.Code != enrol.Denied {
		t.Errorf("denied: %d %+v", status, a)
	}
	contains(t, "denied", a.Detail, "olga")
	// The use of the one who was denied is free again.
	if status, a := late.enrol(tok); status != http.StatusAccepted {
		t.Errorf("after a denial: %d %+v", status, a)
	}
}

func TestATokenForManyEndsAfterFiveRefusals(t *testing.T) {
	w := newWorld(t, nil)
	known := w.box("SN-1001")
	tok := w.token(terms(func(k *desk.Terms) { k.Uses = 40 }))
	for range 5 {
		m := w.machine("SN-1")
		m.hw = known.hw
		if status, a := m.enrol(tok); a.Code != enrol.HardwareKnown {
			t.Fatalf("%d %+v", status, a)
		}
	}
	if _, a := w.machine("SN-9").enrol(tok); a.Code != enrol.TokenExpired {
		t.Errorf("got %+v", a)
	}
}

func TestRulesLetInWhomTheyName(t *testing.T) {
	w := newWorld(t, nil)
	tok := w.token(terms(func(k *desk.Terms) {
		k.Uses, k.Rules.Serials = 3, []string{"sn 77"}
	}))
	if status, a := w.machine("SN-77").enrol(tok); status != http.StatusCreated {
		t.Errorf("on the list: %d %+v", status, a)
	}
	if status, a := w.machine("SN-78").enrol(tok); status != http.StatusAccepted {
		t.Errorf("not on the list: %d %+v", status, a)
	}
}

func TestTokensThatWouldLetAnybodyInAreNotMade(t *testing.T) {
	w := newWorld(t, nil)
	for name, change := range map[string]func(*desk.Terms){
		"no site":         func(k *desk.Terms) { k.Site = "" },
		"auto for many":   func(k *desk.Terms) { k.Site, k.Uses, k.Approve = "x", 2, desk.ApproveAuto },
		"rules unused":    func(k *desk.Terms) { k.Site, k.Approve, k.Rules.Serials = "x", desk.ApproveManual, []string{"7"} },
		"no rule":         func(k *desk.Terms) { k.Site, k.Approve = "x", desk.ApproveRules },
		"for a year":      func(k *desk.Terms) { k.Site, k.TTL = "x", 365*24*time.Hour },
		"no network":      func(k *desk.Terms) { k.Site, k.Networks = "x", []string{"10.0.0.1"} },
		"another word":    func(k *desk.Terms) { k.Site, k.Approve = "x", "maybe" },
		"negative uses":   func(k *desk.Terms) { k.Site, k.Uses = "x", -1 },
		"two for one box": func(k *desk.Terms) { k.Box, k.Uses, k.Approve = "d-aaaaaaaaaaaaa", 2, desk.ApproveManual },
	} {
		if _, _, err := w.desk.Mint(t.Context(), enrol.Token{Host: "a", Port: 1}, terms(change)); !errors.Is(err, desk.ErrTerms) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// T7: a proxy that breaks TLS open learns nothing.
func TestT7NothingSecretReachesAnEvilCA(t *testing.T) {
	w := newWorld(t, nil)
	evil, err := identity.OpenCA(t.TempDir(), w.now)
	check(t, err)
	cert, err := evil.IssueServer([]string{"127.0.0.1"})
	check(t, err)
	cert.Certificate = append(cert.Certificate, w.ca.Roots()[0].Raw) // it knows our root, which is public
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer l.Close()
	heard := make(chan []byte, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			heard <- nil
			return
		}
		defer conn.Close()
		data, _ := io.ReadAll(tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}}))
		heard <- data
	}()
	tok := w.token(desk.Terms{})
	tok.Port = portOf(t, l.Addr().String())
	body, err := json.Marshal(w.machine("SN-1").request(tok))
	check(t, err)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tok.ClientTLS(w.now)}}
	defer client.CloseIdleConnections()
	resp, err := client.Post("https://"+tok.Address()+enrol.PathRequests, "application/json", bytes.NewReader(body))
	if err == nil {
		resp.Body.Close()
	}
	if !errors.Is(err, enrol.ErrPin) {
		t.Errorf("got %v, want %v", err, enrol.ErrPin)
	}
	if data := <-heard; len(data) != 0 {
		t.Errorf("%d bytes were sent", len(data))
	}
}

func TestAFloodOfRequestsIsTurnedAway(t *testing.T) {
	w := newWorld(t, func(o *desk.Options) { o.Rate = 5 })
	tok := w.token(desk.Terms{})
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: tok.ClientTLS(w.now)}}
	defer client.CloseIdleConnections()
	busy := 0
	for range 30 {
		status, a := w.answer(client.Post("https://"+w.pages+enrol.PathRequests, "application/json", strings.NewReader("{")))
		if status == http.StatusTooManyRequests && a.Code == enrol.Busy && a.RetrySeconds > 0 {
			busy++
		}
	}
	if busy == 0 {
		t.Error("nobody was turned away")
	}
}

func TestAMachineWithoutANetworkEnrolsByFiles(t *testing.T) {
	w := newWorld(t, nil)
	tok, m := w.token(terms(func(k *desk.Terms) { k.Approve = desk.ApproveManual })), w.machine("SN-1")
	file, err := enrol.RequestFile(m.request(tok), tok, m.key)
	check(t, err)
	out, a, err := w.desk.SignFile(t.Context(), file, "olga", w.server)
	if err != nil || a.Code != enrol.Issued {
		t.Fatalf("%+v, %v", a, err)
	}
	answer, err := tok.OpenAnswer(out, time.Unix(0, 0))
	check(t, err)
	if _, err := w.boxOf(m.key, m.hw, answer).contact(); err != nil {
		t.Error(err)
	}
	// Signed again after the stick was lost: the same.
	if _, again, err := w.desk.SignFile(t.Context(), file, "olga", w.server); err != nil || again.Member.Certificate != a.Member.Certificate {
		t.Errorf("signed again: %+v, %v", again, err)
	}
	forged := tok
	forged.Secret = strings.Repeat("A", 32)
	file, err = enrol.RequestFile(w.machine("SN-2").request(forged), forged, newKey(t))
	check(t, err)
	if _, _, err := w.desk.SignFile(t.Context(), file, "olga", w.server); !desk.Unusable(err) {
		t.Errorf("a forged file: %v", err)
	}
	if _, _, err := w.desk.SignFile(context.Background(), []byte("junk"), "olga", w.server); !desk.Unusable(err) {
		t.Errorf("junk: %v", err)
	}
}

func TestTheRecordOfATokenNamesIt(t *testing.T) {
	w := newWorld(t, nil)
	_, row, err := w.desk.Mint(audit.With(t.Context(), &audit.Draft{Actor: "olga", Verb: "enrol.token", Object: "the route"}),
		enrol.Token{Host: "127.0.0.1", Port: 1}, desk.Terms{TokenTerms: store.TokenTerms{Site: "a"}})
	check(t, err)
	lines, err := w.store.AuditNewest(t.Context(), store.AuditQuery{Limit: 1})
	check(t, err)
	if len(lines) != 1 || !bytes.Contains(lines[0], []byte(`"token `+row.ID+`"`)) {
		t.Errorf("recorded: %s", lines)
	}
}
