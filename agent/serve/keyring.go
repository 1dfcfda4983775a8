package serve

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/edgeherd/edgeherd/internal/trust"
)

// KeyringIn returns Options.Keyring for a box: the keys that it trusts, from
// box.json in its identity directory. Only that field is read: the private key
// beside it is for the agent alone.
func KeyringIn(identity string) func() (trust.Keyring, error) {
	return func() (trust.Keyring, error) {
		data, err := os.ReadFile(filepath.Join(identity, "box.json"))
		if err != nil {
			return trust.Keyring{}, fmt.Errorf("read trusted keys (is the box enrolled? `identity:` in runner.yaml names the directory): %w", err)
		}
		var box struct {
			Keyring trust.Keyring `json:"keyring"`
		}
		if err := json.Unmarshal(data, &box); err != nil {
			return trust.Keyring{}, fmt.Errorf("read trusted keys from box.json in %s: %w", identity, err)
		}
		return box.Keyring, nil
	}
}
