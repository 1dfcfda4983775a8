package pkcs11

import (
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/trust"
)

const module = "/usr/lib/softhsm/libsofthsm2.so"

// token makes a token of SoftHSM with a key of each kind.
func token(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(module); err != nil {
		if os.Getenv("EDGEHERD_REQUIRE_ASSETS") != "" {
			t.Fatalf("required here: %v; run `make deps`", err)
		}
		t.Skip("needs softhsm2 and opensc")
	}
	dir := t.TempDir()
	config := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(config, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", config)
	for _, line := range []string{
		"softhsm2-util --init-token --free --label fleet --pin 1234 --so-pin 12345678",
		"pkcs11-tool --module " + module + " --token-label fleet --login --pin 1234 --keypairgen --key-type EC:prime256v1 --label root --id 0a",
		"pkcs11-tool --module " + module + " --token-label fleet --login --pin 1234 --keypairgen --key-type EC:edwards25519 --label edwards --id 0b",
	} {
		words := strings.Fields(line)
		if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, out)
		}
	}
}

func at(t *testing.T, path, query string) Address {
	t.Helper()
	a, err := Parse("pkcs11:" + path + "?module-path=" + url.PathEscape(module) + query)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func pin(text string) func(string) ([]byte, error) {
	return func(string) ([]byte, error) { return []byte(text), nil }
}

func TestAKeyInHardwareSignsWhatIsLargerThanAnArgument(t *testing.T) {
	token(t)
	k, err := Open(at(t, "token=fleet;id=%0A", ""), pin("1234"))
	if err != nil {
		t.Fatal(err)
	}
	payload := []byte(strings.Repeat("long ", 100_000))
	sealed, err := trust.Sign(trust.TypeModel, payload, k)
	if err != nil {
		t.Fatal(err)
	}
	ring := trust.DevelopmentKeyring(k.Public())
	if got, err := ring.Open(trust.TypeModel, sealed); err != nil || string(got) != string(payload) {
		t.Errorf("the envelope does not open: %v", err)
	}
	if k.Public().Verify([]byte("other"), []byte("no signature")) {
		t.Error("any bytes are a signature")
	}

	file := filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(file, []byte("1234\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	same, err := Open(at(t, "id=%0A;type=private", "&pin-source="+file), func(string) ([]byte, error) { return nil, errors.New("asked") })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := same.Sign(payload); err != nil || same.Public() != k.Public() {
		t.Errorf("by its id and with the PIN of a file: %v", err)
	}

}

func TestWhyAKeyInHardwareDoesNotSignIsSaidWithAWayOut(t *testing.T) {
	token(t)
	wrong, err := Open(at(t, "token=fleet;id=%0A", ""), pin("9999"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := wrong.Sign([]byte("x")); err == nil || !strings.Contains(err.Error(), "the PIN is wrong") {
		t.Errorf("a wrong PIN: %v", err)
	}
	if _, err := Open(at(t, "token=fleet;id=%0A", ""), pin("\n")); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("no PIN: %v", err)
	}
	for path, why := range map[string]string{
		"token=fleet;id=%0C": "--list-objects", "token=other;id=%0A": "--list-token-slots", "token=fleet;id=%0B": "P-256",
	} {
		if _, err := Open(at(t, path, ""), pin("1234")); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%s: %v, want %q", path, err, why)
		}
	}
	none, err := Parse("pkcs11:id=%0A?module-path=/usr/lib/none.so")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(none, pin("1234")); err == nil || !strings.Contains(err.Error(), "module-path=FILE") {
		t.Errorf("no module: %v", err)
	}
}

func TestAddressesThatDoNotSayWhichKeyAreRefused(t *testing.T) {
	for _, text := range []string{
		"", "key.json", "pkcs11:", "pkcs11:token=fleet", "pkcs11:id=", "pkcs11:id=%zz", "pkcs11:token=fleet;object=root",
		"pkcs11:id=%01;serial=12", "pkcs11:id=%01?pin-value=1234", "id=%01",
	} {
		if a, err := Parse(text); err == nil {
			t.Errorf("%q was taken for %v", text, a.args)
		}
	}
	a, err := Parse("pkcs11:token=my%20fleet;id=%01%ff?module-path=/a/b.so&pin-source=file:/run/pin")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(a.args, "|"), "--token-label|my fleet|--id|01ff|--module|/a/b.so"; got != want || a.pinSource != "/run/pin" {
		t.Errorf("%s, PIN in %s", got, a.pinSource)
	}
}
