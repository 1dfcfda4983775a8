package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// newTPM starts a simulated chip.
func newTPM(t *testing.T) TPM {
	t.Helper()
	program := assets.Program(t, "swtpm")
	dir, err := os.MkdirTemp("", "eh") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "sock")
	cmd := exec.Command(program, "socket", "--tpm2", "--tpmstate", "dir="+dir,
		"--server", "type=unixio,path="+socket, "--flags", "not-need-init,startup-clear")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
		os.RemoveAll(dir)
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if chip, err := At(socket); err == nil {
			return chip
		}
	}
	t.Fatal("swtpm did not start within 30 s")
	return TPM{}
}

func TestAKeySignsAfterItWasLoadedAgain(t *testing.T) {
	chip := newTPM(t)
	sealed, err := chip.Create()
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // a slot that is not freed fails the fourth
		key, err := chip.Key(sealed)
		if err != nil {
			t.Fatal(err)
		}
		digest := sha256.Sum256([]byte("hello"))
		sig, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if !ecdsa.VerifyASN1(key.Public().(*ecdsa.PublicKey), digest[:], sig) {
			t.Fatal("signature does not verify")
		}
	}
}

// Threat T1 of docs/security.md: who copies a disk has no key.
func TestT1ACopiedDiskHasNoKey(t *testing.T) {
	here, there := newTPM(t), newTPM(t)
	sealed, err := here.Create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := there.Key(sealed); !errors.Is(err, ErrForeign) {
		t.Fatalf("another TPM says %v, want ErrForeign", err)
	}
}

func TestDamagedKeyFilesAreErrors(t *testing.T) {
	chip := newTPM(t)
	sealed, err := chip.Create()
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]Sealed{
		"empty":       {},
		"cut public":  {Public: sealed.Public[:40], Private: sealed.Private},
		"cut private": {Public: sealed.Public, Private: sealed.Private[:40]},
		"flipped":     {Public: sealed.Public, Private: append([]byte{sealed.Private[0] ^ 1}, sealed.Private[1:]...)},
	} {
		if _, err := chip.Key(s); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestACredentialForThisChipAndKeyOpens(t *testing.T) {
	chip, other := newTPM(t), newTPM(t)
	key := newKey(t, chip)
	e, err := chip.Endorsement()
	if err != nil {
		t.Fatal(err)
	}
	public, err := tpm2.Unmarshal[tpm2.TPMTPublic](e.Public)
	if err != nil {
		t.Fatal(err)
	}
	ek, err := tpm2.ImportEncapsulationKey(public)
	if err != nil {
		t.Fatal(err)
	}
	blob, secret, err := tpm2.CreateCredential(rand.Reader, ek, key.Name(), []byte("sixteen bytes ok"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := key.Activate(blob, secret)
	if err != nil || string(got) != "sixteen bytes ok" {
		t.Fatalf("Activate = %q, %v", got, err)
	}
	if _, err := newKey(t, chip).Activate(blob, secret); err == nil {
		t.Error("another key of the chip opened it")
	}
	if _, err := newKey(t, other).Activate(blob, secret); err == nil {
		t.Error("another chip opened it")
	}
}

func newKey(t *testing.T, chip TPM) *Key {
	t.Helper()
	sealed, err := chip.Create()
	if err != nil {
		t.Fatal(err)
	}
	key, err := chip.Key(sealed)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func TestAMachineWithoutATPMSaysSo(t *testing.T) {
	if _, err := At(filepath.Join(t.TempDir(), "tpmrm0")); !errors.Is(err, ErrAbsent) {
		t.Fatalf("At = %v, want ErrAbsent", err)
	}
}
