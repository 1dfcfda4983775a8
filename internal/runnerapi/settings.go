package runnerapi

import "encoding/json"

// SettingsVersion is the journal version of settings.json. History: 1 first.
const SettingsVersion = 1

// SettingsFile is the name of the fleet's settings, beside active.json. Only
// the agent writes it.
const SettingsFile = "settings.json"

// Settings is what the fleet sets in the runner: keys as in runner.yaml.
type Settings struct {
	Digest  string          `json:"digest"`
	Content json.RawMessage `json:"content"`
}

// SettingsStatus tells which settings of the fleet the runner has taken up.
type SettingsStatus struct {
	Digest string `json:"digest"`
	// Err is why it goes on with those of before.
	Err string `json:"err,omitempty"`
	// Local names inputs and targets that runner.yaml has as well: they count.
	Local []string `json:"local,omitempty"`
}
