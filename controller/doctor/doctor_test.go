package doctor_test

import (
	"crypto/tls"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/doctor"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// world is the state of a controller that has run once, but for its database.
type world struct {
	t   *testing.T
	dir string
	ca  *identity.CA
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(w.dir, "keys"), 0o700))
	must(t, os.WriteFile(filepath.Join(w.dir, "keys", "signing.key"), []byte("x"), 0o600))
	var err error
	w.ca, err = identity.OpenCA(filepath.Join(w.dir, "ca"), nil)
	must(t, err)
	return w
}

func (w *world) file(name string) string { return filepath.Join(w.dir, "ca", name) }

// examine returns the findings of one check, and that the report is no better
// than they are.
func (w *world) examine(check string, o doctor.Options) (level store.Level, found string) {
	w.t.Helper()
	o.State = w.dir
	r := doctor.Examine(w.t.Context(), o)
	level = store.OK
	seen := false
	for _, f := range r.Findings {
		if f.Check != check {
			continue
		}
		seen = true
		found += f.Found + "; " + f.Way + "\n"
		if f.Level == store.Fail || f.Level == store.Warn && level == store.OK {
			level = f.Level
		}
		if (f.Level == store.OK) != (f.Way == "") {
			w.t.Errorf("%s: level %s, way out %q", check, f.Level, f.Way)
		}
	}
	if !seen {
		w.t.Errorf("nothing is said of %q: %+v", check, r.Findings)
	}
	if level == store.Fail && r.Level != store.Fail || level == store.Warn && r.Level == store.OK {
		w.t.Errorf("%s is %s, the report %s", check, level, r.Level)
	}
	return level, found
}

func in(years int) func() time.Time {
	return func() time.Time { return time.Now().AddDate(years, 0, 0) }
}

func TestCertificatesAndKeysAreJudged(t *testing.T) {
	other := newWorld(t)
	swap := func(name string) func(*world) {
		return func(w *world) {
			must(t, os.CopyFS(filepath.Join(w.dir, "was"), os.DirFS(filepath.Join(w.dir, "ca"))))
			w.copy(other, name)
		}
	}
	for _, tc := range []struct {
		name, check string
		spoil       func(*world)
		opts        doctor.Options
		want        store.Level
		says        string
	}{
		{"all is well", "certificate authority", nil, doctor.Options{}, store.OK, "good until"},
		{"all is well", "key of the authority", nil, doctor.Options{}, store.OK, "fleet CA"},
		{"all is well", "authority of boxes", nil, doctor.Options{}, store.OK, "good until"},
		{"all is well", "authority of servers", nil, doctor.Options{}, store.OK, "good until"},
		{"the root is gone", "certificate authority", func(w *world) { must(t, os.Remove(w.file("ca.pem"))) }, doctor.Options{}, store.Fail, "backup"},
		{"the root is no certificate", "certificate authority", func(w *world) { must(t, os.WriteFile(w.file("ca.pem"), []byte("x"), 0o600)) }, doctor.Options{}, store.Fail, "no certificate"},
		{"the root has ended", "certificate authority", nil, doctor.Options{WallClock: in(21)}, store.Fail, "ended on"},
		{"the clock is behind", "certificate authority", nil, doctor.Options{WallClock: in(-1)}, store.Fail, "set the clock"},
		{"the root's key is elsewhere", "key of the authority", func(w *world) { must(t, os.Remove(w.file("ca-key.pem"))) }, doctor.Options{}, store.OK, "elsewhere"},
		{"the root's key is of another", "key of the authority", swap("ca-key.pem"), doctor.Options{}, store.Fail, "none of the certificates"},
		{"the authority of boxes is of another root", "authority of boxes", swap("issuing-device.pem"), doctor.Options{}, store.Fail, "unknown authority"},
		{"the authority of servers is that of boxes", "authority of servers", func(w *world) {
			text, err := os.ReadFile(w.file("issuing-device.pem"))
			must(t, err)
			must(t, os.WriteFile(w.file("issuing-server.pem"), text, 0o600))
		}, doctor.Options{}, store.Fail, "usage"},
		{"an authority has the key of another", "authority of boxes", func(w *world) {
			cert, err := os.ReadFile(w.file("issuing-device.pem"))
			must(t, err)
			key, err := os.ReadFile(w.file("ca-key.pem"))
			must(t, err)
			only, _, _ := strings.Cut(string(cert), "-----BEGIN PRIVATE KEY")
			must(t, os.WriteFile(w.file("issuing-device.pem"), []byte(only+string(key)), 0o600))
		}, doctor.Options{}, store.Fail, "does not match"},
		{"an authority ends soon", "authority of boxes", nil, doctor.Options{WallClock: func() time.Time { return time.Now().AddDate(3, -2, 0) }}, store.Warn, "restart"},
		{"a key is open to all", "private keys", func(w *world) { must(t, os.Chmod(w.file("issuing-server.pem"), 0o644)) }, doctor.Options{}, store.Fail, "chmod 600"},
		{"the pair for the broker is none", "certificate for the broker", nil, doctor.Options{Broker: doctor.Broker{URL: "mqtts://127.0.0.1:1", Cert: "none", Key: "none"}}, store.Fail, "one pair"},
		{"the broker is away", "certificate of the broker", nil, doctor.Options{Broker: doctor.Broker{URL: "mqtts://127.0.0.1:1"}}, store.Warn, "start the broker"},
		{"the controller does not run", "certificate of the pages", nil, doctor.Options{HTTP: "127.0.0.1:1"}, store.OK, "nobody listens"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			if tc.spoil != nil {
				tc.spoil(w)
			}
			if level, found := w.examine(tc.check, tc.opts); level != tc.want || !strings.Contains(found, tc.says) {
				t.Errorf("%s: %s %q, want %s with %q", tc.check, level, found, tc.want, tc.says)
			}
		})
	}
}

func (w *world) copy(from *world, name string) {
	text, err := os.ReadFile(from.file(name))
	must(w.t, err)
	must(w.t, os.WriteFile(w.file(name), text, 0o600))
}

// TestWhatListenersShowIsJudged: the certificate that a controller or a broker
// holds in memory is in no file.
func TestWhatListenersShowIsJudged(t *testing.T) {
	w, other := newWorld(t), newWorld(t)
	for _, tc := range []struct {
		name string
		of   *world
		host string
		at   func() time.Time
		want store.Level
		says string
	}{
		{"good", w, "127.0.0.1", time.Now, store.OK, "good until"},
		{"of another authority", other, "127.0.0.1", time.Now, store.Fail, "do not trust"},
		{"for another name", w, "fleet.example.com", time.Now, store.Fail, "127.0.0.1"},
		{"ends in days", w, "127.0.0.1", func() time.Time { return time.Now().AddDate(1, 0, -7) }, store.Warn, "good until"},
		{"has ended", w, "127.0.0.1", in(2), store.Fail, "ended on"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cert, err := tc.of.ca.IssueServer([]string{tc.host})
			must(t, err)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			must(t, err)
			defer l.Close()
			conf := tc.of.ca.ServerTLS(cert, func(identity.ID) error { return nil }) // asks for a certificate that doctor has not
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					tls.Server(conn, conf).Handshake()
					conn.Close()
				}
			}()
			o := doctor.Options{HTTP: l.Addr().String(), Hosts: []string{"127.0.0.1"}, Broker: doctor.Broker{URL: "mqtts://" + l.Addr().String()}, WallClock: tc.at}
			for _, check := range []string{"certificate of the pages", "certificate of the broker"} {
				if level, found := w.examine(check, o); level != tc.want || !strings.Contains(found, tc.says) {
					t.Errorf("%s: %s %q, want %s with %q", check, level, found, tc.want, tc.says)
				}
			}
		})
	}
}

func TestPlainPagesOfThisMachineAreNoFault(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go http.Serve(l, http.NotFoundHandler()) // until l is closed
	level, found := newWorld(t).examine("certificate of the pages", doctor.Options{HTTP: l.Addr().String()})
	if level != store.OK || !strings.Contains(found, "without TLS") {
		t.Errorf("%s: %s", level, found)
	}
}
