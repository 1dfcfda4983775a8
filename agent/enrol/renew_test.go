package enrol_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/enrol"
	wire "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// member is a box with a Renewer whose clock says at.
func (w *world) member(at func(*identity.Identity) time.Time) (*enrol.Renewer, *[]*identity.Identity) {
	w.t.Helper()
	if !enrol.Enrolled(w.dir) {
		_, err := w.enrol(nil)
		check(w.t, err)
	}
	id, err := enrol.Load(w.dir)
	check(w.t, err)
	var renewed []*identity.Identity
	now := id
	return enrol.NewRenewer(enrol.RenewOptions{
		Dir: w.dir, Root: w.t.TempDir(), Version: "1.0.0", Fence: 7, Box: id,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return w.dialer(now)(ctx, network, address)
		},
		Renewed:   func(id *identity.Identity) { now = id; renewed = append(renewed, id) },
		WallClock: func() time.Time { return at(id) },
	}, slog.New(slog.DiscardHandler)), &renewed
}

// run ends with the standing, see answerMember.
func (w *world) run(r *enrol.Renewer) error {
	ctx, stop := context.WithTimeout(w.t.Context(), time.Minute)
	defer stop()
	err := r.Run(ctx)
	if err == nil {
		w.t.Error("the box did not hear that it was retired")
	}
	return err
}

func late(id *identity.Identity) time.Time { return id.Certificate.Leaf.NotAfter.Add(-time.Hour) }

// answerMember answers renewals and questions after the standing, which ends the
// run with Retired.
func (w *world) answerMember(renew func(rw http.ResponseWriter, body []byte)) *[]string {
	var shown []string // serial numbers of the certificates that asked for the standing
	w.answers(func(rw http.ResponseWriter, r *http.Request, body []byte) {
		if r.URL.Path == wire.PathRenew {
			renew(rw, body)
			return
		}
		shown = append(shown, r.TLS.PeerCertificates[0].SerialNumber.String())
		w.reply(rw, wire.Answer{Code: wire.Retired})
	})
	return &shown
}

func TestACertificateIsRenewedWithANewKeyAndUsedAtOnce(t *testing.T) {
	w := newWorld(t)
	r, renewed := w.member(late)
	before, err := os.ReadFile(w.dir + "/key.pem")
	check(t, err)
	sealing, err := enrol.SealKeys(w.dir)
	check(t, err)
	var asked wire.Renewal
	shown := w.answerMember(func(rw http.ResponseWriter, body []byte) {
		check(t, json.Unmarshal(body, &asked))
		w.reply(rw, w.issued(body))
	})
	if err := w.run(r); !errors.Is(err, enrol.ErrRetired) {
		t.Fatalf("Run = %v", err)
	}
	if len(*renewed) != 1 || asked.Fence != 7 {
		t.Fatalf("renewed %d times, fence %d", len(*renewed), asked.Fence)
	}
	after, err := os.ReadFile(w.dir + "/key.pem")
	check(t, err)
	if bytes.Equal(before, after) {
		t.Error("the key is the old one")
	}
	// The request names the new sealing key; the one before still opens what came
	// before.
	csr, err := x509.ParseCertificateRequest(asked.CSR)
	check(t, err)
	named, err := identity.SealingKey(csr.Extensions)
	check(t, err)
	keys, err := enrol.SealKeys(w.dir)
	check(t, err)
	if len(sealing) != 1 || len(keys) != 2 || !keys[0].PublicKey().Equal(named) || !keys[1].PublicKey().Equal(sealing[0].PublicKey()) || named.Equal(sealing[0].PublicKey()) {
		t.Errorf("%d sealing keys before, %d after, the request names %v", len(sealing), len(keys), named)
	}
	if want := (*renewed)[0].Certificate.Leaf.SerialNumber.String(); !slices.Equal(*shown, []string{want}) {
		t.Errorf("the standing was asked for with %v, want the new certificate %s", *shown, want)
	}
}

func TestARenewalThatGotLostIsRepeatedWithTheSameKey(t *testing.T) {
	w := newWorld(t)
	r, renewed := w.member(late)
	var keys []string
	w.answerMember(func(rw http.ResponseWriter, body []byte) {
		var q wire.Renewal
		check(t, json.Unmarshal(body, &q))
		csr, err := x509.ParseCertificateRequest(q.CSR)
		check(t, err)
		keys = append(keys, string(csr.RawSubjectPublicKeyInfo))
		if len(keys) == 1 {
			panic(http.ErrAbortHandler)
		}
		w.reply(rw, w.issued(body))
	})
	w.run(r)
	if len(*renewed) != 0 {
		t.Fatal("renewed without an answer")
	}
	again, renewed := w.member(late)
	w.run(again)
	if len(*renewed) != 1 || len(keys) != 2 || keys[0] != keys[1] {
		t.Errorf("renewed %d times with %d keys, the same %v", len(*renewed), len(keys), len(keys) == 2 && keys[0] == keys[1])
	}
}

func TestARefusedRenewalLeavesTheIdentity(t *testing.T) {
	w := newWorld(t)
	r, renewed := w.member(late)
	w.answerMember(func(rw http.ResponseWriter, _ []byte) { w.reply(rw, wire.Answer{Code: wire.IdentityFork}) })
	w.run(r)
	if _, err := enrol.Load(w.dir); err != nil || len(*renewed) != 0 {
		t.Errorf("Load = %v, renewed %d times", err, len(*renewed))
	}
}

func TestAYoungCertificateIsNotRenewed(t *testing.T) {
	w := newWorld(t)
	for share, due := range map[float64]bool{0.39: false, 0.61: true} {
		r, renewed := w.member(func(id *identity.Identity) time.Time {
			leaf := id.Certificate.Leaf
			return leaf.NotBefore.Add(time.Duration(share * float64(leaf.NotAfter.Sub(leaf.NotBefore))))
		})
		w.answerMember(func(rw http.ResponseWriter, body []byte) { w.reply(rw, w.issued(body)) })
		w.run(r)
		if got := len(*renewed) > 0; got != due {
			t.Errorf("at %.2f of its life: renewed %v, want %v", share, got, due)
		}
	}
}

func TestStartsAreCounted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fence.json")
	for want := uint64(1); want <= 3; want++ {
		if got, err := enrol.CountStart(path); err != nil || got != want {
			t.Fatalf("CountStart = %d, %v, want %d", got, err, want)
		}
	}
	check(t, os.WriteFile(path, []byte("damaged"), 0o600))
	if _, err := enrol.CountStart(path); err == nil {
		t.Error("a damaged counter begins anew")
	}
}

func TestAReceiptIsSignedByTheBox(t *testing.T) {
	w := newWorld(t)
	_, err := w.enrol(nil)
	check(t, err)
	id, err := enrol.Load(w.dir)
	check(t, err)
	var got wire.Receipt
	w.answers(func(rw http.ResponseWriter, r *http.Request, body []byte) {
		got, err = wire.OpenReceipt(body, r.TLS.PeerCertificates[0].PublicKey)
		w.reply(rw, wire.Answer{Code: wire.Received})
	})
	check(t, enrol.SendReceipt(t.Context(), id, w.dialer(id), wire.Receipt{Wiped: []string{"spool"}, Lost: 3, Version: "1.0.0"}))
	if err != nil || got.DeviceID != id.ID || got.Lost != 3 {
		t.Errorf("receipt %+v, %v", got, err)
	}
	check(t, enrol.Forget(w.dir))
	if left, _ := filepath.Glob(w.dir + "*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestAMachineIsToldFromOthers(t *testing.T) {
	root := t.TempDir()
	put := func(path, text string) {
		check(t, os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755))
		check(t, os.WriteFile(filepath.Join(root, path), []byte(text), 0o644))
	}
	put("sys/class/dmi/id/product_uuid", "4c4c4544-0051\n")
	put("sys/class/dmi/id/board_serial", "Default string\n")
	put("sys/class/dmi/id/product_name", "N97 box\n")
	put("sys/block/nvme0n1/device/serial", "S64DNE0  \n")
	for name, device := range map[string]string{"eth0": "sys/devices/pci0000:00/0000:01:00.0", "eth1": "sys/devices/pci0000:00/usb1/1-1"} {
		check(t, os.MkdirAll(filepath.Join(root, device), 0o755))
		put("sys/class/net/"+name+"/address", "02:00:00:00:00:0"+name[3:]+"\n")
		check(t, os.Symlink(filepath.Join(root, device), filepath.Join(root, "sys/class/net", name, "device")))
	}
	put("sys/class/net/docker0/address", "02:42:00:00:00:01\n")
	w := newWorld(t)
	var q wire.Request
	w.answers(func(rw http.ResponseWriter, _ *http.Request, body []byte) {
		check(t, json.Unmarshal(body, &q))
		w.reply(rw, w.issued(body))
	})
	_, err := w.enrol(func(o *enrol.Options) { o.Root, o.Name = root, "wallbox-07" })
	check(t, err)
	h := q.Hardware
	if h.DMIUUID != "4c4c4544-0051" || h.BoardSerial != "" || h.DiskSerial != "S64DNE0" || h.Model != "N97 box" || strings.Join(h.MACs, " ") != "02:00:00:00:00:00" {
		t.Errorf("hardware %+v", h)
	}
	if q.NameHint != "wallbox-07" || q.TokenID != w.token.ID || q.Secret != w.token.Secret {
		t.Errorf("request %+v", q)
	}
}
