package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	wireenrol "github.com/edgeherd/edgeherd/internal/enrol"
)

func noEnv(string) string { return "" }

func TestConfigurationFaultsNameTheKeyAndTheWayOut(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"sense_period: 5s\nseal_period: 15s\ntrial: 4s\nprobation: 2s\nspool_bytes: 4000000\nlog: debug\n", ""},
		{"sense_period: 0s\nspool_bytes: 0\n", ""}, // zero is the default
		{"state: /x\nsence_period: 5s\n", "line 2: field sence_period is not a key of agent.yaml"},
		{"sense_period: 10\n", "line 1: cannot unmarshal !!int `10`: want a time with its unit"},
		{"sense_period: -5s\n", "sense_period is -5s"},
		{"seal_period: 24h\n", "seal_period is 24h0m0s: want 1s to 1h0m0s"},
		{"trial: 1ms\n", "trial is 1ms"},
		{"probation: 20m\n", "probation is 20m0s: want 1s to 10m0s"},
		{"probation: -1s\n", "probation is -1s"},
		{"first_delay: -1s\n", "first_delay is -1s"},
		{"spool_bytes: -1\n", "spool_bytes is -1: want 0 for the default, or more"},
		{"min_free_bytes: -1\n", "min_free_bytes is -1"},
		{"spool_bytes: 64MB\n", "line 1"},
		{"trial: soon\n", "line 1"},
		{"server: auto\nproxy: http://10.0.0.1:3128\n", ""},
		{"server: wss://ctl:8443/mqtt\n", ""},
		{"server: mqtt://ctl\n", `server: the scheme is "mqtt"; want auto, mqtts://HOST:8883 or wss://HOST:8443/mqtt`},
		{"proxy: http://u:pw@proxy:3128\n", "proxy: a user or password is in the address; put USER:PASSWORD into a file of mode 0600 and name it with the key proxy_auth_file"},
		{"proxy: socks5://proxy\n", `proxy: the scheme is "socks5"`},
		{"proxy_auth_file: /etc/hosts\n", "proxy_auth_file is set without proxy"},
		{"proxy: http://proxy:3128\nbucket_hosts: [s3.example.net, \"10.0.0.7:9000\"]\n", ""},
		{"bucket_hosts: [s3.example.net]\n", "bucket_hosts is set without proxy: name the proxy, or remove it"},
		{"proxy: http://proxy:3128\nbucket_hosts: [\"https://s3.example.net\"]\n", "is not a host such as s3.example.net, or host:port"},
		{"proxy: http://proxy:3128\nbucket_hosts: [s3.example.net/fleet]\n", "is not a host such as s3.example.net, or host:port"},
		{"proxy: http://proxy:3128\nbucket_hosts: [\"\"]\n", "is not a host"},
		{"proxy: http://proxy\nproxy_auth_file: /etc/hosts\n", "run chmod 600 /etc/hosts"},
		{"proxy: http://proxy\nproxy_auth_file: /nonexistent\n", "proxy_auth_file: open /nonexistent"},
		{"log: loud\n", "loud"},
		{"log: info\nlog: warn\n", "line 2"},
		{"- a list\n", "line 1"},
		{"sensors:\n  hwmon/nct6798/isa:0290/temp3: inlet\n", ""},
		{"sensors:\n  x: outside\n", `sensors: x is "outside": want one of die, inlet`},
		{"outside:\n  ups: [\"rack@nut.local\"]\n  gpu_period: 1m\n  dust: [{path: /dev/ttyUSB0, kind: sds011, period_minutes: 5}]\n", ""},
		{"outside:\n  ups: [rack]\n", `outside: supply "rack": want name@host`},
		{"outside:\n  upps: [rack]\n", "line 2: field upps is not a key of outside"},
		{"blackbox: false\nblackbox_period: 30s\n", ""},
		{"blackbox_period: 5m\n", "blackbox_period is 5m0s: want 10s to 1m0s"},
		{"fan:\n- {sku: ACME X1, chip: nct6798, pwm: 2, raise: [{celsius: 60, duty: 0.5}]}\n", ""},
		{"fan:\n- {sku: ACME X1, chip: nct6798, pwm: 2, raise: [{celsius: 60, duty: 0.1}]}\n", "fan: ACME X1: raise: duty 0.1"},
		{"fan:\n- {chip: nct6798, pwm: 2, raise: [{celsius: 60, duty: 0.5}]}\n", "name the sku"},
		{"fan:\n- {sku: ACME X1, chip: a, pwm: 2, raise: [{celsius: 60, duty: 1}]}\n- {sku: ACME X1, chip: b, pwm: 1, raise: [{celsius: 60, duty: 1}]}\n", "two policies"},
		{"sense_period: 1m\nfan:\n- {sku: ACME X1, chip: nct6798, pwm: 2, raise: [{celsius: 60, duty: 0.5}]}\n", "sense_period is 1m0s: with a fan policy at most 10s"},
		{"fan:\n- {sku: ACME X1, speed: 7}\n", "line 2: field speed is not a key of a fan policy"},
	} {
		path := filepath.Join(t.TempDir(), "agent.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := loadConfig([]string{"--config", path}, noEnv)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%q: %v", c.text, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path)):
			t.Errorf("%q: %v, want %q and the path", c.text, err, c.want)
		}
	}
}

func TestFlagsWinOverTheEnvironmentAndThatOverTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte("state: /file\nroot: /file\nrunner: /file\ntrial: 7s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"EDGEHERD_STATE": "/env", "EDGEHERD_ROOT": "/env"}
	c, err := loadConfig([]string{"--config", path, "--state", "/flag", "--log", "warn"}, func(k string) string { return env[k] })
	if err != nil {
		t.Fatal(err)
	}
	if c.State != "/flag" || c.Root != "/env" || c.Runner != "/file" || c.Trial != 7*time.Second || c.Log.String() != "WARN" {
		t.Errorf("%+v", c)
	}
}

func TestWrongUseIsToldApart(t *testing.T) {
	for _, args := range [][]string{nil, {"walk"}, {"run", "--nonsense"}, {"run", "x"}, {"run", "--log", "loud"}, {"check-spool"}, {"enroll", "--root", "/nonexistent"}, {"enroll", "A", "B"}, {"enroll", "--tpm"}, {"doctor", "-o"}} {
		if err := run(t.Context(), args, new(bytes.Buffer), new(bytes.Buffer)); !errors.Is(err, errUsage) {
			t.Errorf("%q: %v, want wrong use", args, err)
		}
	}
	err := run(t.Context(), []string{"run", "--config", "/nonexistent/agent.yaml"}, new(bytes.Buffer), new(bytes.Buffer))
	if err == nil || errors.Is(err, errUsage) || !strings.Contains(err.Error(), "/nonexistent/agent.yaml") {
		t.Errorf("missing file: %v", err)
	}
}

func TestHelpIsNoWrongUse(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"--help"}, {"accept", "--help"}, {"run", "--state", "x", "-h"}} {
		var out bytes.Buffer
		if err := run(t.Context(), args, &out, new(bytes.Buffer)); err != nil || out.String() != usage {
			t.Errorf("%q: %v, %q", args, err, out.String())
		}
	}
}

func TestTheShippedConfigurationIsAccepted(t *testing.T) {
	if _, err := loadConfig([]string{"--config", "../../deploy/config/agent.yaml"}, noEnv); err != nil {
		t.Error(err)
	}
}

// TestTheExamplesOfTheDocumentAreAccepted, and set what they are about.
func TestTheExamplesOfTheDocumentAreAccepted(t *testing.T) {
	doc, err := os.ReadFile("../../docs/sensors.md")
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for i, part := range strings.Split(string(doc), "```") {
		if example, yaml := strings.CutPrefix(part, "yaml\n"); yaml && i%2 == 1 {
			text.WriteString(example)
		}
	}
	path := filepath.Join(t.TempDir(), "agent.yaml")
	if err := os.WriteFile(path, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig([]string{"--config", path}, noEnv)
	if err != nil || len(c.Sensors) == 0 || c.Outside.Redfish.URL == "" || len(c.Outside.UPS) == 0 || len(c.Outside.Dust) == 0 {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestSensorsAreListedByTheKeysOfTheConfiguration, with those that are not there.
func TestSensorsAreListedByTheKeysOfTheConfiguration(t *testing.T) {
	root := t.TempDir()
	for name, text := range map[string]string{
		"sys/class/hwmon/hwmon3/name": "nct6798", "sys/class/hwmon/hwmon3/temp3_input": "31500",
		"sys/class/hwmon/hwmon3/temp4_input": "40000", "proc/loadavg": "0.50 0.40 0.30 1/100 1",
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text+"\n"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(root, "agent.yaml")
	text := "sensors: {hwmon/nct6798/virtual/temp3: inlet, hwmon/nct6798/virtual/temp9: board, hwmon/nct6798/virtual/temp4: none}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		if err := run(t.Context(), []string{"sensors", "--config", config, "--root", root}, &out, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
		rows := strings.Join(strings.Fields(out.String()), " ")
		for _, want := range []string{
			"hwmon/nct6798/virtual/temp3 temp_inlet_celsius 31.5", "proc/loadavg load1 0.5",
			"hwmon/nct6798/virtual/temp9 board not there", "hwmon/nct6798/virtual/temp4 none left out",
		} {
			if !strings.Contains(rows, want) {
				t.Errorf("%s\nwant %q", out.String(), want)
			}
		}
	})
}

// TestStatusSaysHowTheBoxIsConnected, from what the agent wrote down.
func TestStatusSaysHowTheBoxIsConnected(t *testing.T) {
	state := t.TempDir()
	status := func(args ...string) (string, error) {
		var out bytes.Buffer
		err := run(t.Context(), append([]string{"status", "--state", state}, args...), &out, new(bytes.Buffer))
		return out.String(), err
	}
	if _, err := status(); err == nil || !strings.Contains(err.Error(), "edgeherd-agent enroll TOKEN") {
		t.Errorf("a machine that is no box yet: %v", err)
	}
	identity := agent.IdentityDir(state)
	if err := errors.Join(os.Mkdir(identity, 0o700), os.WriteFile(filepath.Join(identity, "cert.pem"), nil, 0o600), os.WriteFile(filepath.Join(identity, "box.json"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := status(); err == nil || !strings.Contains(err.Error(), "has it run on this state directory?") {
		t.Errorf("no status: %v", err)
	}
	text := `{"id":"d-abcdefghijklm","name":"till-3","site":"berlin-1","version":"v1","process":999999999,"connected":true,"since":"2026-03-01T12:00:00Z",
		"ways":{"way":"wss://ctl:8443/mqtt through http://proxy:3128","failed":[{"way":"x","err":"mqtts://ctl:8883 failed at TCP: nothing answers","at":"2026-03-01T11:59:50Z"}]}}`
	if err := os.WriteFile(filepath.Join(state, "status.json"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := status()
	for _, want := range []string{"till-3  site berlin-1", "connected since 2026-03-01T12:00:00Z by wss://ctl:8443/mqtt through http://proxy:3128", "nothing answers", "process 999999999 is gone"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%s%v, want %q", out, err, want)
		}
	}
	if out, err = status("--json"); err != nil || !strings.Contains(out, `"connected": true`) {
		t.Errorf("%s%v", out, err)
	}
}

// TestAnAgentWaitsForAFullDiskAndSaysItOnce: to end would start it again and again.
func TestAnAgentWaitsForAFullDiskAndSaysItOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said bytes.Buffer
		log := slog.New(slog.NewTextHandler(&said, nil))
		full, other := fmt.Errorf("open spool: %w", spool.ErrNoWrites), errors.New("no identity")
		tries := 0
		open := func() (*agent.Agent, error) {
			if tries++; tries < 20 {
				return nil, full
			}
			return nil, other
		}
		began := time.Now()
		if a, err := whenTheDiskPermits(t.Context(), log, open); a != nil || !errors.Is(err, other) {
			t.Errorf("%v, %v", a, err)
		}
		if took := time.Since(began); took < 10*time.Minute || took > 20*time.Minute {
			t.Errorf("20 tries took %s", took)
		}
		if strings.Count(said.String(), "\n") != 1 || !strings.Contains(said.String(), "make room on it") {
			t.Errorf("said: %s", said.String())
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if a, err := whenTheDiskPermits(ctx, log, func() (*agent.Agent, error) { return nil, full }); a != nil || err != nil {
			t.Errorf("asked to end: %v, %v", a, err)
		}
	})
}

// TestMain lets this program be the guard that the next test starts.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "fan-guard" {
		if err := run(context.Background(), os.Args[1:], os.Stdout, os.Stderr); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// TestTheGuardOfAFanIsAProcessThatRestores, and so does the command after a stop.
func TestTheGuardOfAFanIsAProcessThatRestores(t *testing.T) {
	dir := t.TempDir()
	enable, pwm := filepath.Join(dir, "pwm1_enable"), filepath.Join(dir, "pwm1")
	put := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put(enable, "1\n")
	put(pwm, "200\n")
	g, err := startFanGuard(fmt.Appendf(nil, `{"pwm":%q,"enable":%q,"mode":"5"}`+"\n", pwm, enable))
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if mode, err := os.ReadFile(enable); err != nil || string(mode) != "5\n" {
		t.Errorf("mode %q, %v", mode, err)
	}
	put(enable, "1\n")
	put(filepath.Join(dir, "fan.json"), fmt.Sprintf(`{"version":1,"state":{"boot":"","order":{"pwm":%q,"enable":%q,"mode":"2"}}}`, pwm, enable))
	err = run(t.Context(), []string{"fan-guard", "--restore", "--state", dir, "--root", dir}, new(bytes.Buffer), new(bytes.Buffer))
	if mode, _ := os.ReadFile(enable); err != nil || string(mode) != "2\n" {
		t.Errorf("mode %q, %v", mode, err)
	}
	if err := run(t.Context(), []string{"fan-guard", "now"}, new(bytes.Buffer), new(bytes.Buffer)); !errors.Is(err, errUsage) {
		t.Errorf("by hand: %v", err)
	}
}

// TestAGuardThatReadsNoMoreHoldsUpNobody: one that was stopped (SIGSTOP).
func TestAGuardThatReadsNoMoreHoldsUpNobody(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if _, err := (pipe{w, nil}).Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v, want that it is not waited for", err)
	}
}

// TestATokenIsFoundOnAStick: the one that is there, not one of several.
func TestATokenIsFoundOnAStick(t *testing.T) {
	root, token := t.TempDir(), wireenrol.NewToken("fleet.example.com", 8443, wireenrol.Pin{1})
	put := func(stick string) string {
		dir := filepath.Join(root, stick, wireenrol.KitDir)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, wireenrol.KitToken)
		if err := os.WriteFile(path, []byte("# for hamburg-3\n\n"+strings.ToLower(token.String())+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	first := put("media/usb")
	got, from, err := findToken(enrollFlags{}, nil, root)
	if err != nil || from != first || got.Secret != token.Secret {
		t.Fatalf("%v from %q, %v", got, from, err)
	}
	var said bytes.Buffer
	destroy(first, &said)
	if _, err := os.Stat(first); !errors.Is(err, fs.ErrNotExist) || said.Len() > 0 {
		t.Errorf("the token is still there: %v, %s", err, said.String())
	}
	put("media/usb")
	put("run/media/tech/kit")
	if _, _, err := findToken(enrollFlags{}, nil, root); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "--file") {
		t.Errorf("two sticks: %v", err)
	}
	if got, _, err := findToken(enrollFlags{token: "-"}, strings.NewReader(token.String()), root); err != nil || got.ID != token.ID {
		t.Errorf("from standard input: %v, %v", got, err)
	}
	if _, _, err := findToken(enrollFlags{token: strings.Replace(token.String(), "8443", "8444", 1)}, nil, root); err == nil || !strings.Contains(err.Error(), "address") {
		t.Errorf("a typing error in the port: %v", err)
	}
}

// TestEveryKeyOfTheFileIsAFieldOrLocalOnPurpose: a key of agent.yaml can be set by
// documents, or is named with the reason why not; and there are no others.
func TestEveryKeyOfTheFileIsAFieldOrLocalOnPurpose(t *testing.T) {
	var keys, known []string
	of := reflect.TypeFor[config]()
	for i := range of.NumField() {
		if tag := of.Field(i).Tag.Get("yaml"); tag != "" {
			keys = append(keys, "agent."+tag)
		}
	}
	for _, f := range boxconfig.Fields() {
		if strings.HasPrefix(f.Path, "agent.") {
			known = append(known, f.Path)
		}
	}
	guide, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range boxconfig.Locals() {
		if strings.HasPrefix(l.Path, "agent.") {
			known = append(known, l.Path)
		}
		if key := l.Path[strings.LastIndexByte(l.Path, '.')+1:]; !strings.Contains(string(guide), "`"+key+"`") {
			t.Errorf("docs/configuration.md does not name %s", l.Path)
		}
	}
	slices.Sort(keys)
	slices.Sort(known)
	if !slices.Equal(keys, known) {
		t.Errorf("the file has\n%v\ndocuments and reasons\n%v", keys, known)
	}
}

func TestABundleIsNamedOnEitherSideOfFlags(t *testing.T) {
	for _, c := range []struct{ args, bundle, flags string }{
		{"site.tar", "site.tar", ""},
		{"site.tar --state /s", "site.tar", "--state /s"},
		{"--state /s site.tar", "site.tar", "--state /s"},
		{"--config=/c --state /s site.tar", "site.tar", "--config=/c --state /s"},
		{"--state /s", "", "--state /s"},
		{"-- site.tar", "site.tar", ""},
		{"--state /s -- -site.tar", "-site.tar", "--state /s"},
		{"a.tar b.tar", "a.tar", "b.tar"}, // refused with the flags
	} {
		bundle, flags := bundleOf(strings.Fields(c.args))
		if got := strings.Join(flags, " "); bundle != c.bundle || got != c.flags {
			t.Errorf("%s: bundle %q, flags %q", c.args, bundle, got)
		}
	}
	if got := imported(agent.ImportResult{Generation: 3}); !strings.HasPrefix(got, "nothing to import") {
		t.Errorf("a bundle of what runs: %q", got)
	}
}
