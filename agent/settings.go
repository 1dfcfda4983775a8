package agent

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/config"
	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/agent/secrets"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// maxLocalText bounds one setting of the box as it is told.
const maxLocalText = 120

// overlay lays the fleet's settings under those of the box: what a file on the
// box has counts, unless it is the default.
type overlay struct {
	fleet boxconfig.Settings
	local []string
}

func (o *overlay) mine(path, value string) {
	if f, _ := boxconfig.FieldOf(path); f.Type != boxconfig.Text && value != "" {
		path += "=" + value // texts may hold what is nobody's business
	}
	if len(path) <= maxLocalText && len(o.local) < wire.MaxLocalSettings {
		o.local = append(o.local, path)
	}
}

func (o *overlay) duration(path string, into *time.Duration) {
	f, _ := boxconfig.FieldOf(path)
	standard, _ := time.ParseDuration(f.Default) // a test reads all defaults
	if *into != 0 && *into != standard {
		o.mine(path, into.String())
		return
	}
	if text, ok := o.fleet[path].(string); ok {
		*into, _ = time.ParseDuration(text) // Parse has read it
	}
}

func (o *overlay) number(path string, into *int64) {
	f, _ := boxconfig.FieldOf(path)
	standard, _ := strconv.ParseInt(f.Default, 10, 64)
	if *into != 0 && *into != standard {
		o.mine(path, strconv.FormatInt(*into, 10))
		return
	}
	if n, ok := o.fleet[path].(int64); ok {
		*into = n
	}
}

func (o *overlay) text(path string, into *string) {
	f, _ := boxconfig.FieldOf(path)
	if *into != "" && *into != f.Default {
		o.mine(path, "")
		return
	}
	if text, ok := o.fleet[path].(string); ok {
		*into = text
	}
}

// under returns the options of the box with the fleet's settings, and the names
// of settings that the box has itself.
func (o Options) under(fleet boxconfig.Settings) (Options, []string) {
	l := overlay{fleet: fleet}
	l.duration("agent.sense_period", &o.SensePeriod)
	l.duration("agent.seal_period", &o.SealPeriod)
	l.duration("agent.trial", &o.Trial)
	l.duration("agent.probation", &o.Probation)
	l.duration("agent.first_delay", &o.FirstDelay)
	l.duration("agent.blackbox_period", &o.BlackboxPeriod)
	l.number("agent.spool_bytes", &o.SpoolBytes)
	l.number("agent.min_free_bytes", &o.MinFreeBytes)
	l.number("agent.download_bytes_per_second", &o.DownloadRate)
	l.number("agent.download_bytes_per_month", &o.MonthBytes)
	l.text("agent.peer_listen", &o.PeerListen)
	l.text("agent.peer_address", &o.PeerAddress)
	l.text("agent.server", &o.Server)
	l.text("agent.proxy", &o.Proxy)
	l.text("agent.proxy_auth_file", &o.ProxyAuth)
	if path, reference, err := secrets.Path(o.Secrets, o.ProxyAuth); err == nil && reference {
		o.ProxyAuth = path
	}
	if o.NoBlackbox {
		l.mine("agent.blackbox", "false")
	} else if keep, ok := fleet["agent.blackbox"].(bool); ok {
		o.NoBlackbox = !keep
	}
	sensors := map[string]string{}
	for path, v := range fleet {
		if key, ok := strings.CutPrefix(path, "agent.sensors["); ok {
			sensors[strings.TrimSuffix(key, "]")] = v.(string)
		}
	}
	for key, role := range o.Sensors {
		sensors[key] = role
		l.mine("agent.sensors["+key+"]", role)
	}
	if o.Sensors = sensors; len(sensors) == 0 {
		o.Sensors = nil
	}
	slices.Sort(l.local)
	return o, l.local
}

// openSettings reads the fleet's settings before any part is made with them.
func openSettings(opts Options, a *Agent) (Options, error) {
	var err error
	a.settings, err = config.Open(config.Options{State: opts.State, Settle: opts.Trial, Permit: opts.SettingsAllow.Check}, a.log)
	if err != nil {
		return opts, err
	}
	opts, local := opts.under(a.settings.Settings())
	a.settings.SetLocal(local)
	return opts, nil
}

// checkSettings is what this box has against settings of the fleet that parse.
func (a *Agent) checkSettings(s boxconfig.Settings) error {
	if text, ok := s["agent.peer_listen"].(string); ok && text != "" {
		if _, _, err := net.SplitHostPort(text); err != nil {
			return fmt.Errorf("agent.peer_listen: %q: want a port such as \":7443\"", text)
		}
	}
	if text, ok := s["agent.server"].(string); ok {
		if _, err := dial.ParseServer(text); err != nil {
			return err
		}
	}
	if text, ok := s["agent.proxy"].(string); ok {
		if _, err := dial.ParseProxy(text); err != nil {
			return err
		}
	}
	if len(a.opts.Fans) > 0 {
		if d, err := time.ParseDuration(fmt.Sprint(s["agent.sense_period"])); err == nil && d > fanSensePeriod {
			return fmt.Errorf("agent.sense_period is %s: this box raises a fan, and may have at most %s", d, fanSensePeriod)
		}
	}
	return nil
}

// fanSensePeriod is the longest with a fan policy: its guard waits 30 s for a
// sign of life.
const fanSensePeriod = 10 * time.Second

// settingsLoop follows the fleet's settings.
func (a *Agent) settingsLoop(ctx context.Context) error {
	return a.settings.Run(ctx, config.Parts{
		Runner: a.opts.Runner, Check: a.checkSettings, Report: a.reportSettings, Changed: a.tellSettings,
		Connected: a.link.Connected,
	})
}

func (a *Agent) reportSettings(r config.Report) error {
	body := wire.PhaseBody{
		Name: r.Document.Name, Version: r.Document.Version, Digest: r.Document.Digest.String(), Rollout: r.Document.Rollout,
		Attempt: r.Document.Attempt, Phase: r.Phase, Err: brief(r.Err),
	}
	text := fmt.Sprintf("settings %s:%s %s", body.Name, body.Version, body.Phase)
	if r.Err != "" {
		text += ": " + r.Err
	}
	return a.event(wire.EventConfigPhase, text, body)
}

// tellSettings tells the controller what is followed.
func (a *Agent) tellSettings() {
	a.noteRunning()
	a.link.SayHello()
}
