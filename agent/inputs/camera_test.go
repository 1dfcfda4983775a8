package inputs

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/models"
)

// looker is a catalog with one model whose pipeline wants pictures of 64 × 48.
type looker struct{}

func (looker) Serving() ([]models.Ref, error) { return []models.Ref{{Name: "look", Version: "1"}}, nil }

func (looker) Manifest(models.Ref) (m models.Manifest, err error) {
	return m, json.Unmarshal([]byte(`{"name": "look", "version": "1",
		"signature": {"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3, 48, 64]}], "outputs": [{"name": "y", "datatype": "FP32", "shape": [1, 2]}]},
		"pipelines": [{"name": "look", "takes": "image", "stages": [{"resize": {"width": 64, "height": 48}}, {"tensor": {}}, {"run": {}}, {"top_k": {}}]}]}`), &m)
}

func (looker) File(models.Ref, string) (string, error) { return "", errors.New("no files here") }

func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// camera answers a GET with its picture.
type camera struct {
	mu       sync.Mutex // guards all below
	picture  []byte
	etags    bool
	allow    func(r *http.Request) (challenge string)
	requests []*http.Request
	fail     int
}

func (c *camera) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.requests = append(c.requests, r)
	if c.allow != nil {
		if challenge := c.allow(r); challenge != "" {
			w.Header().Set("WWW-Authenticate", challenge)
			http.Error(w, "who?", http.StatusUnauthorized)
			return
		}
	}
	if c.fail != 0 {
		if c.fail == http.StatusFound {
			w.Header().Set("Location", "http://192.0.2.1/elsewhere")
		}
		w.WriteHeader(c.fail)
		return
	}
	if c.etags {
		tag := fmt.Sprintf(`"%d"`, len(c.picture))
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	_, _ = w.Write(c.picture)
}

func (c *camera) set(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func grey(t *testing.T, w int, v uint8) []byte {
	t.Helper()
	img := image.NewGray(image.Rect(0, 0, w, 8))
	for i := range img.Pix {
		img.Pix[i] = v
	}
	img.SetGray(0, 0, color.Gray{Y: 255 - v})
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, img, nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func shoot(t *testing.T, cam *camera, change func(*Source)) *snapshot {
	t.Helper()
	srv := httptest.NewServer(cam)
	t.Cleanup(srv.Close)
	cfg := Source{Name: "cam", Kind: "http", Pipeline: "look", URL: srv.URL + "/snap?key=hush"}
	if change != nil {
		change(&cfg)
	}
	cfg, err := cfg.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s, err := newSnapshot(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSamePictureIsNoNewItem: neither where the camera knows ETags nor where it
// sends the same bytes again.
func TestSamePictureIsNoNewItem(t *testing.T) {
	for _, etags := range []bool{true, false} {
		cam := &camera{picture: grey(t, 16, 10), etags: etags}
		s := shoot(t, cam, nil)
		first, err := s.next(t.Context())
		if err != nil || first.frame.W != 16 || first.name != "snapshot-1" {
			t.Fatalf("first: %+v, %v", first.name, err)
		}
		if _, err := s.next(t.Context()); !errors.Is(err, errNothingNew) {
			t.Errorf("same picture, ETag %v: %v", etags, err)
		}
		cam.set(func() { cam.picture = grey(t, 24, 10) })
		if second, err := s.next(t.Context()); err != nil || second.frame.W != 24 || second.name != "snapshot-2" {
			t.Errorf("next picture, ETag %v: %v, %v", etags, second.name, err)
		}
		s.forget() // nobody could work with it
		if again, err := s.next(t.Context()); err != nil || again.frame.W != 24 {
			t.Errorf("the same picture once more, ETag %v: %v, %v", etags, again.name, err)
		}
	}
}

// TestCameraIsNotAskedWhileModelsLoad: else the only picture of a scene that
// stays the same would be used up.
func TestCameraIsNotAskedWhileModelsLoad(t *testing.T) {
	asked := false
	s := source{run: pipeline.New("other", nil, looker{}), next: func(context.Context) (shot, error) { asked = true; return shot{}, nil }}
	if _, err := s.work(t.Context(), nil); !errors.Is(err, ErrNoModel) || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
	start := time.Now()
	for _, c := range []struct {
		after       time.Duration
		err         error
		begun, over bool
	}{
		{0, ErrNoModel, false, false},
		{loadTime - 1, ErrNoModel, false, false},
		{loadTime, ErrNoModel, true, false},
		{loadTime + 1, ErrNoModel, false, false},
		{loadTime + 2, nil, false, true},
		{loadTime + 3, nil, false, false},
		{loadTime + 4, errors.New("no picture"), true, false},
		{loadTime + 5, errNothingNew, false, true},
	} {
		if begun, over := s.note(start.Add(c.after), c.err); begun != c.begun || over != c.over {
			t.Errorf("after %s: begun %v, over %v", c.after, begun, over)
		}
	}
}

// TestWrongPasswordIsNotTriedAgainAndAgain: many cameras lock such a user out.
func TestWrongPasswordIsNotTriedAgainAndAgain(t *testing.T) {
	cam := &camera{picture: grey(t, 16, 10), allow: func(*http.Request) string { return `Basic realm="cam"` }}
	asked := func() (n, passwords int) {
		cam.set(func() {
			n = len(cam.requests)
			for _, r := range cam.requests {
				if r.Header.Get("Authorization") != "" {
					passwords++
				}
			}
		})
		return n, passwords
	}
	s := shoot(t, cam, func(c *Source) { c.Username, c.PasswordFile = "me", secretFile(t, "wrong") })
	pause := refusedMin
	for i := range 8 {
		_, err := s.next(t.Context())
		before, passwords := asked()
		if passwords != i+1 {
			t.Fatalf("the camera saw %d passwords when it was asked %d times", passwords, i+1)
		}
		_, again := s.next(t.Context())
		if after, _ := asked(); again == nil || again.Error() != err.Error() || after != before || !strings.Contains(err.Error(), "does not take") {
			t.Fatalf("%v, then %v", err, again)
		}
		if left := time.Until(s.askAgain); left > pause || s.pause != pause {
			t.Fatalf("asked again in %s, want %s", left, pause)
		}
		s.askAgain, pause = time.Now(), min(2*pause, refusedMax)
	}
	cam.set(func() { cam.allow = func(*http.Request) string { return "" } })
	if _, err := s.next(t.Context()); err != nil || s.pause != 0 {
		t.Errorf("with the right one: %v", err)
	}
}

// TestCameraIsToldThePasswordAsItAsks: not before it asks, and never in the
// clear if it takes a digest.
func TestCameraIsToldThePasswordAsItAsks(t *testing.T) {
	const password = "s3 c'r%t@"
	want := func(check func(h string) bool, challenge string) func(*http.Request) string {
		return func(r *http.Request) string {
			if check(r.Header.Get("Authorization")) {
				return ""
			}
			return challenge
		}
	}
	for name, tt := range map[string]struct {
		allow func(*http.Request) string
		token bool
	}{
		"basic": {allow: func(r *http.Request) string {
			if u, p, ok := r.BasicAuth(); ok && u == "me" && p == password {
				return ""
			}
			return `Basic realm="cam"`
		}},
		"digest": {allow: func(r *http.Request) string {
			h := r.Header.Get("Authorization")
			if strings.HasPrefix(h, "Basic") {
				t.Error("the password was sent in the clear")
			}
			p := authParams(strings.TrimPrefix(h, "Digest "))
			if p["username"] == "me" && p["uri"] == "/snap?key=hush" && p["response"] == responseOf(p, "me", "cam, A", password) {
				return ""
			}
			return `Digest realm="cam, A", qop="auth,auth-int", nonce="n1", opaque="o", algorithm=MD5`
		}},
		"bearer": {token: true, allow: want(func(h string) bool { return h == "Bearer "+password }, "Bearer")},
	} {
		t.Run(name, func(t *testing.T) {
			cam := &camera{picture: grey(t, 16, 10), allow: tt.allow}
			s := shoot(t, cam, func(c *Source) {
				if tt.token {
					c.TokenFile = secretFile(t, password)
					return
				}
				c.Username, c.PasswordFile = "me", secretFile(t, password)
			})
			if !tt.token && cam.requests != nil {
				t.Error("asked before the first item")
			}
			for range 2 {
				if _, err := s.next(t.Context()); err != nil && !errors.Is(err, errNothingNew) {
					t.Fatal(err)
				}
			}
			if !tt.token && (cam.requests[0].Header.Get("Authorization") != "" || len(cam.requests) != 3) {
				t.Errorf("%d requests, the first with %q; want 3, without", len(cam.requests), cam.requests[0].Header.Get("Authorization"))
			}
			cam.set(func() { cam.allow = func(*http.Request) string { return `Basic realm="cam"` } })
			if _, err := s.next(t.Context()); err == nil || !strings.Contains(err.Error(), "401") || strings.Contains(err.Error(), "s3") {
				t.Errorf("refused: %v", err)
			}
		})
	}
}

// responseOf is RFC 7616 §3.4.1 for MD5 and auth.
func responseOf(p map[string]string, user, realm, password string) string {
	sum := func(s string) string { return fmt.Sprintf("%x", md5.Sum([]byte(s))) }
	return sum(strings.Join([]string{sum(user + ":" + realm + ":" + password), p["nonce"], p["nc"], p["cnonce"], "auth", sum("GET:" + p["uri"])}, ":"))
}

func TestCameraTroubleIsToldWithoutItsAddress(t *testing.T) {
	cam := &camera{picture: grey(t, 16, 10)}
	s := shoot(t, cam, func(c *Source) { c.Timeout = 20 * time.Second })
	for want, f := range map[string]func(){
		"it answers 500": func() { cam.fail = 500 },
		"it answers 302": func() { cam.fail = 302 }, // the password would follow
		"neither JPEG":   func() { cam.fail, cam.picture = 0, []byte("<html>") },
		"more than":      func() { cam.picture = make([]byte, maxFileBytes+1) },
	} {
		cam.set(f)
		if _, err := s.next(t.Context()); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%v, want %q", err, want)
		}
		cam.set(func() { cam.fail, cam.picture = 0, grey(t, 16, 10) })
	}
	s.cfg.URL = "http://127.0.0.1:1/?key=hush"
	if _, err := s.next(t.Context()); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("nobody there: %v", err)
	}
}
