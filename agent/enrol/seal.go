package enrol

import (
	"crypto/ecdh"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// SealKeys opens the keys that secrets of the box may be sealed to, the present
// one first: in a TPM one that stays, in files the present one and the one
// before the last renewal.
func SealKeys(dir string) ([]ecdh.KeyExchanger, error) {
	k, err := openKey(dir)
	switch {
	case err != nil:
		return nil, err
	case k.chip == nil:
		return identity.ReadSealKeys(dir)
	case k.sealed.Seal == nil:
		return nil, nil
	}
	private, err := k.chip.Exchange(*k.sealed.Seal)
	return []ecdh.KeyExchanger{private}, err
}

// sealing returns the public half of the sealing key that goes with k in dir, and
// makes it where there is none. It is on the disk when sealing returns.
func (k key) sealing(dir string) (*ecdh.PublicKey, error) {
	if k.chip == nil {
		private, err := identity.MakeSealKey(dir)
		if err != nil {
			return nil, err
		}
		return private.PublicKey(), nil
	}
	if k.sealed.Seal == nil {
		made, err := k.chip.CreateExchange()
		if err != nil {
			return nil, err
		}
		k.sealed.Seal = &made
		if err := k.seal(dir); err != nil {
			return nil, err
		}
	}
	private, err := k.chip.Exchange(*k.sealed.Seal)
	if err != nil {
		return nil, err
	}
	return private.PublicKey(), nil
}

// keepSealing lets the next identity open what was sealed to the present one:
// the controller seals anew once it has seen the next, and the box may lose power
// before that.
func keepSealing(dir, next string) error {
	text, err := os.ReadFile(filepath.Join(dir, identity.SealName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(next, identity.SealBefore), text, 0o600)
}
