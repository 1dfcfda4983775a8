package controller

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/mqttws"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// served is a controller that runs with TLS on all ports, and a box of it.
func served(t *testing.T) (*Controller, *identity.Identity) {
	t.Helper()
	opts := options(t.TempDir())
	opts.HTTPPlain = false
	c := mustOpen(t, opts)
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := c.EnrolBox(t.Context(), dir, "box-1", "site-1"); err != nil {
		t.Fatal(err)
	}
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return c, id
}

func tlsTo(t *testing.T, address string, conf *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", address, conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// connect is an MQTT CONNECT with a client id.
func connect(clientID string) []byte {
	body := append([]byte{0, 4, 'M', 'Q', 'T', 'T', 4, 2, 0, 60}, binary.BigEndian.AppendUint16(nil, uint16(len(clientID)))...)
	body = append(body, clientID...)
	return append([]byte{0x10, byte(len(body))}, body...)
}

// TestTheWebSocketHasTheIdentityOfTheMQTTPort: a box comes in by the port of
// the pages with its certificate, and only as itself.
func TestTheWebSocketHasTheIdentityOfTheMQTTPort(t *testing.T) {
	_, id := served(t)
	open := func() net.Conn {
		t.Helper()
		conn, err := mqttws.Client(t.Context(), tlsTo(t, id.Pages, id.PagesTLS(nil)), id.Pages)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return conn
	}
	sid := wire.SID{1}
	conn := open()
	if _, err := conn.Write(connect(wire.ClientID(id.ID, sid))); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 4)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[0] != 0x20 || answer[3] != 0 {
		t.Fatalf("CONNACK % x, %v", answer, err)
	}
	conn = open()
	if _, err := conn.Write(connect(wire.ClientID(identity.NewID(), sid))); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(answer); !errors.Is(err, io.EOF) {
		t.Errorf("as another box: % x, %v", answer[:n], err)
	}
}

// TestBrowsersAreNeverAskedForACertificate, and boxes always are.
func TestBrowsersAreNeverAskedForACertificate(t *testing.T) {
	c, id := served(t)
	asked := 0
	shake := func(protocols ...string) error {
		conf := &tls.Config{RootCAs: id.Roots, ServerName: id.Server, NextProtos: protocols, GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked++
			return &tls.Certificate{}, nil // none
		}}
		conn := tlsTo(t, id.Pages, conf)
		_, err := io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		if err == nil {
			_, err = bufio.NewReader(conn).ReadString('\n')
		}
		return err
	}
	for _, protocols := range [][]string{nil, {"http/1.1"}} {
		if err := shake(protocols...); err != nil || asked != 0 {
			t.Errorf("%v: asked %d times, %v", protocols, asked, err)
		}
	}
	if err := shake(identity.BoxProtocol, "http/1.1"); err == nil || asked != 1 {
		t.Errorf("a box without a certificate: asked %d times, %v", asked, err)
	}
	// HTTP/2 is there as before.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: id.Roots, ServerName: id.Server}, ForceAttemptHTTP2: true}}
	res, err := client.Get("https://" + c.Addrs().HTTP + "/")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.ProtoMajor != 2 {
		t.Errorf("pages by %s", res.Proto)
	}
	client.CloseIdleConnections()
}

// TestNeitherSideOfThePortSeesTheOther.
func TestNeitherSideOfThePortSeesTheOther(t *testing.T) {
	_, id := served(t)
	box := &http.Client{Transport: &http.Transport{TLSClientConfig: id.PagesTLS(nil)}}
	person := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: id.Roots, ServerName: id.Server}}}
	defer box.CloseIdleConnections()
	defer person.CloseIdleConnections()
	for _, c := range []struct {
		name   string
		client *http.Client
		path   string
		status int
		want   string
	}{
		{"a person at the boxes' door", person, "/mqtt", http.StatusForbidden, "no box certificate was shown"},
		{"a person at the boxes' files", person, "/device/v1/blobs/" + strings.Repeat("0", 64), http.StatusOK, "<"}, // a place in the pages
		{"a box at the pages", box, "/", http.StatusForbidden, "may not see the pages"},
		{"a box at the API", box, "/api/v1/boxes", http.StatusForbidden, "may not see the pages"},
		{"a box at its files", box, "/device/v1/blobs/" + strings.Repeat("0", 64), http.StatusNotFound, ""},
		{"a box without WebSocket", box, "/mqtt", http.StatusBadRequest, "MQTT over WebSocket"},
	} {
		res, err := c.client.Get("https://" + id.Pages + c.path)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s: %s %.200s", c.name, res.Status, body)
		}
	}
}

// TestPagesForThisMachineAloneAreNotToldToBoxes: they would dial themselves.
func TestPagesForThisMachineAloneAreNotToldToBoxes(t *testing.T) {
	for _, c := range []struct {
		http, device string
		told         bool
	}{{"127.0.0.1:0", "127.0.0.1:0", true}, {"127.0.0.1:0", "0.0.0.0:0", false}, {"0.0.0.0:0", "0.0.0.0:0", true}} {
		opts := options(t.TempDir())
		if c.http == "0.0.0.0:0" {
			addAdmin(t, opts)
		}
		opts.HTTPPlain, opts.HTTP, opts.Device = false, c.http, c.device
		ctl := mustOpen(t, opts)
		if box := ctl.boxFile(identity.NewID(), "box", "site"); (box.Pages != "") != c.told {
			t.Errorf("pages on %s, files on %s: boxes are told of %q", c.http, c.device, box.Pages)
		}
		if token, err := ctl.TokenBase(); (err == nil) != c.told || err != nil && !strings.Contains(err.Error(), "0.0.0.0:8443") {
			t.Errorf("pages on %s, files on %s: tokens lead to %q, %v", c.http, c.device, token.Host, err)
		}
		mustClose(t, ctl)
	}
}

// TestPlainPagesHaveNoDoorForBoxes: without TLS nobody could prove anything.
func TestPlainPagesHaveNoDoorForBoxes(t *testing.T) {
	c := mustOpen(t, options(t.TempDir()))
	defer mustClose(t, c)
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := c.EnrolBox(t.Context(), dir, "box-1", "site-1"); err != nil {
		t.Fatal(err)
	}
	if id, err := identity.Load(dir); err != nil || id.Pages != "" {
		t.Errorf("boxes are told of %q, %v", id.Pages, err)
	}
	rec := httptest.NewRecorder()
	c.entrance(http.NotFoundHandler()).ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "/mqtt", nil))
	if rec.Code != http.StatusForbidden {
		t.Errorf("%d", rec.Code)
	}
}
