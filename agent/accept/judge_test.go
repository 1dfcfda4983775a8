package accept

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lines are checks as a table of cases names them: "id part result code".
func lines(checks []acceptance.Check) (out []string) {
	for _, c := range checks {
		out = append(out, strings.Join(strings.Fields(fmt.Sprint(c.ID, " ", c.Part, " ", c.Result, " ", c.Say.Code)), " "))
	}
	return out
}

func has(t *testing.T, name string, checks []acceptance.Check, want ...string) {
	t.Helper()
	got := "\n" + strings.Join(lines(checks), "\n") + "\n"
	for _, w := range want {
		if !strings.Contains(got, "\n"+w+"\n") {
			t.Errorf("%s: no %q in %s", name, w, got)
		}
	}
	for _, c := range checks {
		if c.Result != acceptance.Pass && c.Say.Text == "" {
			t.Errorf("%s: %s is %s and nobody says what to do", name, c.ID, c.Result)
		}
	}
}

func p(x float64) *float64 { return &x }

// plain is a box that is as it should be.
func plain() hardware {
	return hardware{
		cpus: 8, memoryBytes: 16_500_000_000, temps: map[string]float64{"die": 40}, dieLimit: 100, power: p(20),
		fans: []fan{{"fan1", 1200}}, disks: []disk{{name: "nvme0n1", kind: kindNVMe, bytes: 512e9}}, nics: []nic{{"eno1", true, 1000}},
	}
}

func TestHardwareIsJudgedByTheListOrAsPlausible(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*hardware)
		list  Delivery
		want  string
	}{
		{"nothing listed", nil, Delivery{}, "cpu pass|memory pass|accelerator skipped say.none-expected|temperature die pass|fan fan1 pass|power pass|bmc skipped say.no-bmc|disk nvme0n1 pass|nic eno1 pass"},
		{"as listed", nil, Delivery{CPUs: 8, MemoryGiB: 16, Fans: 1, Disks: []DiskWant{{kindNVMe, 500}}, NICs: []NICWant{{"eno1", 1000}}}, "cpu pass|memory pass|fan fan1 pass|disk nvme0n1 pass|nic eno1 pass"},
		{"less than listed", nil, Delivery{CPUs: 16, MemoryGiB: 32, Fans: 2, Power: true, BMC: true, Temperatures: []string{"inlet"}, Accelerators: []string{"NVIDIA A2"}},
			"cpu fail say.wrong-count|memory fail say.wrong-count|accelerator fail say.missing|temperature inlet fail say.missing|fan 2 fail say.missing|power pass|bmc fail say.missing"},
		{"no sensor of the die", func(h *hardware) { h.temps = nil }, Delivery{}, "temperature die fail say.no-die"},
		{"hot before any load", func(h *hardware) { h.temps["die"] = 86 }, Delivery{}, "temperature die warn say.hot-idle"},
		{"colder than may be", func(h *hardware) { h.temps["inlet"] = -40 }, Delivery{}, "temperature inlet fail say.cold"},
		{"still fan, none ordered", func(h *hardware) { h.fans[0].rpm = 0 }, Delivery{}, "fan fan1 warn say.still"},
		{"still fan, one ordered", func(h *hardware) { h.fans[0].rpm = 0 }, Delivery{Fans: 1}, "fan fan1 fail say.still"},
		{"fanless", func(h *hardware) { h.fans = nil }, Delivery{}, "fan skipped say.no-fan"},
		{"two cards, one ordered", func(h *hardware) {
			h.accelerators = []accelerator{{"NVIDIA A2", "nvidia", "550.1"}, {"NVIDIA T4", "nvidia", "550.1"}}
		}, Delivery{Accelerators: []string{"a2"}}, "accelerator pass|accelerator warn say.other"},
		{"a BMC that is silent", func(h *hardware) { h.bmc.there = true }, Delivery{}, "bmc warn say.bmc-silent"},
		{"no power where ordered", func(h *hardware) { h.power = nil }, Delivery{Power: true}, "power fail say.missing"},
		{"a disk that fails", func(h *hardware) { h.disks[0].failing = true }, Delivery{}, "disk nvme0n1 fail say.failing"},
		{"a worn disk", func(h *hardware) { h.disks[0].wear = p(0.6) }, Delivery{}, "disk nvme0n1 warn say.worn"},
		{"a smaller disk", nil, Delivery{Disks: []DiskWant{{"", 1000}}}, "disk nvme0n1 pass|disk fail say.missing"},
		{"no disk", func(h *hardware) { h.disks = nil }, Delivery{}, "disk fail say.no-disk"},
		{"no cable", func(h *hardware) { h.nics[0].up = false }, Delivery{}, "nic eno1 skipped say.no-link|nic fail say.no-nic"},
		{"a slow link", func(h *hardware) { h.nics[0].mbps = 100 }, Delivery{NICs: []NICWant{{"", 1000}}}, "nic eno1 fail say.slow-link"},
		{"a port that is not there", nil, Delivery{NICs: []NICWant{{"eno2", 0}}}, "nic eno2 fail say.missing|nic eno1 pass"},
	} {
		h := plain()
		if c.spoil != nil {
			c.spoil(&h)
		}
		has(t, c.name, judgeHardware(h, c.list), strings.Split(c.want, "|")...)
	}
}

func TestVersionsAreComparedFromTheirBeginning(t *testing.T) {
	for _, c := range []struct {
		have, want string
		ok         bool
	}{{"1.22.1", "1.22", true}, {"1.220", "1.22", false}, {"v1.4.0", "1.4", true}, {"550.54.14", "550", true}, {"5", "550", false}, {"6.1.0-18-amd64", "6.1.0", true}} {
		if got := begins(c.have, c.want); got != c.ok {
			t.Errorf("%s of %s: %t", c.want, c.have, got)
		}
	}
	s := software{os: "Debian GNU/Linux 12 (bookworm)", kernel: "6.1.0-18-amd64", runtime: "1.22.0", runner: true, containers: map[string]string{"docker": "27.1.1"}}
	has(t, "listed", judgeSystem(s, []accelerator{{"NVIDIA A2", "", ""}}, Delivery{OS: "debian 12", Kernel: "6.2", ONNXRuntime: "1.22", Containers: map[string]string{"docker": "26", "k3s": "1.30"}, Drivers: map[string]string{"nvidia": "550"}}),
		"os pass", "kernel fail say.version", "driver NVIDIA A2 fail say.driver-missing", "driver nvidia fail say.not-found", "runtime pass", "container docker fail say.version", "container k3s fail say.not-found")
	has(t, "nothing known", judgeSystem(software{}, nil, Delivery{}), "os skipped say.unknown", "runtime skipped say.no-runner", "container skipped say.no-engine")
}

func TestLoadIsJudgedByWhatItShowed(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*loaded)
		want  Limits
		lines string
	}{
		{"well", nil, Limits{}, "inference m:1 pass|latency pass|steady pass|heat pass|throttling pass"},
		{"wrong answers", func(l *loaded) { l.wrong, l.fault = 1, "output differs" }, Limits{}, "inference m:1 fail say.wrong-answers"},
		{"slower than listed", nil, Limits{RateMin: 100, LatencyMax: 1}, "inference m:1 fail say.slow|latency fail say.slow"},
		{"fades", func(l *loaded) { l.late = 8 }, Limits{}, "steady warn say.fades"},
		{"short", func(l *loaded) { l.took = time.Second }, Limits{}, "steady skipped say.short"},
		{"hot by its own limit", func(l *loaded) { l.dieMax = p(96) }, Limits{}, "heat fail say.too-hot"},
		{"hot by the list", nil, Limits{DieMax: 60}, "heat fail say.too-hot"},
		{"ended for heat", func(l *loaded) { l.stoppedAt, l.dieMax = 103, p(103) }, Limits{}, "heat fail say.stopped-hot"},
		{"throttles", func(l *loaded) { l.throttled = p(0.2) }, Limits{}, "throttling fail say.throttles"},
		{"silent", func(l *loaded) { l.throttled, l.dieMax = nil, nil }, Limits{}, "heat skipped say.no-die|throttling skipped say.no-throttle"},
		{"no samples", func(l *loaded) { l.took, l.fault = 0, "the model has no known samples" }, Limits{}, "inference m:1 skipped say.cannot-measure"},
		{"no model", func(l *loaded) { l.model = "" }, Limits{}, "inference skipped say.no-model"},
	} {
		l := loaded{model: "m:1", took: time.Minute, runs: 600, p95: 20 * time.Millisecond, early: 10, late: 10, dieMax: p(70), throttled: p(0)}
		if c.spoil != nil {
			c.spoil(&l)
		}
		has(t, c.name, judgeLoad(l, true, 100, c.want), strings.Split(c.lines, "|")...)
	}
	has(t, "no runner", judgeLoad(loaded{}, false, 0, Limits{}), "inference fail say.no-runner")
	has(t, "samples", judgeAnswers([]answers{{"a:1", 4, 4, ""}, {"b:1", 3, 4, "case x"}, {"c:1", 0, 0, ""}}, true), "golden a:1 pass", "golden b:1 fail say.golden", "golden c:1 skipped say.no-golden")
}

func TestStoresAndNetworkAreJudged(t *testing.T) {
	fast := throughput{bytes: 100e6, took: time.Second}
	slow := throughput{bytes: 1e6, took: time.Second}
	good := loaded{pressureBytes: 1 << 30, runnerAnswers: true, write: fast, read: fast}
	has(t, "well", judgeStores(good, true, Limits{}), "pressure pass", "disk-write pass", "disk-read pass")
	has(t, "slow", judgeStores(loaded{write: slow, read: slow}, true, Limits{DiskReadMin: 50}), "pressure skipped say.no-room-memory", "disk-write warn say.disk-slow", "disk-read fail say.disk-slow")
	has(t, "bad", judgeStores(loaded{pressureBytes: 1, pressureErr: "x", write: throughput{err: "EIO"}, read: throughput{tight: true}}, true, Limits{}),
		"pressure fail say.memory-wrong", "disk-write fail say.disk-error", "disk-read skipped say.no-room-disk")
	good.runnerAnswers = false
	has(t, "runner starved", judgeStores(good, true, Limits{}), "pressure fail say.memory-runner")
	n := network{up: slow, down: fast, rtt: 2 * time.Second}
	has(t, "network", judgeNetwork(n, "", Delivery{Limits: Limits{NetUpMin: 10}}), "net-up fail say.net-slow", "net-down pass", "net-rtt warn say.far")
	has(t, "away", judgeNetwork(network{}, "no route", Delivery{}), "net-up skipped say.unreached", "net-down skipped say.unreached")
	has(t, "offline", judgeNetwork(network{}, "", Delivery{Offline: true}), "net-up skipped say.offline")
}

func TestOperationsAreComparedWithTheList(t *testing.T) {
	o := operation{vendor: "Lenovo", product: "ThinkEdge SE30", serial: "PF1", agent: "1.4.0", runner: "1.4.0", models: []string{"ocr:2.0.0"}, configSHA256: strings.Repeat("ab", 32), clockSet: true, clockKept: true, reach: time.Second}
	has(t, "no list", judgeOperations(o, Delivery{}), "delivery skipped say.no-list", "product pass", "serial pass", "agent pass", "config pass", "model pass", "clock pass", "time-to-reach pass", "clock-offset pass")
	d := Delivery{Name: "x", Product: "SE50", Serial: "PF2", Agent: "1.5", Models: []string{"ocr", "det:1"}, ConfigSHA256: strings.Repeat("cd", 32)}
	has(t, "other", judgeOperations(o, d), "delivery pass", "product fail say.other", "serial fail say.other", "agent fail say.version", "config fail say.config", "model pass", "model fail say.model-missing")
	o.clockSet, o.reachErr, o.runner = false, "no network", ""
	has(t, "unwell", judgeOperations(o, Delivery{}), "clock fail say.clock-unset", "time-to-reach fail say.unreached", "runner fail say.no-runner")
	o.reachErr, o.offset = "", time.Hour
	has(t, "wrong clock", judgeOperations(o, Delivery{}), "clock-offset fail say.clock-off")
}

func TestAMistakeInADeliveryListIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"fan: 2": "fan is not a key of a delivery list"[4:], "temperatures: [dice]": `"dice" is none of`, "disks: [{kind: tape}]": `"tape" is none of`, "limits: {hot: 1}": "is not a key of limits", "cpus: many": "cannot unmarshal",
	} {
		if _, err := ParseDelivery([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	if d, err := ParseDelivery(nil); err != nil || d.given() {
		t.Errorf("an empty list: %+v, %v", d, err)
	}
}

// The list of the guide is one that is read.
func TestTheListOfTheGuideIsRead(t *testing.T) {
	guide, err := os.ReadFile(filepath.Join("..", "..", "docs", "acceptance.md"))
	must(t, err)
	_, rest, ok := strings.Cut(string(guide), "```yaml\n")
	text, _, ok2 := strings.Cut(rest, "```")
	if !ok || !ok2 {
		t.Fatal("the guide has no list")
	}
	d, err := ParseDelivery([]byte(text))
	must(t, err)
	if d.Serial == "" || d.Limits.RTTMax == 0 || len(d.NICs) != 2 || d.Drivers["nvidia"] == "" {
		t.Errorf("%+v", d)
	}
}
