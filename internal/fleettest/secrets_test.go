package fleettest

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/enrol"
	"github.com/edgeherd/edgeherd/controller/backup"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// written is all that a fleet logs, at every level.
type written struct {
	mu   sync.Mutex // guards text
	text bytes.Buffer
}

func (w *written) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.Write(p)
}

func (w *written) all() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.text.Bytes())
}

// withSecrets starts the fleet anew with directories for secrets and a log of
// everything.
func withSecrets(f *Fleet, opened map[*Box]string) *written {
	log := &written{}
	f.StopController()
	f.log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	f.StartController()
	for _, b := range f.Boxes {
		opened[b] = f.T.TempDir()
		b.Tune = func(o *agent.Options) { o.Secrets = opened[b] }
		if err := b.StopAgent(); err != nil {
			f.T.Fatal(err)
		}
		b.StartAgent()
	}
	return log
}

// sealedOf is what the desired state on the disk of a box has of a secret.
func (b *Box) sealedOf(name string) (out wire.DesiredSecret) {
	t := b.fleet.T
	t.Helper()
	var file struct {
		State struct{ Envelope []byte }
	}
	text, err := os.ReadFile(filepath.Join(b.State(), "desired.json"))
	if err == nil {
		err = json.Unmarshal(text, &file)
	}
	if err != nil {
		t.Fatal(err)
	}
	id, err := enrol.Load(agent.IdentityDir(b.State()))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := id.Keyring.Open("application/vnd.edgeherd.desired+json", file.State.Envelope)
	if err != nil {
		t.Fatal(err)
	}
	d, err := wire.DecodeDesired(payload)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range d.Secrets {
		if s.Name == name {
			out = s
		}
	}
	return out
}

// T5: somebody reads the disk of a box, or of the controller, or a backup. A whole
// run is searched for the secrets that it handled.
func TestT5NoSecretLiesAnywhereInTheClear(t *testing.T) {
	story(t, 3, func(f *Fleet) {
		opened := map[*Box]string{}
		log := withSecrets(f, opened)
		settled(f)
		ctx := context.Background()
		const camera, proxy, label = "Kamera-7f3a9c41-geheim", "edge:proxy-52bb1e0d-secret", "label-c8190e77-value"
		one, two := f.Boxes[0], f.Boxes[1]
		set := func(at fleetapi.SecretAt, value string) {
			t.Helper()
			if _, err := f.API.SetSecret(ctx, fleetapi.NewSecret{SecretAt: at, Value: []byte(value)}); err != nil {
				t.Fatal(err)
			}
		}
		has := func(b *Box, name, value string) func() bool {
			return func() bool {
				text, err := os.ReadFile(filepath.Join(opened[b], name))
				return string(text) == value && (value == "") == os.IsNotExist(err)
			}
		}
		set(fleetapi.SecretAt{Name: "camera", SecretFor: fleetapi.SecretFor{Box: one.ID}}, "the first one")
		set(fleetapi.SecretAt{Name: "camera", SecretFor: fleetapi.SecretFor{Site: "site-1"}}, label)
		set(fleetapi.SecretAt{Name: "camera", SecretFor: fleetapi.SecretFor{Box: one.ID}}, camera)
		set(fleetapi.SecretAt{Name: "proxy", SecretFor: fleetapi.SecretFor{Box: two.ID}}, proxy)
		f.Until("the box has the newest value of its own", time.Minute, has(one, "camera", camera))
		f.Until("the site's other box has that of the site", time.Minute, has(f.Boxes[2], "camera", label))
		f.Until("the second box has its secret", time.Minute, has(two, "proxy", proxy))
		if !has(two, "camera", "")() || !has(one, "proxy", "")() {
			t.Error("a box got a secret that is not for it")
		}
		if info, err := os.Stat(filepath.Join(opened[one], "camera")); err != nil || info.Mode() != 0o600 {
			t.Errorf("%v, %v", info, err)
		}
		foreignKeyOpensNothing(t, one, two)

		// Another key, as after each renewal: sealed anew, without anybody's doing.
		before := one.sealedOf("camera")
		one.SetClock(19 * 24 * time.Hour) // due between 12 and 18
		f.Until("sealed to the new key", 20*time.Minute, func() bool { return one.sealedOf("camera").Key != before.Key })
		one.SetClock(0)
		// A reboot without a network: memory is empty, the disk has all it needs.
		one.Cut()
		must(t, one.StopAgent())
		must(t, os.RemoveAll(opened[one]))
		one.StartAgent()
		f.Until("opened again from the disk", time.Minute, has(one, "camera", camera))
		one.Heal()

		f.Until("the controller knows that the second box has its secret", time.Minute, func() bool {
			list, err := f.API.BoxSecrets(ctx, two.ID)
			return err == nil && len(list.Items) == 1 && list.Items[0].State == "held"
		})
		if _, err := f.API.RemoveSecret(ctx, fleetapi.SecretAt{Name: "proxy", SecretFor: fleetapi.SecretFor{Box: two.ID}}); err != nil {
			t.Fatal(err)
		}
		f.Until("taken away", time.Minute, has(two, "proxy", ""))
		f.searched(log, camera, proxy, label)
	})
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// foreignKeyOpensNothing: one box cannot open what is another's, neither as it is
// nor as if it were its own.
func foreignKeyOpensNothing(t *testing.T, one, two *Box) {
	t.Helper()
	sealed := one.sealedOf("camera").Sealed
	for _, c := range []struct {
		keys, as *Box
		name     string
		opens    bool
	}{{one, one, "camera", true}, {two, one, "camera", false}, {two, two, "camera", false}, {one, two, "camera", false}, {one, one, "proxy", false}} {
		keys, err := enrol.SealKeys(agent.IdentityDir(c.keys.State()))
		must(t, err)
		if _, err := identity.Unseal(keys[0], c.as.ID, c.name, sealed); (err == nil) != c.opens {
			t.Errorf("with the key of %s, as %s of %s: %v", c.keys.Name, c.name, c.as.Name, err)
		}
	}
}

// searched looks for values in all that a run has left: files of the controller
// and of the boxes, a backup, logs, the audit log, and answers of the API.
func (f *Fleet) searched(log *written, values ...string) {
	f.T.Helper()
	ctx := context.Background()
	texts := map[string][]byte{"logs": log.all()}
	var audit bytes.Buffer
	must(f.T, f.API.ExportAudit(ctx, func(line []byte) error { audit.Write(line); return nil }))
	texts["audit export"] = audit.Bytes()
	if n := strings.Count(audit.String(), "secret.set") + strings.Count(audit.String(), "secret.remove"); n != 5 {
		f.T.Errorf("%d changes of secrets are in the audit log, want 5", n)
	}
	for _, path := range []string{"/secrets", "/boxes", "/boxes/" + string(f.Boxes[0].ID), "/boxes/" + string(f.Boxes[0].ID) + "/secrets", "/boxes/" + string(f.Boxes[0].ID) + "/events"} {
		texts["GET "+path] = f.get(path)
	}
	file := filepath.Join(f.T.TempDir(), "backup.tar")
	if _, err := backup.Write(ctx, backup.Options{State: f.controllerDir()}, file); err != nil {
		f.T.Fatal(err)
	}
	text, err := os.ReadFile(file)
	must(f.T, err)
	texts["backup"] = text
	key, err := os.ReadFile(filepath.Join(f.controllerDir(), "keys", "secrets.key"))
	must(f.T, err)
	if bytes.Contains(text, bytes.TrimSpace(key)) {
		f.T.Error("the backup holds the key beside what it decrypts")
	}
	f.StopController() // the database in one file
	must(f.T, filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		texts[path], err = os.ReadFile(path)
		return err
	}))
	f.StartController()
	for _, v := range values {
		for name, text := range texts {
			for form, needle := range map[string]string{
				"in the clear": v, "in base64": base64.StdEncoding.EncodeToString([]byte(v))[:len(v)], "in hexadecimal": hex.EncodeToString([]byte(v)),
			} {
				if bytes.Contains(text, []byte(needle)) {
					f.T.Errorf("%s holds %q %s", name, v, form)
				}
			}
		}
	}
	if len(texts) < 20 {
		f.T.Errorf("only %d files were searched", len(texts))
	}
}

// get is an answer of the API as it goes over the wire.
func (f *Fleet) get(path string) []byte {
	f.T.Helper()
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+httpAddr+"/api/v1"+path, nil)
	must(f.T, err)
	req.Header.Set("Authorization", "Bearer "+f.token)
	resp, err := f.transport.RoundTrip(req)
	must(f.T, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(f.T, err)
	if resp.StatusCode != http.StatusOK {
		f.T.Errorf("GET %s: %s", path, resp.Status)
	}
	return body
}
