package controller

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/enrol"
	"github.com/edgeherd/edgeherd/controller/store"
	contract "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// join makes a machine a box, as an agent does.
func join(t *testing.T, c *Controller, terms enrol.Terms, serial string) *identity.Identity {
	t.Helper()
	base, err := c.TokenBase()
	must(t, err)
	token, _, err := c.members.Mint(t.Context(), base, terms)
	must(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	must(t, err)
	body, err := json.Marshal(contract.Request{V: contract.Version, TokenID: token.ID, Secret: token.Secret, CSR: csr, Hardware: contract.Hardware{BoardSerial: serial}})
	must(t, err)
	status, text := ask(t, token.ClientTLS(nil), http.MethodPost, "https://"+token.Address()+contract.PathRequests, body)
	a, err := contract.ReadAnswer(bytes.NewReader(text))
	if err != nil || status != http.StatusCreated {
		t.Fatalf("%d %s: %v", status, text, err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	pair, err := tls.X509KeyPair([]byte(a.Member.Certificate), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	must(t, err)
	id := &identity.Identity{Box: a.Member.Box, Certificate: pair, Roots: x509.NewCertPool()}
	id.Roots.AppendCertsFromPEM([]byte(a.Member.Authorities))
	return id
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ask(t *testing.T, conf *tls.Config, method, url string, body []byte) (int, []byte) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: conf}, Timeout: 5 * time.Minute}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	must(t, err)
	resp, err := client.Do(req)
	if err != nil {
		return 0, []byte(err.Error())
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, text
}

// session opens an MQTT session; its connection is returned after CONNACK.
func session(t *testing.T, id *identity.Identity) (net.Conn, error) {
	t.Helper()
	conn, err := tls.Dial("tcp", id.MQTT, id.ClientTLS(nil))
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	must(t, conn.SetDeadline(time.Now().Add(5*time.Minute)))
	if _, err := conn.Write(connect(string(id.ID) + ":0000000000000001")); err != nil {
		return nil, err
	}
	ack := make([]byte, 4)
	if _, err := io.ReadFull(conn, ack); err != nil {
		return nil, err
	}
	if ack[0] != 0x20 || ack[3] != 0 {
		t.Fatalf("CONNACK % x", ack)
	}
	return conn, nil
}

func change(t *testing.T, c *Controller, id identity.ID, to store.State, why string) {
	t.Helper()
	_, err := c.store.ChangeStanding(t.Context(), store.Change{Box: id, To: to, Why: why, By: "olga"})
	must(t, err)
	c.memberChanged(id)
}

// T22: a box that was revoked is out at once: its session, its files, its
// renewals, and every way back in.
func TestT22ARevokedBoxIsOutAtOnce(t *testing.T) {
	c, _ := served(t)
	id := join(t, c, enrol.Terms{TokenTerms: store.TokenTerms{Site: "hamburg-3"}}, "SN-1001")
	if m, err := c.store.Membership(t.Context(), id.ID); err != nil || m.State != store.StateEnrolled {
		t.Fatalf("%+v, %v", m, err)
	}
	conn, err := session(t, id)
	must(t, err)
	if m, err := c.store.Membership(t.Context(), id.ID); err != nil || m.State != store.StateActive {
		t.Errorf("after its first contact: %+v, %v", m, err)
	}
	const blob = "/device/v1/blobs/0000000000000000000000000000000000000000000000000000000000000000"
	if status, text := ask(t, id.ClientTLS(nil), http.MethodGet, "https://"+id.HTTPS+blob, nil); status == http.StatusForbidden || status == 0 {
		t.Errorf("files of an active box: %d %s", status, text)
	}

	change(t, c, id.ID, store.StateQuarantined, "two of it")
	if status, text := ask(t, id.ClientTLS(nil), http.MethodGet, "https://"+id.HTTPS+blob, nil); status != http.StatusForbidden || !strings.Contains(string(text), "quarantine") {
		t.Errorf("files in quarantine: %d %s", status, text)
	}
	if held, err := c.withheld(id.ID); err != nil || !held {
		t.Errorf("it is told what to run: %v", err)
	}
	if n := len(c.broker.Sessions(id.ID)); n != 1 {
		t.Errorf("%d sessions: what it tells is to be kept", n)
	}
	if status, text := ask(t, id.RenewTLS(nil), http.MethodPost, "https://"+id.Pages+contract.PathState, []byte(`{"v":1}`)); status != http.StatusOK || !strings.Contains(string(text), `"quarantined"`) {
		t.Errorf("state: %d %s", status, text)
	}

	began := time.Now()
	change(t, c, id.ID, store.StateRevoked, "stolen")
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("the session lives on")
	}
	t.Logf("its session ended after %s; 2 s are promised", time.Since(began))
	listed(t, c, id) // for a broker of others
	if _, err := session(t, id); err == nil {
		t.Error("it is back in")
	}
	if status, _ := ask(t, id.PagesTLS(nil), http.MethodGet, "https://"+id.Pages+blob, nil); status == http.StatusOK {
		t.Error("files by the pages' port")
	}
	for _, at := range []string{id.HTTPS, id.Pages} {
		if status, text := ask(t, id.RenewTLS(nil), http.MethodPost, "https://"+at+contract.PathState, []byte(`{"v":1}`)); status != http.StatusForbidden || !strings.Contains(string(text), `"revoked"`) {
			t.Errorf("state: %d %s", status, text)
		}
		if status, text := ask(t, id.RenewTLS(nil), http.MethodGet, "https://"+at+blob, nil); status != http.StatusForbidden {
			t.Errorf("files on a connection to renew: %d %s", status, text)
		}
	}
}

// listed waits until the controller's list of revoked certificates has the box's.
func listed(t *testing.T, c *Controller, id *identity.Identity) {
	t.Helper()
	tick, file := time.NewTicker(50*time.Millisecond), filepath.Join(c.opts.Dir, "ca", identity.ListName)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Minute); time.Now().Before(end); <-tick.C {
		text, err := os.ReadFile(file)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		must(t, err)
		block, _ := pem.Decode(text)
		list, err := x509.ParseRevocationList(block.Bytes)
		must(t, err)
		for _, r := range list.RevokedCertificateEntries {
			if r.SerialNumber.Cmp(id.Certificate.Leaf.SerialNumber) == 0 {
				return
			}
		}
	}
	t.Error("the certificate of a box that was revoked is not on the list")
}

// A machine that takes a place has its name, and the one before is out.
func TestAReplacementInheritsThePlace(t *testing.T) {
	c, _ := served(t)
	was := join(t, c, enrol.Terms{TokenTerms: store.TokenTerms{Site: "hamburg-3", Labels: map[string]string{"line": "a"}}}, "SN-1001")
	old, err := session(t, was)
	must(t, err)
	is := join(t, c, enrol.Terms{TokenTerms: store.TokenTerms{Box: was.ID}}, "SN-1002")
	if is.ID != was.ID || is.Name != was.Name || is.Site != "hamburg-3" {
		t.Errorf("it is %+v", is.Box)
	}
	if _, err := old.Read(make([]byte, 1)); err == nil {
		t.Error("the machine of before keeps its session")
	}
	if _, err := session(t, was); err == nil {
		t.Error("the machine of before comes back")
	}
	if _, err := session(t, is); err != nil {
		t.Error(err)
	}
	m, err := c.store.Membership(t.Context(), is.ID)
	if err != nil || m.State != store.StateActive || m.Generation != 2 || m.Hardware.BoardSerial != "SN-1002" || m.Labels["line"] != "a" {
		t.Errorf("%+v, %v", m, err)
	}
	again := join(t, c, enrol.Terms{TokenTerms: store.TokenTerms{Box: was.ID}}, "SN-1002") // the same machine with a new disk
	changes, err := c.store.Changes(t.Context(), again.ID, time.Time{})
	if err != nil || len(changes) != 1 || changes[0].Kind != fleetapi.WorkBoxReplaced || changes[0].Detail != "SN-1002" {
		t.Errorf("its heat is judged anew for %+v, %v", changes, err)
	}
}
