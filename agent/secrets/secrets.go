// Package secrets puts what a controller sealed to this box where the programs of
// the box read it.
//
// Vocabulary: a secret is a name and a value of a line or a few, such as the
// password of a camera. It comes sealed in the desired state, which is what lies
// on the disk; opened it lies in a directory that does not outlive the boot:
//
//	/run/edgeherd-agent/secrets/NAME   the value, mode 0600
//
// Where configuration takes the path of a file with a secret, `secret:NAME` is
// such a file (Path). Read reads it at each use, so a new value counts at once.
//
// The one rule a caller can break: no value in an error, a log or an event; names
// are all that may be told.
package secrets

import (
	"crypto/ecdh"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// DefaultDir is a directory of the agent's unit, in memory.
const DefaultDir = "/run/edgeherd-agent/secrets"

const prefix = "secret:"

// Path is the file that a key of the configuration means: `secret:NAME` is one
// below dir, anything else is a path.
func Path(dir, file string) (path string, reference bool, err error) {
	name, ok := strings.CutPrefix(file, prefix)
	if !ok {
		return file, false, nil
	}
	if err := wire.CheckSecretName(name); err != nil {
		return "", true, err
	}
	return filepath.Join(dir, name), true, nil
}

// maxFileBytes is far more than a line with a password has.
const maxFileBytes = 64 << 10

// Read returns the first line of a file with a secret, without white space about
// it. What is no regular file, such as a pipe, which would be waited for without
// end, what has more than 64 KiB and what has an empty line is an error.
func Read(path string) (string, error) {
	info, err := os.Stat(path) // before open, which blocks on a named pipe
	if err == nil && (!info.Mode().IsRegular() || info.Size() > maxFileBytes) {
		err = fmt.Errorf("%s is no regular file of at most %d bytes", path, maxFileBytes)
	}
	var data []byte
	if err == nil {
		data, err = os.ReadFile(path)
	}
	line, _, _ := strings.Cut(string(data), "\n")
	if line = strings.TrimSpace(line); err == nil && line == "" {
		err = fmt.Errorf("%s is empty", path)
	}
	if err != nil {
		return "", fmt.Errorf("read secret: %w", err)
	}
	return line, nil
}

// Options of a Keeper. Box and Keys are required.
type Options struct {
	// Dir is for opened secrets; default none: all are refused.
	Dir string
	Box identity.ID
	// Keys are what secrets may be sealed to, asked for when one is to be opened:
	// a renewal changes them.
	Keys func() ([]ecdh.KeyExchanger, error)
}

// Keeper opens secrets. It is not safe for concurrent use.
type Keeper struct {
	opts Options
	have map[string]string // version by name, of what lies in Dir since this start
}

// New prepares a Keeper. It touches no file.
func New(opts Options) *Keeper { return &Keeper{opts, map[string]string{}} }

// Follow makes Dir hold the secrets of want and no others. What cannot be opened
// is an error that names it; the value of before stays then, and all others are
// there. changed says that the controller should hear of it.
func (k *Keeper) Follow(want []wire.DesiredSecret) (changed bool, err error) {
	if k.opts.Dir == "" && len(want) > 0 {
		return false, fmt.Errorf("%d secrets came, and this agent was told no directory for them: set secrets in agent.yaml", len(want))
	}
	var errs []error
	var keys []ecdh.KeyExchanger
	for _, s := range want {
		if err := wire.CheckSecretName(s.Name); err != nil { // it becomes the name of a file
			errs = append(errs, err)
			continue
		}
		if k.have[s.Name] == s.Version {
			if _, err := os.Stat(filepath.Join(k.opts.Dir, s.Name)); err == nil {
				continue
			}
		}
		if keys == nil {
			var err error
			if keys, err = k.opts.Keys(); err != nil {
				return changed, errors.Join(append(errs, fmt.Errorf("open the key that secrets are sealed to: %w", err))...)
			}
		}
		if err := k.open(s, keys); err != nil {
			errs = append(errs, err)
			continue
		}
		k.have[s.Name], changed = s.Version, true
	}
	left := len(k.have)
	errs = append(errs, k.clear(want))
	return changed || len(k.have) != left, errors.Join(errs...)
}

func (k *Keeper) open(s wire.DesiredSecret, keys []ecdh.KeyExchanger) error {
	for _, key := range keys {
		if identity.SealID(key.PublicKey()) != s.Key {
			continue
		}
		value, err := identity.Unseal(key, k.opts.Box, s.Name, s.Sealed)
		if err != nil {
			return err
		}
		if err := durable.MkdirAll(k.opts.Dir, 0o700); err != nil {
			return fmt.Errorf("make directory of opened secrets: %w", err)
		}
		return durable.WriteFile(filepath.Join(k.opts.Dir, s.Name), value, 0o600)
	}
	return fmt.Errorf("secret %s is sealed to key %q, which this box has no longer; the controller seals it anew when it has heard of the present one", s.Name, s.Key)
}

// clear removes what want does not name.
func (k *Keeper) clear(want []wire.DesiredSecret) error {
	if k.opts.Dir == "" {
		return nil
	}
	entries, err := os.ReadDir(k.opts.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look through opened secrets: %w", err)
	}
	wanted := map[string]bool{}
	for _, s := range want {
		wanted[s.Name] = true
	}
	var errs []error
	for _, e := range entries {
		if !wanted[e.Name()] {
			delete(k.have, e.Name())
			errs = append(errs, os.RemoveAll(filepath.Join(k.opts.Dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// Wipe removes all opened secrets of a directory.
func Wipe(dir string) error { return New(Options{Dir: dir}).clear(nil) }
