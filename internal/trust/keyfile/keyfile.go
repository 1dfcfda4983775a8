// Package keyfile keeps a signing key in a file that only a passphrase opens.
//
// The file is JSON: the public key for everybody to read, and the private one
// sealed (NaCl secretbox) under a key that scrypt makes of the passphrase. What
// is not such a file is taken for a key in plain text, as CI systems keep them
// in stores of their own. A file can as well stand for a key in hardware: it has
// the public half and where the other is.
//
// The one rule a caller can break: a passphrase never travels in an argument of
// a program, where every user of the machine can read it.
package keyfile

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"os"

	"golang.org/x/crypto/nacl/secretbox"
	"golang.org/x/crypto/scrypt"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// Cost is the usual price of trying a passphrase: scrypt (RFC 7914) with N = 2^16,
// r = 8 and p = 2 takes 64 MiB and about a third of a second, as much as OWASP's
// password storage sheet asks for.
const Cost = 1 << 16

// maxCost bounds what a file can make its reader spend: 1 GiB.
const maxCost = 1 << 20

// minPassphrase is short; scrypt makes a guess dear, not impossible.
const minPassphrase = 10

// ErrPassphrase says that the passphrase does not open the file.
var ErrPassphrase = errors.New("the passphrase does not open this key")

// file is what lies on disk.
type file struct {
	V      int             `json:"v"`
	Public trust.PublicKey `json:"public"`
	Cost   int             `json:"scrypt_n,omitempty"`
	Salt   []byte          `json:"salt,omitempty"`
	Nonce  []byte          `json:"nonce,omitempty"`
	Sealed []byte          `json:"sealed,omitempty"`
	// Address of the key in hardware, in place of what is sealed.
	Address string `json:"pkcs11,omitempty"`
}

// Link makes a file that stands for a key in hardware: it can be used like that
// of another key. It never replaces one.
func Link(path string, public trust.PublicKey, address string) error {
	return file{V: 1, Public: public, Address: address}.write(path)
}

func (f file) write(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already; a key is never overwritten", path)
	}
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return fmt.Errorf("encode key: %w", err)
	}
	return durable.WriteFile(path, append(data, '\n'), 0o600)
}

// Address is that of the key in hardware for which a file stands; "": the key
// itself is in the file.
func Address(path string) (address string, public trust.PublicKey, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", public, fmt.Errorf("read signing key: %w", err)
	}
	f, _, err := parse(data)
	if err != nil {
		return "", public, fmt.Errorf("read signing key %s: %w", path, err)
	}
	return f.Address, f.Public, nil
}

// Write makes the file of a key. It never replaces one.
func Write(path string, key trust.PrivateKey, passphrase []byte, cost int) error {
	if len(passphrase) < minPassphrase {
		return fmt.Errorf("a passphrase of %d characters is too short: use %d or more, such as five words", len(passphrase), minPassphrase)
	}
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s is there already; a key is never overwritten", path)
	}
	f := file{V: 1, Public: key.Public(), Cost: cost, Salt: make([]byte, 16), Nonce: make([]byte, 24)}
	rand.Read(f.Salt)
	rand.Read(f.Nonce)
	sealer, err := f.sealer(passphrase)
	if err != nil {
		return err
	}
	text, err := key.MarshalText()
	if err != nil {
		return err
	}
	f.Sealed = secretbox.Seal(nil, text, (*[24]byte)(f.Nonce), sealer)
	return f.write(path)
}

func (f file) sealer(passphrase []byte) (*[32]byte, error) {
	if f.Cost < 2 || f.Cost > maxCost || bits.OnesCount(uint(f.Cost)) != 1 || len(f.Nonce) != 24 || len(f.Salt) < 16 {
		return nil, errors.New("the key file is damaged: its numbers make no sense")
	}
	k, err := scrypt.Key(passphrase, f.Salt, f.Cost, 8, 2, 32)
	if err != nil {
		return nil, fmt.Errorf("derive a key of the passphrase: %w", err)
	}
	return (*[32]byte)(k), nil
}

// Read opens a key. ask gives the passphrase; it is not asked for a key in plain
// text.
func Read(path string, ask func(path string) ([]byte, error)) (trust.PrivateKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return trust.PrivateKey{}, fmt.Errorf("read signing key: %w", err)
	}
	f, sealed, err := parse(data)
	if err != nil {
		return trust.PrivateKey{}, fmt.Errorf("read signing key %s: %w", path, err)
	}
	text := data
	if sealed {
		passphrase, err := ask(path)
		if err != nil {
			return trust.PrivateKey{}, err
		}
		if text, err = f.open(passphrase); err != nil {
			return trust.PrivateKey{}, fmt.Errorf("open signing key %s: %w", path, err)
		}
	}
	key, err := trust.ParsePrivateKey(text)
	if err != nil {
		return trust.PrivateKey{}, fmt.Errorf("read signing key %s: %w", path, err)
	}
	if sealed && key.Public() != f.Public {
		return trust.PrivateKey{}, fmt.Errorf("%s holds another key than it says", path)
	}
	return key, nil
}

func (f file) open(passphrase []byte) ([]byte, error) {
	sealer, err := f.sealer(passphrase)
	if err != nil {
		return nil, err
	}
	text, ok := secretbox.Open(nil, f.Sealed, (*[24]byte)(f.Nonce), sealer)
	if !ok {
		return nil, ErrPassphrase
	}
	return text, nil
}

// parse reads the form; false: a key in plain text.
func parse(data []byte) (f file, sealed bool, err error) {
	if len(data) == 0 || data[0] != '{' {
		return f, false, nil
	}
	if err := json.Unmarshal(data, &f); err != nil {
		return f, true, fmt.Errorf("parse key file: %w", err)
	}
	if f.V != 1 {
		return f, true, fmt.Errorf("key file of version %d, this program reads 1", f.V)
	}
	return f, true, nil
}

// Public reads the public half, for which nobody needs a passphrase. A key in
// plain text has none beside it.
func Public(path string) (trust.PublicKey, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return trust.PublicKey{}, fmt.Errorf("read public key: %w", err)
	}
	f, sealed, err := parse(data)
	if err == nil && !sealed {
		key, err := trust.ParsePrivateKey(data)
		if err != nil {
			return trust.PublicKey{}, fmt.Errorf("read public key %s: %w", path, err)
		}
		return key.Public(), nil
	}
	if err != nil {
		return trust.PublicKey{}, fmt.Errorf("read public key %s: %w", path, err)
	}
	return f.Public, nil
}
