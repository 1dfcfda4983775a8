package secrets

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust/keyfile"
)

// KeyFile is where the key lies in the state directory of a controller. Backups
// leave it out.
const KeyFile = "keys/secrets.key"

const keyPrefix = "edgeherd-secrets:"

// errOtherKey says that a secret was encrypted under a key that is gone.
var errOtherKey = errors.New("it was encrypted under a key that this controller does not have: bring keys/secrets.key back, or set it anew")

// key encrypts secrets at rest with AES-256-GCM and a nonce of its own each.
type key struct {
	id   string // first 8 bytes of a SHA-256 that is of no other use
	aead cipher.AEAD
}

// openKey reads the key below a state directory, and makes it when there is none.
func openKey(dir string, keys *keyfile.Lock) (key, error) {
	path := filepath.Join(dir, filepath.FromSlash(KeyFile))
	text, err := keys.Load(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err = makeKey(path, keys); err == nil {
			text, err = keys.Load(path) // ours, or that of who was faster
		}
	}
	if err != nil {
		return key{}, fmt.Errorf("open the key of secrets: %w", err)
	}
	rest, ok := strings.CutPrefix(strings.TrimSpace(string(text)), keyPrefix)
	raw, err := base64.StdEncoding.DecodeString(rest)
	if !ok || err != nil || len(raw) != 32 {
		return key{}, fmt.Errorf("open the key of secrets: %s is not %s and 32 bytes of base64", path, keyPrefix)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return key{}, fmt.Errorf("open the key of secrets: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return key{}, fmt.Errorf("open the key of secrets: %w", err)
	}
	sum := sha256.Sum256(append([]byte("edgeherd secrets key id\x00"), raw...))
	return key{hex.EncodeToString(sum[:8]), aead}, nil
}

// makeKey makes the file unless there is one meanwhile: controllers that share the
// folder may start for the first time at once, and one key must win for all.
func makeKey(path string, keys *keyfile.Lock) error {
	var raw [32]byte
	rand.Read(raw[:])
	if err := durable.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	own := path + "." + rand.Text()
	if err := keys.Write(own, []byte(keyPrefix+base64.StdEncoding.EncodeToString(raw[:])+"\n")); err != nil {
		return err
	}
	err := os.Link(own, path) // never replaces
	if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	return errors.Join(err, durable.Remove(own), durable.SyncDir(filepath.Dir(path)))
}

// place binds what is encrypted to its row: one that is moved does not open.
func place(s store.Secret) []byte {
	return []byte(strings.Join([]string{s.Name, string(s.Scope), s.Target, s.Version}, "\x00"))
}

func (k key) seal(s *store.Secret, value []byte) {
	s.Key, s.Sealed = k.id, k.aead.Seal(nil, nil, value, place(*s))
}

func (k key) open(s store.Secret) ([]byte, error) {
	if s.Key != k.id {
		return nil, fmt.Errorf("secret %s: %w", s.SecretAt, errOtherKey)
	}
	value, err := k.aead.Open(nil, nil, s.Sealed, place(s))
	if err != nil {
		return nil, fmt.Errorf("secret %s cannot be decrypted: %w", s.SecretAt, err)
	}
	return value, nil
}
