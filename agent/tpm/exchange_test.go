package tpm

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"errors"
	"testing"

	"github.com/edgeherd/edgeherd/internal/identity"
)

func TestASecretOpensInTheChipItWasSealedToAndNowhereElse(t *testing.T) {
	here, there := newTPM(t), newTPM(t)
	sealed, err := here.CreateExchange()
	if err != nil {
		t.Fatal(err)
	}
	key, err := here.Exchange(sealed)
	if err != nil {
		t.Fatal(err)
	}
	const box = identity.ID("d-aaaaaaaaaaaaa")
	secret, err := identity.Seal(key.PublicKey(), box, "camera", []byte("value"))
	if err != nil {
		t.Fatal(err)
	}
	for range 5 { // a slot that is not freed fails the fourth
		if got, err := identity.Unseal(key, box, "camera", secret); err != nil || string(got) != "value" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if _, err := there.Exchange(sealed); !errors.Is(err, ErrForeign) {
		t.Errorf("another TPM says %v, want ErrForeign", err)
	}
	// Both sides find the same point, also when its coordinate begins with zeros.
	for range 20 {
		other, err := ecdh.P256().GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		mine, err := key.ECDH(other.PublicKey())
		theirs, err2 := other.ECDH(key.PublicKey())
		if err := errors.Join(err, err2); err != nil || !bytes.Equal(mine, theirs) {
			t.Fatalf("%x, %x, %v", mine, theirs, err)
		}
	}
	signing, err := here.Create()
	if err != nil {
		t.Fatal(err)
	}
	if key, err := here.Exchange(signing); err == nil {
		if _, err := identity.Unseal(key, box, "camera", secret); err == nil {
			t.Error("a key that signs opens a secret")
		}
	}
}
