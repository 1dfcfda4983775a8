package keyfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/internal/trust"
)

func lock(t *testing.T, passphrase string) *Lock {
	t.Helper()
	l, err := NewLock([]byte(passphrase), cheap)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestFilesAreSealedFromTheFirstLoadOn: and open for nobody without the passphrase.
func TestFilesAreSealedFromTheFirstLoadOn(t *testing.T) {
	dir := t.TempDir()
	plain, signing := filepath.Join(dir, "ca-key.pem"), filepath.Join(dir, "signing.key")
	content := []byte("-----BEGIN PRIVATE KEY-----\nsecret\n")
	var none *Lock
	if err := none.Write(plain, content); err != nil {
		t.Fatal(err)
	}
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := none.WriteKey(signing, key); err != nil {
		t.Fatal(err)
	}
	secret, _ := key.MarshalText()
	for i, l := range []*Lock{none, lock(t, "correct horse"), lock(t, "correct horse\n")} {
		if got, err := l.Load(plain); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d: %q, %v", i, got, err)
		}
		if got, err := l.LoadKey(signing); err != nil || got.Public() != key.Public() {
			t.Errorf("%d: %v", i, err)
		}
		for path, text := range map[string][]byte{plain: []byte("secret"), signing: secret} {
			data, err := os.ReadFile(path)
			if err != nil || bytes.Contains(data, text) != (l == nil) {
				t.Errorf("%d: %s holds %s, %v", i, path, data, err)
			}
		}
	}
	for name, c := range map[string]struct {
		l    *Lock
		want error
	}{"none": {nil, ErrLocked}, "another": {lock(t, "wrong horse"), ErrPassphrase}} {
		_, err := c.l.Read(plain)
		_, err2 := c.l.LoadKey(signing)
		if !errors.Is(err, c.want) || !errors.Is(err2, c.want) {
			t.Errorf("%s: %v; %v", name, err, err2)
		}
	}
	if _, err := NewLock([]byte("short\n"), cheap); err == nil {
		t.Error("a short passphrase was taken")
	}
	if err := os.WriteFile(plain, []byte(`{"kind":"edgeherd-sealed","v":1}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := lock(t, "correct horse").Read(plain); err == nil {
		t.Error("a damaged file is read")
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 2 {
		t.Errorf("left behind: %v", left)
	}
}

// TestAFileThatIsCheapToGuessSetsNoExample: nor one that does not open.
func TestAFileThatIsCheapToGuessSetsNoExample(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca-key.pem")
	if err := lock(t, "correct horse").Write(path, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	dear, err := NewLock([]byte("correct horse"), 2*cheap)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dear.Read(path); err != nil {
		t.Fatal(err)
	}
	if err := dear.Write(path, []byte("secret")); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if c, ok := parseContent(data); err != nil || !ok || c.Cost != 2*cheap {
		t.Errorf("written for %d, %v", c.Cost, err)
	}
}
