package controller

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

var quiet = slog.New(slog.DiscardHandler)

// options are those of a controller on free ports of this machine.
func options(dir string) Options {
	return Options{Dir: dir, HTTP: "127.0.0.1:0", Device: "127.0.0.1:0", MQTT: "127.0.0.1:0", HTTPPlain: true, Version: "test"}
}

func mustOpen(t *testing.T, opts Options) *Controller {
	t.Helper()
	c, err := Open(t.Context(), opts, quiet)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustClose(t *testing.T, c *Controller) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestASecondControllerOnOneDirectoryIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := mustOpen(t, options(dir))
	if _, err := Open(t.Context(), options(dir), quiet); err == nil || !strings.Contains(err.Error(), "another controller runs on "+dir) {
		t.Errorf("second controller: %v", err)
	}
	mustClose(t, first)
	mustClose(t, mustOpen(t, options(dir)))
}

func TestAPortInUseNamesTheWayOut(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	dir := t.TempDir()
	for key, set := range map[string]func(*Options){
		"http":   func(o *Options) { o.HTTP = held.Addr().String() },
		"device": func(o *Options) { o.Device = held.Addr().String() },
		"mqtt":   func(o *Options) { o.MQTT = held.Addr().String() },
	} {
		opts := options(dir)
		set(&opts)
		_, err := Open(t.Context(), opts, quiet)
		if err == nil || !strings.Contains(err.Error(), "--"+key) || !strings.Contains(err.Error(), held.Addr().String()) {
			t.Errorf("%s: %v, want an error that names address and flag", key, err)
		}
	}
	mustClose(t, mustOpen(t, options(dir))) // nothing was left locked
}

func TestPlainHTTPStaysOnThisMachine(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:0": true, "127.0.0.2:0": true, "[::1]:0": true, "localhost:0": true,
		"0.0.0.0:0": false, ":0": false, "[::]:0": false,
	} {
		opts := options(t.TempDir())
		opts.HTTP = address
		c, err := Open(t.Context(), opts, quiet)
		if err == nil {
			mustClose(t, c)
		}
		if strings.Contains(address, "::") && err != nil && !strings.Contains(err.Error(), "plain HTTP") {
			t.Logf("no IPv6 here: %v", err)
			continue
		}
		if (err == nil) != ok {
			t.Errorf("%s: %v, want allowed %v", address, err, ok)
		}
	}
	zone := &net.TCPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1}
	if mustBeLoopback(zone) == nil {
		t.Error("a link-local address is allowed")
	}
}

func TestARestartKeepsKeyAndAuthority(t *testing.T) {
	dir := t.TempDir()
	read := func() string {
		c := mustOpen(t, options(dir))
		defer mustClose(t, c)
		key, err := os.ReadFile(c.SigningKeyPath())
		if err != nil {
			t.Fatal(err)
		}
		return string(key) + string(c.ca.PEM())
	}
	if first := read(); first != read() {
		t.Error("key or authority changed with a restart: every box is locked out")
	}
	info, err := os.Stat(filepath.Join(dir, "keys", "signing.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("signing key: %v, %v", info.Mode(), err)
	}
}

func TestEnrolmentCanBeRepeated(t *testing.T) {
	ctx := t.Context()
	now := time.Now()
	opts := options(t.TempDir())
	opts.WallClock = func() time.Time { return now }
	c := mustOpen(t, opts)
	defer mustClose(t, c)
	state := t.TempDir()
	dir := filepath.Join(state, "identity")
	if err := os.WriteFile(dir, nil, 0o600); err != nil { // a file in the way
		t.Fatal(err)
	}
	if _, err := c.EnrolBox(ctx, dir, "box-1", "site-1"); err == nil {
		t.Fatal("enrolled into a file")
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	first, err := c.EnrolBox(ctx, dir, "box-1", "site-1")
	if err != nil {
		t.Fatalf("after a failure: %v", err)
	}
	cert := func() []byte {
		data, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	before := cert()
	if again, err := c.EnrolBox(ctx, dir, "box-1", "site-1"); err != nil || again != first || !bytes.Equal(cert(), before) {
		t.Errorf("again: %s, %v; want %s with its certificate", again, err, first)
	}
	now = now.Add(20 * 24 * time.Hour)
	if again, err := c.EnrolBox(ctx, dir, "box-1", "site-1"); err != nil || again != first || bytes.Equal(cert(), before) {
		t.Errorf("after 20 of 30 days: %s, %v; want a new certificate for %s", again, err, first)
	}
	if boxes, err := c.store.Boxes(ctx, 0); err != nil || len(boxes) != 1 {
		t.Errorf("%d boxes, %v; want one", len(boxes), err)
	}
}

func TestTheNameOfABoxThatWasHeardOfIsTaken(t *testing.T) {
	ctx := t.Context()
	c := mustOpen(t, options(t.TempDir()))
	defer mustClose(t, c)
	id, err := c.EnrolBox(ctx, filepath.Join(t.TempDir(), "identity"), "box-1", "site-1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.store.Hello(ctx, id, wire.Hello{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnrolBox(ctx, filepath.Join(t.TempDir(), "identity"), "box-1", "site-1"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("a second box of that name: %v", err)
	}
	other := mustOpen(t, options(t.TempDir()))
	defer mustClose(t, other)
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := other.EnrolBox(ctx, dir, "box-9", "site-1"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.EnrolBox(ctx, dir, "box-9", "site-1"); err == nil || !strings.Contains(err.Error(), "does not know") {
		t.Errorf("the identity of another controller: %v", err)
	}
}

func TestBoxesAreToldAnAddressThatCanBeDialled(t *testing.T) {
	opts := options(t.TempDir())
	opts.Device, opts.MQTT, opts.Hosts = "0.0.0.0:0", "0.0.0.0:0", []string{"ctl.example"}
	c := mustOpen(t, opts)
	defer mustClose(t, c)
	dir := filepath.Join(t.TempDir(), "identity")
	if _, err := c.EnrolBox(t.Context(), dir, "box-1", "site-1"); err != nil {
		t.Fatal(err)
	}
	id, err := identity.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{id.MQTT, id.HTTPS} {
		if host, _, err := net.SplitHostPort(address); err != nil || host != "ctl.example" {
			t.Errorf("box is told %s", address)
		}
	}
}

func TestALoginURLWorksOnce(t *testing.T) {
	c := mustOpen(t, options(t.TempDir()))
	login, err := c.LoginURL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	browser := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	var cookies []int
	for range 2 {
		resp, err := browser.Get(login)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		cookies = append(cookies, len(resp.Cookies()))
	}
	if cookies[0] != 1 || cookies[1] != 0 {
		t.Errorf("cookies %v, want a session for the first visitor alone", cookies)
	}
	browser.CloseIdleConnections()
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func TestABoxIsGoneWithItsLastSession(t *testing.T) {
	ctx := t.Context()
	c := mustOpen(t, options(t.TempDir()))
	defer mustClose(t, c)
	id, err := c.EnrolBox(ctx, filepath.Join(t.TempDir(), "identity"), "box-1", "site-1")
	if err != nil {
		t.Fatal(err)
	}
	killed, fresh := wire.SID{1}, wire.SID{2}
	connected := func() bool {
		b, err := c.store.Box(ctx, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		return b.Connected
	}
	hello := func(sid wire.SID) {
		if err := c.store.Hello(ctx, id, wire.Hello{SID: sid}); err != nil {
			t.Fatal(err)
		}
	}
	hello(killed)
	hello(fresh)
	c.left(ctx, id, killed) // its keep-alive ran out
	if !connected() {
		t.Error("the box is there, and is said to be gone")
	}
	c.left(t.Context(), id, fresh)
	if connected() {
		t.Error("the box is gone, and is said to be there")
	}
}
