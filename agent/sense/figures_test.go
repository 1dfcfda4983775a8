package sense

import (
	"context"
	"fmt"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/health"
)

// figures are those of one Read that are not missing.
func figures(t testing.TB, s *Sampler) map[health.Field]float64 {
	t.Helper()
	list, err := s.Read(t.Context())
	must(t, err)
	m := map[health.Field]float64{}
	for i, v := range s.Figures(list) {
		if v.OK() {
			m[health.Field(i)] = math.Round(float64(v)*1000) / 1000
		}
	}
	return m
}

func TestFiguresOfBoardFamilies(t *testing.T) {
	for fixture, want := range map[string]map[health.Field]float64{
		"x86": {health.Die: 61, health.Board: 34.5, health.NVMe: 43.85, health.PWM: 0.4, health.RPM1: 1318,
			health.RPM2: 900, health.Throttled: 1, health.Clock: 2.1e9},
		"jetson-orin": {health.Die: 50.031, health.Power: 8, health.PWM: 0.2, health.RPM1: 1740, health.Throttled: 0},
	} {
		if got := figures(t, New(Options{Root: plant(t, fixture)}, quiet())); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", fixture, got, want)
		}
	}
}

func TestRolesOfTheOperatorGoFirst(t *testing.T) {
	roles := map[string]string{
		"hwmon/nvme/pci:0000:01:00.0/temp2":        "ssd",
		"hwmon/nct6798/platform:nct6775.656/temp6": "room",
		"hwmon/nct6798/platform:nct6775.656/fan4":  "fan",
		"hwmon/nct6798/platform:nct6775.656/temp1": "none",
	}
	root := plant(t, "x86")
	put(t, root, "sys/class/hwmon/hwmon1/temp6_input", "27800")
	got := figures(t, New(Options{Root: root, Roles: roles}, quiet()))
	for field, want := range map[health.Field]float64{health.NVMe: 49.85, health.Room: 27.8, health.RPM1: 900, health.RPM2: 1318, health.PWM: 0.2} {
		if got[field] != want {
			t.Errorf("figure %d is %v, want %v", field, got[field], want)
		}
	}
	if _, there := got[health.Board]; there {
		t.Error("a sensor that was left out is read")
	}
}

// A fan that seized while the box was off stands still from the first read on:
// only what was seen before tells it from a header without a fan.
func TestSeizedFanIsKnownAfterARestart(t *testing.T) {
	root, state := plant(t, "x86"), t.TempDir()
	figures(t, New(Options{Root: root, StateDir: state}, quiet()))
	put(t, root, "sys/class/hwmon/hwmon1/fan2_input", "0")
	s := New(Options{Root: root, StateDir: state}, quiet())
	got := figures(t, s)
	if rpm, there := got[health.RPM1]; !there || rpm != 0 || got[health.RPM2] != 900 {
		t.Errorf("fans %v", got)
	}
	if want := []string{"hwmon/nct6798/platform:nct6775.656/fan2", "hwmon/nct6798/platform:nct6775.656/fan4"}; !slices.Equal(s.fans, want) {
		t.Errorf("remembered %v", s.fans)
	}
}

func TestThrottledIsAShareOfTheTime(t *testing.T) {
	p := &plan{packages: 1, dieLimit: 100, maxHertz: 2e9}
	v := func(x float64) *float64 { return &x }
	begin := time.Unix(1000, 0)
	at := func(seconds int, w slowing) slowing { w.at = begin.Add(time.Duration(seconds) * time.Second); return w }
	for _, c := range []struct {
		name      string
		prev, now slowing
		want      float64
		known     bool
	}{
		{"nothing known", at(0, slowing{}), at(10, slowing{}), 0, false},
		{"first read", slowing{}, at(10, slowing{count: v(5)}), 0, false},
		{"cooling state", slowing{}, at(10, slowing{state: v(0.1)}), 1, true},
		{"no cooling state", slowing{}, at(10, slowing{state: v(0)}), 0, true},
		{"time counter", at(0, slowing{seconds: v(3)}), at(10, slowing{seconds: v(5)}), 0.2, true},
		{"time beats events", at(0, slowing{seconds: v(3), count: v(1)}), at(10, slowing{seconds: v(3.5), count: v(9)}), 0.05, true},
		{"events", at(0, slowing{count: v(1)}), at(10, slowing{count: v(2)}), 1, true},
		{"counter reset", at(0, slowing{count: v(7)}), at(10, slowing{count: v(1)}), 0, false},
		{"too long ago", at(0, slowing{count: v(1)}), at(1000, slowing{count: v(2)}), 0, false},
		{"inferred", at(0, slowing{}), at(10, slowing{busy: v(0.9), freq: v(1.5e9), die: v(98)}), 1, true},
		{"slow because idle", at(0, slowing{}), at(10, slowing{busy: v(0.1), freq: v(1.5e9), die: v(98)}), 0, true},
		{"slow but cool", at(0, slowing{}), at(10, slowing{busy: v(0.9), freq: v(1.5e9), die: v(80)}), 0, true},
	} {
		got, known := (&throttleState{prev: c.prev}).next(c.now, p)
		if math.Abs(got-c.want) > 1e-9 || known != c.known {
			t.Errorf("%s: %v %v, want %v %v", c.name, got, known, c.want, c.known)
		}
	}
}

func TestRoomSensorBesideAnInletIsTheRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "x86")
		chip := func(name, label string) {
			must(t, os.MkdirAll(filepath.Join(root, "sys/class/hwmon", name), 0o755))
			put(t, root, "sys/class/hwmon/"+name+"/name", map[bool]string{true: "sht3x", false: "emc1403"}[label == ""])
			put(t, root, "sys/class/hwmon/"+name+"/temp1_input", "22500\n")
			if label != "" {
				put(t, root, "sys/class/hwmon/"+name+"/temp1_label", label)
			}
		}
		chip("hwmon20", "")
		if got := figures(t, New(Options{Root: root}, quiet())); got[health.Inlet] != 22.5 || got[health.Room] != 0 {
			t.Errorf("alone: %v", got)
		}
		chip("hwmon21", "Inlet Temp")
		if got := figures(t, New(Options{Root: root}, quiet())); got[health.Inlet] != 22.5 || got[health.Room] != 22.5 {
			t.Errorf("beside an inlet: %v", got)
		}
	})
}

func TestJetsonOfJetPack4(t *testing.T) {
	s := New(Options{Root: plant(t, "jetson-nano")}, quiet())
	equal(t, readings(t, s), map[string]float64{
		"temp_die_celsius": 35, "temp_celsius{AO-therm}": 41.5, "temp_celsius{GPU-therm}": 34.5,
		"fan_rpm": 2100, "fan_duty_ratio": 0.4, "power_watts": 3.5, "power_watts{ina3221/POM_5V_GPU}": 0.5,
		"gpu_busy_ratio{57000000.gpu}": 0.437, "gpu_clock_hertz{57000000.gpu}": 921.6e6, "power_mode": 1,
		"load1": 1, "uptime_seconds": 10, "mem_used_ratio": 0.5,
	})
	if got, want := s.Setup(), "power mode 1, fan profile quiet"; got != want {
		t.Errorf("setup %q, want %q", got, want)
	}
}

func TestTachometerOfAJetsonMayHaveAFileOfItsOwn(t *testing.T) {
	root := plant(t, "jetson-orin")
	dir := filepath.Join(root, "sys/class/hwmon/hwmon1")
	must(t, os.Rename(filepath.Join(dir, "fan1_input"), filepath.Join(dir, "rpm")))
	want(t, readings(t, New(Options{Root: root}, quiet())), map[string]float64{"fan_rpm": 1740, "fan_duty_ratio": 0.2})
}

func TestBoxOfTooManySensorsKeepsItsRoles(t *testing.T) {
	root := plant(t, "x86")
	dir := filepath.Join(root, "sys/class/hwmon/hwmon8")
	must(t, os.Mkdir(dir, 0o755))
	put(t, dir, "name", "wide")
	for i := range 1000 {
		put(t, dir, fmt.Sprintf("temp%d_input", i+1), "40000")
	}
	got := readings(t, New(Options{Root: root}, quiet()))
	if len(got) != maxReadings || !has(got, "temp_die_celsius") || !has(got, "fan_rpm") {
		t.Errorf("%d readings", len(got))
	}
}

// A disk that is full when the fans are first seen costs no more than time.
func TestFansAreRememberedWhenTheDiskTakesThem(t *testing.T) {
	root, state := plant(t, "x86"), filepath.Join(t.TempDir(), "later")
	s := New(Options{Root: root, StateDir: state}, quiet())
	s.Read(t.Context())
	must(t, os.Mkdir(state, 0o755))
	readings(t, s)
	var m fanMemory
	if found, err := s.fanJournal().Load(&m); !found || err != nil || len(m.Fans) != 2 {
		t.Errorf("%v %v %v", m, found, err)
	}
}

// Two sensors never share a key, nor a name.
func TestKeysTellSensorsApart(t *testing.T) {
	twins := plant(t, "x86")
	for _, name := range []string{"hwmon20", "hwmon21", "hwmon22"} {
		must(t, os.Mkdir(filepath.Join(twins, "sys/class/hwmon", name), 0o755))
		put(t, twins, "sys/class/hwmon/"+name+"/name", "twin")
		put(t, twins, "sys/class/hwmon/"+name+"/temp1_input", "40000")
	}
	for _, root := range []string{twins, plant(t, "zoo"), plant(t, "jetson-orin"), plant(t, "jetson-nano"), plant(t, "broken")} {
		seen := map[string]bool{}
		for _, s := range New(Options{Root: root}, quiet()).Sensors() {
			if seen[s.Key] || seen[s.Name()] {
				t.Errorf("%+v is there twice", s)
			}
			seen[s.Key], seen[s.Name()] = true, true
		}
	}
}

func TestRarerSensors(t *testing.T) {
	s := New(Options{Root: plant(t, "zoo")}, quiet())
	want := map[string]float64{
		"temp_room_celsius": 23.41, "humidity_ratio{bme280}": 0.452, "air_pressure_pascals{bme280}": 101325,
		"filter_pressure_pascals{sdp500}": 720 * 0.016667, "temp_celsius{xadc/temp1}": 46.87853394,
		"temp_celsius{apex/apex_1}": 51.05, "gpu_busy_ratio{0000:03:00.0}": 0.37, "gpu_clock_hertz{0000:00:02.0}": 1.3e9,
		"gpu_memory_used_ratio{0000:03:00.0}": 0.25, "gpu_clock_hertz{0000:03:00.0}": 2.105e9,
		"gpu_clock_hertz{0000:04:00.0}": 2.4e9, "throttled_ratio{0000:04:00.0}": 0, // pl1 is a limit of power
		"throttled_ratio{0000:00:02.0}": 1, "throttled_ratio": 1, "cooling_state_ratio": 1,
		"temp_celsius{amdgpu/edge}": 55, "temp_celsius{amdgpu/junction}": 66, "power_watts{amdgpu/power1}": 88, "fan_rpm{amdgpu/fan1}": 1500,
		"temp_celsius{max6696/temp3}": 48, "fan_rpm": 1200, "rail_volts{pmbus/vin}": 230, "rail_amperes{pmbus/iin}": 0.5,
		"temp_ssd_celsius": 43.85, "temp_celsius{nvme/Composite}": 41.85, "intrusion_state{nct6798/intrusion0}": 1,
		"boot_overheat_state{iTCO_wdt}": 1, "boot_watchdog_state{iTCO_wdt}": 1,
		"load1": 1, "uptime_seconds": 10, "mem_used_ratio": 0.5,
	}
	equal(t, readings(t, s), want)
	for _, key := range []string{"iio/bme280/i2c:1-0076/temp1", "iio/sdp500/i2c:1-0025/in_pressure",
		"hwmon/nvme/pci:0000:02:00.0/temp1", "drm/pci:0000:03:00.0/gpu_busy_ratio"} {
		if !slices.ContainsFunc(s.Sensors(), func(x Sensor) bool { return x.Key == key }) {
			t.Errorf("no key %s", key)
		}
	}
	// A raw number whose scale cannot be read is no value: 46.9 °C is a raw 2,600.
	s = New(Options{Root: plant(t, "zoo")}, quiet())
	s.read = func(path string, buf []byte) (int, error) {
		if strings.HasSuffix(path, "_scale") {
			return 0, syscall.EIO
		}
		return rawRead(path, buf)
	}
	delete(want, "filter_pressure_pascals{sdp500}")
	delete(want, "temp_celsius{xadc/temp1}")
	equal(t, readings(t, s), want)
}

func TestQuirksAreInTheDocument(t *testing.T) {
	text, err := os.ReadFile("../../docs/sensors.md")
	must(t, err)
	for _, q := range quirks {
		if q.why == "" || q.chip == "" {
			t.Errorf("quirk %+v lacks its chip or its reason", q)
		}
		if !strings.Contains(string(text), q.board) {
			t.Errorf("quirks of %s are not in docs/sensors.md", q.board)
		}
		if q.chip == "zone" && q.dummies == nil && !strings.Contains(string(text), q.label) {
			t.Errorf("quirk of zone %s is not in docs/sensors.md", q.label)
		}
		for _, v := range q.dummies {
			if !strings.Contains(string(text), strconv.FormatFloat(v, 'f', -1, 64)) {
				t.Errorf("dummy %v of %s is not in docs/sensors.md", v, q.chip)
			}
		}
	}
}

func TestVibrationIsTheSpreadAroundGravity(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "sys/bus/iio/devices/iio:device0")
	must(t, os.MkdirAll(dir, 0o755))
	put(t, dir, "name", "adxl345")
	put(t, dir, "in_accel_scale", "0.0383")
	for axis, v := range map[string]string{"x": "2", "y": "-3", "z": "256"} {
		put(t, dir, "in_accel_"+axis+"_raw", v)
	}
	b := &builder{root: root, read: rawRead}
	list := b.sources(Outside{})
	if len(list) != 1 {
		t.Fatalf("%d sources", len(list))
	}
	if _, err := list[0].ask(t.Context()); err == nil {
		t.Error("a sensor that stands quite still is believed")
	}
	z, err := os.OpenFile(filepath.Join(dir, "in_accel_z_raw"), os.O_WRONLY, 0)
	must(t, err)
	defer z.Close()
	done := make(chan struct{})
	defer func() { <-done }()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { // ± 10 counts
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			z.WriteAt(fmt.Appendf(nil, "%d\n", 246+20*(i%2)), 0)
		}
	}()
	for range 50 {
		got, err := list[0].ask(t.Context())
		if err == nil && got[0].V > 0.1 && got[0].V < 0.6 { // 10 × 0.0383 at most
			return
		}
	}
	t.Error("no vibration was seen")
}

// A name is read for each of the channels of its device, one right after the other.
func TestAFileCanBeAskedAgainAtOnce(t *testing.T) {
	s := New(Options{Root: plant(t, "zoo")}, quiet())
	b := &builder{root: s.opts.Root, read: s.read, patience: time.Minute, tracks: s.tracks}
	path := b.path("sys/bus/iio/devices/iio:device0/name")
	want := b.text(path)
	for i := range 20_000 {
		if got := b.text(path); got != want || want == "" {
			t.Fatalf("answer %d: %q, want %q", i, got, want)
		}
	}
}
