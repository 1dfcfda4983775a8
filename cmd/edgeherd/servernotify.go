package main

import (
	"fmt"

	"github.com/edgeherd/edgeherd/controller/notify"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// notifyConfig is one entry of the key notify of server.yaml.
type notifyConfig struct {
	Name         string   `yaml:"name"`
	URL          string   `yaml:"url"`          // of shoutrrr, such as ntfy://ntfy.sh/my-topic
	URLFile      string   `yaml:"url_file"`     // a file that holds it: it often is a secret
	Webhook      string   `yaml:"webhook"`      // takes JSON by POST
	SecretFile   string   `yaml:"secret_file"`  // signs it
	Alertmanager string   `yaml:"alertmanager"` // such as http://127.0.0.1:9093
	TokenFile    string   `yaml:"token_file"`   // bearer token for it
	About        []string `yaml:"about"`        // tickets, trust, rollouts, or changes such as rollouts.halted; default tickets and trust
	Level        string   `yaml:"level"`        // least level: watch, ticket or urgent; default ticket
	Sites        []string `yaml:"sites"`        // default all
	Language     string   `yaml:"language"`     // of what it says: en, de, pl or zh; default en
	Quiet        []string `yaml:"quiet"`        // times in which only what is urgent is told
}

func (c notifyConfig) endpoint() notify.Endpoint {
	return notify.Endpoint{
		Name: c.Name, Shoutrrr: c.URL, ShoutrrrFile: c.URLFile, Webhook: c.Webhook, SecretFile: c.SecretFile, Alertmanager: c.Alertmanager,
		TokenFile: c.TokenFile, About: c.About, Least: fleetapi.Health(c.Level), Sites: c.Sites, Language: c.Language, Quiet: c.Quiet,
	}
}

func (c serverConfig) notify() []notify.Endpoint {
	var out []notify.Endpoint
	guard, _ := c.guard() // check has told what is wrong with it
	for _, n := range c.Notify {
		e := n.endpoint()
		e.Guard = guard
		out = append(out, e)
	}
	return out
}

// checkNotify names the line of the first endpoint that cannot work. Files are
// read when the controller opens.
func (c serverConfig) checkNotify(file []byte) error {
	for i, n := range c.Notify {
		if err := n.endpoint().CheckForm(); err != nil {
			return fmt.Errorf("line %d: notify: endpoint %d %q: %w", lineOf(file, "notify"), i+1, n.Name, err)
		}
	}
	return nil
}
