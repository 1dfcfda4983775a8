package enrol_test

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/enrol"
	wire "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

func TestABoxEnrolsWithTheClockAt1970AndALostAnswer(t *testing.T) {
	w := newWorld(t)
	var keys [][]byte
	w.answers(func(rw http.ResponseWriter, _ *http.Request, body []byte) {
		a := w.issued(body)
		keys = append(keys, []byte(a.Member.Certificate))
		if len(keys) == 1 {
			panic(http.ErrAbortHandler) // issued, and the link breaks
		}
		w.reply(rw, a)
	})
	early := func(o *enrol.Options) { o.WallClock = func() time.Time { return time.Unix(0, 0) } }
	if _, err := w.enrol(early); err == nil {
		t.Fatal("no error though the answer was lost")
	}
	if enrol.Enrolled(w.dir) {
		t.Fatal("half enrolled")
	}
	first, err := os.ReadFile(w.dir + ".new/key.pem")
	check(t, err)
	box, err := w.enrol(early)
	check(t, err)
	if box.Name != "wallbox-07" {
		t.Errorf("box %+v", box)
	}
	second, err := os.ReadFile(w.dir + "/key.pem")
	check(t, err)
	if !bytes.Equal(first, second) {
		t.Error("the repeated request had another key")
	}
	id, err := enrol.Load(w.dir)
	check(t, err)
	if id.ID != box.ID {
		t.Errorf("loaded %s, want %s", id.ID, box.ID)
	}
	for path, mode := range map[string]os.FileMode{"": 0o700, "key.pem": 0o600} {
		if info, err := os.Stat(filepath.Join(w.dir, path)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v; want %o", path, info.Mode(), err, mode)
		}
	}
}

// recorder keeps what a box sends.
type recorder struct {
	net.Conn
	mu  *sync.Mutex
	out *bytes.Buffer
}

func (r recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	r.out.Write(p)
	r.mu.Unlock()
	return r.Conn.Write(p)
}

// Threat T7 of docs/security.md: who stands between hears nothing.
func TestT7NothingSecretLeavesToAnotherAuthority(t *testing.T) {
	w, evil := newWorld(t), newWorld(t)
	var mu sync.Mutex
	var sent bytes.Buffer
	_, err := w.enrol(func(o *enrol.Options) {
		o.Net = func(ctx context.Context, network, _ string) (net.Conn, error) {
			conn, err := new(net.Dialer).DialContext(ctx, network, evil.server.Listener.Addr().String())
			return recorder{conn, &mu, &sent}, err
		}
	})
	if !errors.Is(err, wire.ErrPin) || !strings.Contains(err.Error(), "nothing was sent") {
		t.Errorf("error %v, want ErrPin", err)
	}
	if paths := evil.paths(); len(paths) > 0 {
		t.Errorf("the other was asked for %v", paths)
	}
	if sent.Len() == 0 || bytes.Contains(sent.Bytes(), []byte(w.token.Secret)) {
		t.Errorf("%d bytes left the box, the secret among them?", sent.Len())
	}
	if enrol.Enrolled(w.dir) {
		t.Error("half enrolled")
	}
}

func TestEachStageOfTheNetworkHasItsSentence(t *testing.T) {
	w := newWorld(t)
	portal := httpListener(t)
	for name, c := range map[string]struct {
		dial func(ctx context.Context, network, address string) (net.Conn, error)
		want string
	}{
		"no DNS": {func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "fleet.example", IsNotFound: true}
		}, "DNS"},
		"refused": {func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, closedPort(t))
		}, "nothing listens"},
		"captive portal": {func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, portal)
		}, "captive portal"},
	} {
		_, err := w.enrol(func(o *enrol.Options) { o.Net = c.dial })
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), w.token.Address()) {
			t.Errorf("%s: %v, want %q and the address", name, err, c.want)
		}
	}
}

func closedPort(t *testing.T) string {
	address, err := freeport.Address()
	check(t, err)
	return address
}

// httpListener answers everything with a page.
func httpListener(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "HTTP/1.1 302 Found\r\nLocation: http://login.example/\r\n\r\n")
			conn.Close()
		}
	}()
	return l.Addr().String()
}

func TestABoxThatWaitsForApprovalShowsItsCode(t *testing.T) {
	w := newWorld(t)
	asked := 0
	w.answers(func(rw http.ResponseWriter, _ *http.Request, body []byte) {
		if asked++; asked == 1 {
			w.reply(rw, wire.Answer{Code: wire.Pending, ShortCode: "481-902", PollSeconds: 1})
			return
		}
		w.reply(rw, w.issued(body))
	})
	var said []string
	_, err := w.enrol(func(o *enrol.Options) { o.Say = func(text string) { said = append(said, text) } })
	check(t, err)
	if len(said) != 1 || !strings.Contains(said[0], "481-902") {
		t.Errorf("said %q", said)
	}
}

func TestEveryRefusalHasItsSentenceAndLeavesNothingHalf(t *testing.T) {
	w := newWorld(t)
	for _, code := range []wire.Code{
		wire.TokenUnknown, wire.TokenExpired, wire.TokenSite, wire.Denied, wire.TokenUsed, wire.HardwareKnown,
		wire.IdentityConflict, wire.BadRequest, wire.BadCSR, wire.BadKeyType, wire.BadTPM, wire.AgentTooOld,
	} {
		w.answers(func(rw http.ResponseWriter, _ *http.Request, _ []byte) {
			w.reply(rw, wire.Answer{Code: code, DeviceID: "d-bbbbbbbbbbbbb", MinAgent: "2.0.0", Detail: "detail"})
		})
		_, err := w.enrol(nil)
		var no *enrol.Refused
		if !errors.As(err, &no) || no.Answer.Code != code || strings.Contains(err.Error(), "the controller says") || !strings.Contains(err.Error(), "(detail)") {
			t.Errorf("%s: %v", code, err)
		}
		if strings.Contains(err.Error(), "%!") || enrol.Enrolled(w.dir) {
			t.Errorf("%s: %v, enrolled %v", code, err, enrol.Enrolled(w.dir))
		}
	}
}

func TestAMemberIsNotEnrolledAgainByMistake(t *testing.T) {
	w := newWorld(t)
	_, err := w.enrol(nil)
	check(t, err)
	before := len(w.paths())
	if _, err := w.enrol(nil); !errors.Is(err, enrol.ErrMember) || !strings.Contains(err.Error(), "hamburg-3") {
		t.Errorf("error %v", err)
	}
	check(t, os.WriteFile(w.dir+"/cert.pem", []byte("damaged"), 0o600))
	if _, err := w.enrol(nil); err == nil || !strings.Contains(err.Error(), "--re-enroll") {
		t.Errorf("with a damaged identity: %v", err)
	}
	if got := len(w.paths()); got != before {
		t.Errorf("%d requests left", got-before)
	}
	_, err = w.enrol(func(o *enrol.Options) { o.Again = true })
	check(t, err)
	_, err = enrol.Load(w.dir)
	check(t, err)
}

// Threat T37 of docs/security.md: a power cut at any point leaves the identity
// that was or the one that comes, whole. The points are those between the steps
// that reach the disk.
func TestT37APowerCutLeavesAWholeIdentity(t *testing.T) {
	w := newWorld(t)
	_, err := w.enrol(nil)
	check(t, err)
	was, err := os.ReadFile(w.dir + "/key.pem")
	check(t, err)
	for name, cut := range map[string]struct {
		at   func(dir, whole string)
		next bool
	}{
		"key of the next is there": {func(dir, whole string) { keep(t, dir+".new", whole, "key.pem") }, false},
		"box.json is missing":      {func(dir, whole string) { keep(t, dir+".new", whole, "key.pem", "cert.pem", "ca.pem") }, false},
		"next is whole":            {func(dir, whole string) { check(t, os.CopyFS(dir+".new", os.DirFS(whole))) }, false},
		"present is set aside": {func(dir, whole string) {
			check(t, os.CopyFS(dir+".new", os.DirFS(whole)))
			check(t, os.Rename(dir, dir+".old"))
		}, true},
		"set aside, next was damaged": {func(dir, whole string) {
			keep(t, dir+".new", whole, "key.pem", "box.json")
			check(t, os.Rename(dir, dir+".old"))
		}, false},
		"next is in place": {func(dir, whole string) {
			check(t, os.Rename(dir, dir+".old"))
			check(t, os.CopyFS(dir, os.DirFS(whole)))
		}, true},
	} {
		other := newWorld(t)
		_, err := other.enrol(nil)
		check(t, err)
		is, err := os.ReadFile(other.dir + "/key.pem")
		check(t, err)
		dir := filepath.Join(t.TempDir(), "identity")
		check(t, os.CopyFS(dir, os.DirFS(w.dir)))
		cut.at(dir, other.dir)
		id, err := enrol.Load(dir)
		if err != nil || id.ID == "" {
			t.Errorf("%s: %v", name, err)
			continue
		}
		got, err := os.ReadFile(dir + "/key.pem")
		check(t, err)
		if want := map[bool][]byte{false: was, true: is}[cut.next]; !bytes.Equal(got, want) {
			t.Errorf("%s: the other identity", name)
		}
		if _, err := enrol.Load(dir); err != nil {
			t.Errorf("%s: the second time %v", name, err)
		}
	}
}

// keep copies some files of an identity.
func keep(t *testing.T, to, from string, names ...string) {
	check(t, os.CopyFS(to, os.DirFS(from)))
	entries, err := os.ReadDir(to)
	check(t, err)
	for _, e := range entries {
		if !slices.Contains(names, e.Name()) {
			check(t, os.Remove(filepath.Join(to, e.Name())))
		}
	}
}

func TestABoxEnrolsByFiles(t *testing.T) {
	w := newWorld(t)
	stick := t.TempDir()
	path, err := enrol.Offline(w.options(), w.token, stick)
	check(t, err)
	file, err := os.ReadFile(path)
	check(t, err)
	if bytes.Contains(file, []byte(w.token.Secret)) {
		t.Error("the secret travels")
	}
	q, signed, err := wire.OpenRequest(file)
	check(t, err)
	if !signed.Authentic(w.token.SecretHash()) {
		t.Error("the request does not show that its maker had the token")
	}
	body, err := json.Marshal(q)
	check(t, err)
	leaf := w.server.TLS.Certificates[0]
	answer, err := wire.AnswerFile(w.issued(body), leaf.Certificate, leaf.PrivateKey.(crypto.Signer))
	check(t, err)
	evil := newWorld(t).server.TLS.Certificates[0]
	forged, err := wire.AnswerFile(w.issued(body), evil.Certificate, evil.PrivateKey.(crypto.Signer))
	check(t, err)
	if _, err := enrol.Import(w.options(), w.token, forged); !errors.Is(err, wire.ErrPin) {
		t.Errorf("answer of another authority: %v", err)
	}
	_, err = enrol.Import(w.options(), w.token, answer)
	check(t, err)
	_, err = enrol.Load(w.dir)
	check(t, err)
}
