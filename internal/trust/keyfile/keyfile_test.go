package keyfile

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/trust"
)

const cheap = 1 << 4

func say(passphrase string) func(string) ([]byte, error) {
	return func(string) ([]byte, error) { return []byte(passphrase), nil }
}

func TestAKeyComesBackForItsPassphraseOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.key")
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(path, key, []byte("correct horse"), cheap); err != nil {
		t.Fatal(err)
	}
	got, err := Read(path, say("correct horse"))
	if err != nil || got.Public() != key.Public() {
		t.Fatalf("got %v, %v", got.Public(), err)
	}
	if _, err := Read(path, say("wrong horse")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("another passphrase: %v", err)
	}
	if p, err := Public(path); err != nil || p != key.Public() {
		t.Errorf("public half %v, %v", p, err)
	}
	if err := Write(path, key, []byte("correct horse"), cheap); err == nil {
		t.Error("a key was overwritten")
	}
	if err := Write(path+"2", key, []byte("short"), cheap); err == nil {
		t.Error("a short passphrase was taken")
	}
	data, err := os.ReadFile(path)
	text, _ := key.MarshalText()
	if err != nil || bytes.Contains(data, text) {
		t.Errorf("the secret lies in the file: %v", err)
	}
}

func TestADamagedFileIsRefusedAndCostsLittle(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.key")
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if err := Write(path, key, []byte("correct horse"), cheap); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	other, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"an endless price": strings.Replace(string(good), `"scrypt_n": 16`, `"scrypt_n": 1073741824`, 1),
		"a price of 3":     strings.Replace(string(good), `"scrypt_n": 16`, `"scrypt_n": 3`, 1),
		"another public":   strings.Replace(string(good), key.Public().String(), other.Public().String(), 1),
		"a later version":  strings.Replace(string(good), `"v": 1`, `"v": 2`, 1),
		"half":             string(good[:len(good)/2]),
		"nothing":          "",
	} {
		bad := filepath.Join(dir, "bad.key")
		if err := os.WriteFile(bad, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(bad, say("correct horse")); err == nil {
			t.Errorf("%s: read", name)
		}
	}
}
