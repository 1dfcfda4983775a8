package controller

import (
	"crypto/tls"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/identity"
)

func TestBoxesAreToldTheBalancerAndFindItsNamesInTheCertificate(t *testing.T) {
	opts := options(t.TempDir())
	opts.HTTPPlain = false
	opts.Advertise = Advertise{Broker: "fleet.example.com:18883", Files: "files.example.com:18444", Pages: "fleet.example.com:443"}
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
	if got := (Advertise{id.MQTT, id.HTTPS, id.Pages}); got != opts.Advertise || id.Server != "fleet.example.com" {
		t.Errorf("a box is told %+v at %s, want %+v", got, id.Server, opts.Advertise)
	}
	go func() {
		for {
			conn, err := c.device.Accept()
			if err != nil {
				return
			}
			go func() { _ = conn.(*tls.Conn).Handshake(); conn.Close() }()
		}
	}()
	for _, name := range []string{"fleet.example.com", "files.example.com", "127.0.0.1", "localhost"} {
		cfg := id.ClientTLS(nil)
		cfg.ServerName = name
		conn, err := tls.Dial("tcp", c.Addrs().Device, cfg)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		conn.Close()
	}
}

func TestHostsOfTheOperatorComeFirstInTheCertificate(t *testing.T) {
	a := Advertise{Broker: "b.example.com:1", Files: "b.example.com:2", Pages: "[2001:db8::1]:3"}
	if got, want := a.Hosts([]string{"own.example.com"}), []string{"own.example.com", "b.example.com", "2001:db8::1"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAnAddressThatNobodyCanDialIsNamed(t *testing.T) {
	for address, ok := range map[string]bool{
		"": true, "fleet.example.com:8883": true, "192.0.2.1:1": true, "[2001:db8::1]:8883": true,
		"fleet.example.com": false, "fleet.example.com:": false, "fleet.example.com:0": false, "fleet.example.com:70000": false,
		"fleet.example.com:mqtt": false, ":8883": false, "0.0.0.0:8883": false, "[::]:8883": false, "mqtts://fleet.example.com:8883": false,
	} {
		err := Advertise{Pages: address}.Check()
		if ok != (err == nil) || err != nil && !strings.Contains(err.Error(), "advertise.pages: ") {
			t.Errorf("%q: %v", address, err)
		}
	}
}
