package keyfile

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/crypto/nacl/secretbox"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// ErrLocked says that a file is sealed and that there is no passphrase.
var ErrLocked = errors.New("it is sealed, and no passphrase was given")

// Lock keeps files of a program sealed under one passphrase, which it has for as
// long as it runs. A nil Lock keeps them in plain text. Safe for concurrent use.
type Lock struct {
	passphrase []byte
	cost       int

	mu      sync.Mutex // guards derived
	derived map[string]*[32]byte
	salt    []byte // of what is sealed anew: one derivation serves all
}

// NewLock takes a passphrase, and the price of trying one: Cost, or less in tests.
func NewLock(passphrase []byte, cost int) (*Lock, error) {
	passphrase = bytes.TrimSpace(passphrase)
	if len(passphrase) < minPassphrase {
		return nil, fmt.Errorf("a passphrase of %d characters is too short: use %d or more, such as 32 random bytes in hexadecimal", len(passphrase), minPassphrase)
	}
	l := &Lock{passphrase: passphrase, cost: cost, derived: map[string]*[32]byte{}, salt: make([]byte, 16)}
	rand.Read(l.salt)
	return l, nil
}

// content is a sealed file of any content. Its first byte tells it from PEM and
// from the other texts that keys are kept in.
type content struct {
	Kind string `json:"kind"`
	file
}

const sealedContent = "edgeherd-sealed"

func parseContent(data []byte) (c content, ok bool) {
	ok = len(data) > 0 && data[0] == '{' && json.Unmarshal(data, &c) == nil && c.Kind == sealedContent
	return c, ok
}

// Read returns what a file holds, sealed or not.
func (l *Lock) Read(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	data, _, err = l.open(path, data)
	return data, err
}

// Load is Read, and seals a file that was in plain text.
func (l *Lock) Load(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	data, sealed, err := l.open(path, data)
	if err == nil && !sealed && l != nil {
		err = l.Write(path, data)
	}
	return data, err
}

func (l *Lock) open(path string, data []byte) (plain []byte, sealed bool, err error) {
	c, sealed := parseContent(data)
	switch {
	case !sealed:
		return data, false, nil
	case c.V != 1:
		return nil, true, fmt.Errorf("%s is sealed in version %d, this program reads 1", path, c.V)
	case l == nil:
		return nil, true, fmt.Errorf("%s: %w", path, ErrLocked)
	}
	sealer, err := l.sealer(c.file)
	if err != nil {
		return nil, true, fmt.Errorf("%s: %w", path, err)
	}
	plain, ok := secretbox.Open(nil, c.Sealed, (*[24]byte)(c.Nonce), sealer)
	if !ok {
		return nil, true, fmt.Errorf("%s: %w", path, ErrPassphrase)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.Cost >= l.cost { // one that is cheap to guess sets no example
		l.salt, l.cost = c.Salt, c.Cost
	}
	return plain, true, nil
}

// sealer derives a key once for each salt.
func (l *Lock) sealer(f file) (*[32]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	key := fmt.Sprintf("%d %x", f.Cost, f.Salt)
	if k := l.derived[key]; k != nil && len(f.Nonce) == 24 {
		return k, nil
	}
	k, err := f.sealer(l.passphrase)
	if err == nil {
		l.derived[key] = k
	}
	return k, err
}

// Write replaces a file, which its owner alone may read.
func (l *Lock) Write(path string, data []byte) error {
	if l == nil {
		return durable.WriteFile(path, data, 0o600)
	}
	l.mu.Lock()
	f := file{V: 1, Cost: l.cost, Salt: l.salt, Nonce: make([]byte, 24)}
	l.mu.Unlock()
	rand.Read(f.Nonce)
	sealer, err := l.sealer(f)
	if err != nil {
		return fmt.Errorf("seal %s: %w", path, err)
	}
	f.Sealed = secretbox.Seal(nil, data, (*[24]byte)(f.Nonce), sealer)
	text, err := json.MarshalIndent(content{sealedContent, f}, "", "  ")
	if err != nil {
		return fmt.Errorf("seal %s: %w", path, err)
	}
	return durable.WriteFile(path, append(text, '\n'), 0o600)
}

// LoadKey reads a signing key. With a lock it is kept in the form that Read and
// the command line know, which has its public half in plain text.
func (l *Lock) LoadKey(path string) (trust.PrivateKey, error) {
	sealed := true
	key, err := Read(path, func(string) ([]byte, error) {
		if l == nil {
			return nil, fmt.Errorf("signing key %s: %w", path, ErrLocked)
		}
		return l.passphrase, nil
	})
	if err == nil && l != nil {
		var data []byte
		if data, err = os.ReadFile(path); err == nil {
			_, sealed, err = parse(data)
		}
	}
	if err != nil || sealed || l == nil {
		return key, err
	}
	return key, l.WriteKey(path, key)
}

// WriteKey replaces the file of a signing key.
func (l *Lock) WriteKey(path string, key trust.PrivateKey) error {
	if l == nil {
		text, err := key.MarshalText()
		if err != nil {
			return err
		}
		return durable.WriteFile(path, append(text, '\n'), 0o600)
	}
	next := path + ".next"
	if err := durable.Remove(next); err != nil { // of a start that was cut short
		return err
	}
	l.mu.Lock()
	cost := l.cost
	l.mu.Unlock()
	if err := Write(next, key, l.passphrase, cost); err != nil {
		return err
	}
	return durable.Rename(next, path)
}
