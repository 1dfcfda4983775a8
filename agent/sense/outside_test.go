package sense

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense/air"
	"github.com/edgeherd/edgeherd/agent/sense/bmc"
	"github.com/edgeherd/edgeherd/internal/health"
)

// script makes a program that does what the lines say.
func script(t testing.TB, name, lines string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+lines+"\n"), 0o755))
	return path
}

// until reads until a metric is there.
func until(t testing.TB, s *Sampler, metric string) map[string]float64 {
	t.Helper()
	deadline, tick := time.Now().Add(5*time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	for {
		list, _ := s.Read(t.Context())
		if got := asMap(t, list); has(got, metric) {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %s", metric)
		}
		<-tick.C
	}
}

func want(t testing.TB, got, wanted map[string]float64) {
	t.Helper()
	for name, v := range wanted {
		if have, ok := got[name]; !ok || have < v-1e-6 || have > v+1e-6 {
			t.Errorf("%s = %v (there: %v), want %v", name, have, ok, v)
		}
	}
}

func TestProgramsAreReadBesideAHungOne(t *testing.T) {
	here, err := os.Getwd()
	must(t, err)
	root := plant(t, "x86")
	must(t, os.MkdirAll(filepath.Join(root, "sys/class/nvme/nvme0"), 0o755))
	s := New(Options{Root: root, Outside: Outside{
		NVIDIASMI: script(t, "nvidia-smi", "cat "+here+"/child/testdata/nvidia-v11.xml"),
		Smartctl:  script(t, "smartctl", "cat "+here+"/child/testdata/smart-nvme.json; exit 8"),
		IPMITool:  script(t, "ipmitool", "sleep 600"),
	}}, quiet())
	if err := s.opts.Outside.Check(); err != nil {
		t.Error(err)
	}
	until(t, s, "gpu_busy_ratio{0000:00:1e.0}")
	got := until(t, s, "disk_wear_ratio{S000NVME1}")
	want(t, got, map[string]float64{
		"temp_die_celsius": 61, "temp_celsius{0000:00:1e.0/die}": 85, "power_watts{0000:00:1e.0}": 69.81,
		"throttled_ratio{0000:00:1e.0}": 1, "gpu_memory_used_ratio{0000:00:1e.0}": 0.25, "gpu_memory_errors_count{0000:00:1e.0}": 3,
		"temp_celsius{S000NVME1}": 61, "disk_hot_seconds{S000NVME1}": 1500, "disk_failing_state{S000NVME1}": 0,
	})
	list, _ := s.Read(t.Context())
	if f := s.Figures(list); f[health.NVMeUsed] != 112 || f[health.NVMeSpare] != 97 || f[health.NVMeErrors] != 3 {
		t.Errorf("figures %v", f)
	}
	s.drivesSilent = true
	if f := s.Figures(list); f[health.NVMeUsed].OK() || f[health.NVMeErrors].OK() {
		t.Errorf("figures %v without one of the drives", f)
	}
	found := false
	for _, sensor := range s.Sensors() {
		found = found || sensor.Key == "smart/S000NVME1/disk_wear_ratio" && sensor.Metric == DiskWear
	}
	if !found {
		t.Error("sensors from outside are not listed")
	}
}

func TestProgramsOfThisMachineAreNotRunForAFixture(t *testing.T) {
	b := &builder{root: plant(t, "x86")}
	must(t, os.MkdirAll(b.path("dev/nvidiactl"), 0o755))
	must(t, os.MkdirAll(b.path("sys/class/nvme/nvme0"), 0o755))
	if list := b.sources(Outside{}); len(list) != 0 {
		t.Errorf("%d sources", len(list))
	}
	if list := b.sources(Outside{Smartctl: "/bin/true"}); len(list) != 1 || list[0].name != "smart/dev/nvme0" {
		t.Errorf("%d sources", len(list))
	}
}

func TestBMCStandsForWhatTheBoxDoesNotTell(t *testing.T) {
	answer := map[string]string{
		"/redfish/v1/Chassis":   `{"Members": [{"@odata.id": "/redfish/v1/Chassis/1"}]}`,
		"/redfish/v1/Chassis/1": `{"Thermal": {"@odata.id": "/redfish/v1/T"}, "Power": {"@odata.id": "/redfish/v1/P"}}`,
		"/redfish/v1/T": `{"Temperatures": [{"Name": "Inlet Temp", "ReadingCelsius": 22}, {"Name": "Exhaust Temp", "ReadingCelsius": 33}],
			"Fans": [{"Name": "FAN A", "Reading": 0, "ReadingUnits": "RPM"}, {"Name": "FAN B", "Reading": 4200, "ReadingUnits": "RPM"}]}`,
		"/redfish/v1/P": `{"PowerControl": [{"PowerConsumedWatts": 180}], "PowerSupplies": [
			{"Name": "PS1", "PowerInputWatts": 100, "PowerOutputWatts": 90, "Status": {"State": "Enabled", "Health": "OK"}},
			{"Name": "PS2", "PowerInputWatts": 80, "PowerOutputWatts": 70, "Status": {"State": "Enabled", "Health": "Critical"}}]}`,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, answer[r.URL.Path]) }))
	defer server.Close()
	root := plant(t, "broken") // has no power at all
	must(t, os.Remove(filepath.Join(root, "sys/class/hwmon/hwmon1/fan1_input")))
	o := Options{Root: root, StateDir: t.TempDir()}
	o.Outside.Redfish.URL, o.Outside.BMCPeriod = server.URL, time.Second
	s := New(o, quiet())
	got := until(t, s, "temp_inlet_celsius")
	want(t, got, map[string]float64{"temp_inlet_celsius": 22, "temp_exhaust_celsius": 33, "fan_rpm": 4200, "power_watts": 180})
	if has(got, "fan_rpm{bmc/FAN_A}") {
		t.Error("a slot without a fan is told")
	}
	list, _ := s.Read(t.Context())
	f := s.Figures(list)
	if f[health.Inlet] != 22 || f[health.RPM1] != 4200 || f[health.Power] != 180 || f[health.Exhaust] != 33 ||
		f[health.PSUIn] != 180 || f[health.PSUOut] != 160 || f[health.PSUOK] != 0.5 {
		t.Errorf("figures %v", f)
	}
}

func TestControllersGlitchIsNotTold(t *testing.T) {
	says := []float64{200, 201, 202, 3000, 203}
	gone := errors.New("one of its fans is gone") // as at each poll of some
	ask := askBMC(time.Millisecond, func(context.Context) ([]bmc.Sensor, error) {
		v := says[0]
		says = says[1:]
		return []bmc.Sensor{{Name: "Pwr Consumption", Kind: bmc.Watts, Place: bmc.System, Value: v}}, gone
	})
	for i, want := range []float64{202, 0, 203} {
		list, err := ask(t.Context())
		if err != gone || want == 0 && len(list) > 0 || want > 0 && (len(list) != 1 || list[0].V != want || list[0].Plain != Power) {
			t.Errorf("answer %d is %v (%v), want %v", i+1, list, err, want)
		}
	}
}

func TestSupplyOfAPCIsRead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			io.CopyN(io.Discard, conn, 8) // what is unread when it closes would reset the connection
			fmt.Fprint(conn, "\x00\x0fSTATUS : ONLINE\x00\x17TIMELEFT : 20.0 Minutes\x00\x00")
			conn.Close()
		}
	}()
	s := New(Options{Root: plant(t, "x86"), Outside: Outside{UPS: []string{apcupsd + l.Addr().String()}}}, quiet())
	want(t, until(t, s, "ups_runtime_seconds{ups/apcupsd}"), map[string]float64{
		"ups_runtime_seconds{ups/apcupsd}": 1200, "ups_on_battery_state{ups/apcupsd}": 0,
	})
}

func TestGraphicsCardMayBeTheDie(t *testing.T) {
	here, err := os.Getwd()
	must(t, err)
	key := "nvidia/GPU-00000000-0000-4000-8000-000000000011/"
	s := New(Options{Root: plant(t, "x86"), Roles: map[string]string{key + "temp_celsius": "die", key + "power_watts": "power"},
		Outside: Outside{NVIDIASMI: script(t, "nvidia-smi", "cat "+here+"/child/testdata/nvidia-v11.xml")}}, quiet())
	want(t, until(t, s, "power_watts"), map[string]float64{"temp_die_celsius": 85, "power_watts": 69.81})
	if limit, known := s.DieLimitCelsius(); limit != 93 || !known {
		t.Errorf("limit %v %v", limit, known)
	}
}

// The choice between a sensor of the box and one from outside is made once.
func TestRolesDoNotGoToAndFro(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "x86")
		s := New(Options{Root: root}, quiet())
		told := []value{{Sensor: Sensor{Key: "bmc/watts/Total", Metric: Power, Label: "bmc/Total"}, Plain: Power, V: 99},
			{Sensor: Sensor{Key: "bmc/celsius/Inlet", Metric: Temp, Label: "bmc/Inlet"}, Plain: TempInlet, V: 21}}
		src := &source{name: "bmc", period: 10 * time.Second, limit: time.Second, ask: func(context.Context) ([]value, error) { return told, nil }}
		readings(t, s)
		s.sources = []*source{src}
		joules := 1_000_000
		step := func() map[string]float64 {
			time.Sleep(10 * time.Second)
			joules += 100_000_000
			put(t, root, "sys/class/powercap/intel-rapl:1/energy_uj", fmt.Sprint(joules))
			s.sources = []*source{src} // discoveries do not know it
			s.planned = time.Now()
			return readings(t, s)
		}
		step()
		for range 20 {
			want(t, step(), map[string]float64{"power_watts": 10, "power_watts{bmc/Total}": 99, "temp_inlet_celsius": 21})
		}
		path := filepath.Join(root, "sys/class/powercap/intel-rapl:1/energy_uj")
		must(t, os.Remove(path))
		must(t, os.Mkdir(path, 0o755)) // EISDIR, as a file that only root may read: no value
		for range failsToPassOver + 1 {
			time.Sleep(10 * time.Second)
			s.sources, s.planned = []*source{src}, time.Now()
			s.Read(t.Context())
		}
		for range 3 {
			time.Sleep(10 * time.Second)
			s.sources, s.planned = []*source{src}, time.Now()
			list, _ := s.Read(t.Context())
			want(t, asMap(t, list), map[string]float64{"power_watts": 99})
		}
		must(t, os.Remove(path))
		for range 5 { // it is back, and the role stays where it went
			want(t, step(), map[string]float64{"power_watts": 99})
		}
	})
}

func TestSourceThatFailsIsToldOnceAndItsValuesAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		s := New(Options{Root: t.TempDir()}, slog.New(slog.NewTextHandler(&log, nil)))
		asked, hang := 0, make(chan struct{})
		src := &source{name: "ups/x", period: 10 * time.Second, limit: time.Second, ask: func(ctx context.Context) ([]value, error) {
			asked++
			switch {
			case asked == 1:
				return []value{{Sensor: Sensor{Key: "ups/x/load", Metric: UPSLoad, Label: "ups/x"}, V: 0.5}}, nil
			case asked < 10:
				return nil, errors.New("connection refused from port " + fmt.Sprint(asked))
			}
			<-hang // a child that cannot be killed
			return nil, ctx.Err()
		}}
		defer close(hang)
		there := 0
		for i := range 40 {
			synctest.Wait()
			s.sources = []*source{src}
			list, err := s.Read(t.Context())
			if i > 0 && i < 3 && has(asMap(t, list), "ups_load_ratio{ups/x}") {
				there++
			}
			if i > 5 && has(asMap(t, list), "ups_load_ratio{ups/x}") {
				t.Errorf("read %d tells what was true %d s ago", i, i*10)
			}
			if i > 12 && err == nil {
				t.Error("a source that hangs is no error")
			}
			s.sources, s.planned = []*source{src}, time.Now()
			time.Sleep(10 * time.Second)
		}
		if there == 0 || asked != 10 {
			t.Errorf("told %d times, asked %d times", there, asked)
		}
		if n := strings.Count(log.String(), "sensors outside not readable"); n != 1 {
			t.Errorf("%d log lines:\n%s", n, log.String())
		}
	})
}

func TestOptionsThatCannotBeAreTold(t *testing.T) {
	bad := []func(*Outside){
		func(o *Outside) { o.Redfish.URL = "http://bmc.example" },
		func(o *Outside) { o.UPS = []string{"rack"} },
		func(o *Outside) { o.UPS = []string{"apcupsd://"} },
		func(o *Outside) { o.UPS = []string{"apcupsd://a/b"} },
		func(o *Outside) { o.Pressure.Address = 0x25 },
		func(o *Outside) { o.Dust = []air.Serial{{Path: "/dev/ttyUSB0"}} },
	}
	for i, change := range bad {
		var o Outside
		if change(&o); o.Check() == nil {
			t.Errorf("case %d is taken", i)
		}
	}
	if err := (Outside{UPS: []string{"@nut.example", "rack@nut.example:3493", "apcupsd://[::1]:3551"}}).Check(); err != nil {
		t.Error(err)
	}
}
