package secrets_test

import (
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/edgeherd/edgeherd/agent/secrets"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const box = identity.ID("d-aaaaaaaaaaaaa")

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t *testing.T) *ecdh.PrivateKey {
	t.Helper()
	key, err := ecdh.P256().GenerateKey(rand.Reader)
	check(t, err)
	return key
}

func sealed(t *testing.T, to *ecdh.PrivateKey, name, version, value string) wire.DesiredSecret {
	t.Helper()
	data, err := identity.Seal(to.PublicKey(), box, name, []byte(value))
	check(t, err)
	return wire.DesiredSecret{Name: name, Version: version, Key: identity.SealID(to.PublicKey()), Sealed: data}
}

func TestReadTakesOneLineOfARegularFileAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"line": " pass word \nmore", "empty": "\nmore", "large": strings.Repeat("x", 1<<20)} {
		check(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	check(t, syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600))
	if got, err := secrets.Read(filepath.Join(dir, "line")); got != "pass word" || err != nil {
		t.Errorf("a line: %q, %v", got, err)
	}
	for _, name := range []string{"empty", "large", "pipe", "missing", "."} {
		if got, err := secrets.Read(filepath.Join(dir, name)); got != "" || err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) {
			t.Errorf("%s: %q, %v; want an error that names the file", name, got, err)
		}
	}
}

func TestADirectoryHoldsWhatWasSealedToTheBoxAndNothingElse(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run", "secrets")
	before, present, other := newKey(t), newKey(t), newKey(t)
	asked := 0
	k := secrets.New(secrets.Options{Dir: dir, Box: box, Keys: func() ([]ecdh.KeyExchanger, error) {
		asked++
		return []ecdh.KeyExchanger{present, before}, nil
	}})
	holds := func(want map[string]string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		check(t, err)
		for _, e := range entries {
			text, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if want[e.Name()] != string(text) || err != nil {
				t.Errorf("%s holds %q, %v", e.Name(), text, err)
			}
			if info, err := e.Info(); err != nil || info.Mode() != 0o600 {
				t.Errorf("%s: %v, %v", e.Name(), info.Mode(), err)
			}
		}
		if len(entries) != len(want) {
			t.Errorf("%v, want %v", entries, want)
		}
	}
	camera := sealed(t, present, "camera", "1", "one")
	changed, err := k.Follow([]wire.DesiredSecret{camera, sealed(t, before, "proxy", "1", "two")})
	if err != nil || !changed {
		t.Errorf("changed %v, %v", changed, err)
	}
	holds(map[string]string{"camera": "one", "proxy": "two"})
	// What is there already costs no TPM; one that is another's is named, and does
	// not hold up the others.
	was := asked
	if changed, err := k.Follow([]wire.DesiredSecret{camera}); err != nil || !changed || asked != was {
		t.Errorf("changed %v, %v, keys were asked for %d times", changed, err, asked-was)
	}
	holds(map[string]string{"camera": "one"})
	_, err = k.Follow([]wire.DesiredSecret{sealed(t, other, "camera", "2", "secret-of-another"), sealed(t, present, "b", "1", "three")})
	if err == nil || !strings.Contains(err.Error(), "camera") || strings.Contains(err.Error(), "secret-of-another") {
		t.Errorf("%v", err)
	}
	holds(map[string]string{"camera": "one", "b": "three"})
	moved := camera
	moved.Name, moved.Version = "door", "9"
	if _, err = k.Follow([]wire.DesiredSecret{camera, moved}); err == nil {
		t.Error("a secret opens under another name")
	}
	// Lost with the memory, and a name that would be a path.
	check(t, os.RemoveAll(dir))
	evil := camera
	evil.Name = "../camera"
	if _, err := k.Follow([]wire.DesiredSecret{camera, evil}); err == nil {
		t.Error("a path was taken for a name")
	}
	holds(map[string]string{"camera": "one"})
	check(t, secrets.Wipe(dir))
	holds(nil)
}

func TestASecretWithoutADirectoryOrAKeyIsRefused(t *testing.T) {
	none := secrets.New(secrets.Options{Box: box})
	if _, err := none.Follow(nil); err != nil {
		t.Error(err)
	}
	if _, err := none.Follow([]wire.DesiredSecret{{Name: "a"}}); err == nil || !strings.Contains(err.Error(), "agent.yaml") {
		t.Errorf("%v", err)
	}
	broken := errors.New("chip is gone")
	k := secrets.New(secrets.Options{Dir: t.TempDir(), Box: box, Keys: func() ([]ecdh.KeyExchanger, error) { return nil, broken }})
	if _, err := k.Follow([]wire.DesiredSecret{{Name: "a", Version: "1"}}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

func TestAReferenceIsAFileInTheDirectory(t *testing.T) {
	for _, c := range []struct {
		file, want string
		reference  bool
		bad        bool
	}{
		{"/etc/password", "/etc/password", false, false},
		{"", "", false, false},
		{"secret:camera-3.main", "/run/s/camera-3.main", true, false},
		{"secret:", "", true, true},
		{"secret:../x", "", true, true},
		{"secret:UPPER", "", true, true},
		{"secret:" + strings.Repeat("a", 64), "", true, true},
	} {
		got, reference, err := secrets.Path("/run/s", c.file)
		if got != c.want || reference != c.reference || (err != nil) != c.bad {
			t.Errorf("%q: %q, %v, %v", c.file, got, reference, err)
		}
	}
}
