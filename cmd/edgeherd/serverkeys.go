package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust/keyfile"
)

// keysCredential is the name of the systemd credential with the passphrase.
const keysCredential = "edgeherd-keys"

// keys is what seals the private keys in the state directory; nil: nothing does.
func (c serverConfig) keys(env func(string) string) (*keyfile.Lock, error) {
	path := c.KeysPassphraseFile
	if dir := env("CREDENTIALS_DIRECTORY"); path == "" && dir != "" {
		path = filepath.Join(dir, keysCredential)
		if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
	}
	if path == "" {
		return nil, nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase of the keys: %w", err)
	}
	lock, err := keyfile.NewLock(text, keyfile.Cost)
	if err != nil {
		return nil, fmt.Errorf("the passphrase of the keys in %s: %w", path, err)
	}
	return lock, nil
}

// keysFault says what to do about keys that do not open.
func keysFault(err error) error {
	switch {
	case errors.Is(err, keyfile.ErrLocked):
		return fmt.Errorf("%w: name the file that holds it with keys_passphrase_file in server.yaml, or give it as the systemd credential %s", err, keysCredential)
	case errors.Is(err, keyfile.ErrPassphrase):
		return fmt.Errorf("%w: it was sealed under another passphrase than keys_passphrase_file or the credential %s holds", err, keysCredential)
	}
	return err
}

func serverKeysCommand(c *cli) *cobra.Command {
	var s *serverFlags
	cmd := c.verb("open", "Write the private keys back in plain text; the controller must not run", func(context.Context, []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		lock, err := cfg.keys(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		if err := unsealKeys(cfg.State, lock); err != nil {
			return keysFault(err)
		}
		c.say("The keys are in plain text. Remove keys_passphrase_file from server.yaml, or the credential; with another passphrase there, the next start seals them under that one.")
		return nil
	})
	s = addServerFlags(cmd)
	return c.group("keys", "The private keys of a controller, which keys_passphrase_file keeps sealed", cmd)
}

func unsealKeys(state string, lock *keyfile.Lock) (err error) {
	held, err := durable.LockDir(state)
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("a controller runs on %s: stop it first", state)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, held.Close()) }()
	var plain *keyfile.Lock
	for _, name := range []string{"ca/ca-key.pem", "ca/next-ca-key.pem", "ca/issuing-device.pem", "ca/issuing-device-before.pem", "ca/issuing-server.pem", "keys/secrets.key"} {
		path := filepath.Join(state, filepath.FromSlash(name))
		data, err := lock.Read(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = plain.Write(path, data)
		}
		if err != nil {
			return err
		}
	}
	path := filepath.Join(state, "keys", "signing.key")
	key, err := lock.LoadKey(path)
	if err == nil {
		err = plain.WriteKey(path, key)
	}
	return err
}
