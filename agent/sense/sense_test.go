package sense

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/edgeherd/edgeherd/internal/simboard"
)

// plant unpacks a fixture: "name => target" is a symbolic link, the contents
// EAGAIN and EISDIR make files that answer with that error.
func plant(t testing.TB, fixture string) string {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", fixture+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	root := t.TempDir()
	for _, f := range archive.Files {
		name, target, isLink := strings.Cut(f.Name, " => ")
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		switch content := strings.TrimSpace(string(f.Data)); {
		case isLink:
			must(t, os.MkdirAll(filepath.Join(filepath.Dir(path), target), 0o755))
			must(t, os.Symlink(target, path))
		case content == "EISDIR":
			must(t, os.Mkdir(path, 0o755))
		case content == "EAGAIN": // a pipe that is open for writing and empty
			must(t, syscall.Mkfifo(path, 0o644))
			pipe, err := os.OpenFile(path, os.O_RDWR, 0)
			must(t, err)
			t.Cleanup(func() { pipe.Close() })
		default:
			must(t, os.WriteFile(path, f.Data, 0o644))
		}
	}
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t testing.TB, root, path, content string) {
	t.Helper()
	if !strings.HasSuffix(content, "\n") {
		content += "\n"
	}
	must(t, os.WriteFile(filepath.Join(root, path), []byte(content), 0o644))
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func readings(t testing.TB, s *Sampler) map[string]float64 {
	t.Helper()
	list, err := s.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return asMap(t, list)
}

func asMap(t testing.TB, list []Reading) map[string]float64 {
	t.Helper()
	m := map[string]float64{}
	for _, r := range list {
		if _, twice := m[r.Metric]; twice {
			t.Errorf("%s twice", r.Metric)
		}
		m[r.Metric] = r.Value
	}
	return m
}

func equal(t testing.TB, got, want map[string]float64) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if v, ok := got[name]; !ok || math.Abs(v-want[name]) > 1e-6*math.Abs(want[name]) {
			t.Errorf("%s = %v (there: %v), want %v", name, v, ok, want[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(got)) {
		if _, ok := want[name]; !ok {
			t.Errorf("%s = %v, want none", name, got[name])
		}
	}
}

func TestX86Box(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "x86")
		s := New(Options{Root: root}, quiet())
		want := map[string]float64{
			"temp_die_celsius": 61, "temp_board_celsius": 34.5, "temp_ssd_celsius": 43.85,
			"temp_celsius{coretemp/Core_0}": 60, "temp_celsius{nvme/Sensor_1}": 49.85,
			"temp_celsius{x86_pkg_temp}": 61,
			"fan_rpm":                    1318, "fan_duty_ratio": 0.4, "fan_rpm{nct6798/fan4}": 900, "fan_duty_ratio{nct6798/pwm4}": 0.2,
			"cooling_state_ratio": 0.4, "throttled_ratio": 1, "throttle_count": 7, "cpu_freq_hertz": 2.1e9,
			"load1": 0.42, "uptime_seconds": 3600.25, "mem_used_ratio": 0.25,
		}
		equal(t, readings(t, s), want)

		time.Sleep(10 * time.Second)
		put(t, root, "proc/stat", "cpu  1300 0 700 8300 700 0 0 0 0 0\n") // 500 of 1000 busy
		put(t, root, "sys/class/powercap/intel-rapl:0/energy_uj", "201000000")
		put(t, root, "sys/class/powercap/intel-rapl:1/energy_uj", "299671150") // wrapped: 300 J
		want["cpu_busy_ratio"] = 0.5
		want["power_watts"] = 30
		want["power_watts{rapl/package-0}"] = 20
		equal(t, readings(t, s), want)

		// A fan that has turned and stands still is a fault, and zero is the truth.
		put(t, root, "sys/class/hwmon/hwmon1/fan2_input", "0")
		if got := readings(t, s); got["fan_rpm"] != 0 || !has(got, "fan_rpm") {
			t.Errorf("stopped fan: %v", got["fan_rpm"])
		}
		if limit, known := s.DieLimitCelsius(); limit != 100 || !known {
			t.Errorf("limit %v %v", limit, known)
		}
		got := s.Board()
		got.Arch = ""
		wantBoard := Board{Vendor: "Intel(R) Client Systems", Product: "NUC11TNHi5", Serial: "BTTN123", Class: ClassITX,
			CPUs: 4, MemBytes: 16000000 * 1024, BootID: "c0ffee00-1111-4222-8333-444455556666"}
		if got != wantBoard {
			t.Errorf("board %+v, want %+v", got, wantBoard)
		}
	})
}

func has(m map[string]float64, name string) bool { _, ok := m[name]; return ok }

func TestKeysSurviveARenumberedBoot(t *testing.T) {
	root := plant(t, "x86")
	link := func(target, path string) {
		path = filepath.Join(root, path)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.Symlink(target, path))
	}
	// Numbers of hosts and of HID devices are those of this boot.
	disk, cooler := "sys/devices/pci0000:00/ata3/host2/target2:0:0/2:0:0:0", "sys/devices/pci0000:00/usb1/1-5/1-5:1.0/0003:1B1C:0C10.0004"
	for number, device := range map[string]string{"hwmon30": disk, "hwmon31": cooler} {
		must(t, os.MkdirAll(filepath.Join(root, "sys/class/hwmon", number), 0o755))
		link(filepath.Join(root, device), "sys/class/hwmon/"+number+"/device")
	}
	must(t, os.MkdirAll(filepath.Join(root, disk), 0o755))
	put(t, root, disk+"/wwid", "t10.ATA     Example SSD 240G      S000SATA1")
	link("../../bus/scsi", disk+"/subsystem")
	link("../../bus/hid", cooler+"/subsystem")
	link("../../bus/usb", filepath.Dir(cooler)+"/subsystem")
	put(t, root, "sys/class/hwmon/hwmon30/name", "drivetemp")
	put(t, root, "sys/class/hwmon/hwmon30/temp1_input", "33000")
	put(t, root, "sys/class/hwmon/hwmon31/name", "corsaircpro")
	put(t, root, "sys/class/hwmon/hwmon31/temp1_input", "28000")
	keys := func() []Sensor { return New(Options{Root: root}, quiet()).Sensors() }
	before := keys()
	for from, to := range map[string]string{"hwmon3": "hwmon9", "hwmon1": "hwmon12"} {
		dir := filepath.Join(root, "sys/class/hwmon")
		must(t, os.Rename(filepath.Join(dir, from), filepath.Join(dir, to)))
	}
	again := map[string]string{disk: strings.ReplaceAll(disk, "2", "0"), cooler: strings.Replace(cooler, ".0004", ".0001", 1)}
	for number, device := range map[string]string{"hwmon30": disk, "hwmon31": cooler} {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(root, again[device])), 0o755))
		must(t, os.Rename(filepath.Join(root, device), filepath.Join(root, again[device])))
		must(t, os.Remove(filepath.Join(root, "sys/class/hwmon", number, "device")))
		link(filepath.Join(root, again[device]), "sys/class/hwmon/"+number+"/device")
	}
	if after := keys(); !slices.Equal(before, after) {
		t.Errorf("sensors\n%v\nafter a reboot\n%v", before, after)
	}
	for _, want := range []Sensor{
		{Key: "hwmon/nvme/pci:0000:01:00.0/temp1", Metric: TempSSD},
		{Key: "hwmon/drivetemp/scsi:t10.ATA_Example_SSD_240G_S000SATA1/temp1", Metric: Temp, Label: "drivetemp/temp1"},
		{Key: "hwmon/corsaircpro/usb:1-5:1.0/temp1", Metric: Temp, Label: "corsaircpro/temp1"},
	} {
		if !slices.Contains(before, want) {
			t.Errorf("%v is not among %v", want, before)
		}
	}
}

func TestJetson(t *testing.T) {
	s := New(Options{Root: plant(t, "jetson-orin")}, quiet())
	equal(t, readings(t, s), map[string]float64{
		"temp_die_celsius": 50.031, "temp_celsius{cpu-thermal}": 49.812, "temp_celsius{gpu-thermal}": 47.593,
		"fan_rpm": 1740, "fan_duty_ratio": 0.2, "power_watts": 8, "power_watts{ina3221/VDD_CPU_GPU_CV}": 2,
		"throttle_count": 3, "cooling_state_ratio": 0, "throttled_ratio": 0, "load1": 1, "uptime_seconds": 10, "mem_used_ratio": 0.75,
	})
	if limit, known := s.DieLimitCelsius(); limit != 99 || !known {
		t.Errorf("limit %v %v", limit, known)
	}
	b := s.Board()
	if b.Class != ClassJetson || b.Vendor != "NVIDIA" || b.Serial != "1421922059999" || b.CPUs != 5 || b.Simulated {
		t.Errorf("board %+v", b)
	}
}

func TestBrokenSensorsAreLeftOutAndToldOnce(t *testing.T) {
	var log strings.Builder
	s := New(Options{Root: plant(t, "broken")}, slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		list, err := s.Read(context.Background())
		equal(t, asMap(t, list), map[string]float64{
			"temp_celsius{unnamed/temp3}": 30, "temp_celsius{gpu____x}": 41, "temp_celsius{gpu____x#2}": 42,
		})
		for _, cause := range []string{"hwmon0/temp1_input", "hwmon1/temp1_input", "proc/stat", "proc/meminfo"} {
			if err == nil || !strings.Contains(err.Error(), cause) {
				t.Errorf("no error about %s in %v", cause, err)
			}
		}
	}
	for _, cause := range []string{"hwmon0/temp1_input", "hwmon1/temp1_input", "proc/stat", "proc/meminfo"} {
		if n := strings.Count(log.String(), cause+" "); n != 1 {
			t.Errorf("%d log lines about %s", n, cause)
		}
	}
}

// A pipe without a writer blocks whoever opens it plainly; a raw non-blocking
// read does not, and an empty answer is no value.
func TestPipeAsSensorDoesNotHang(t *testing.T) {
	root := plant(t, "jetson-orin")
	path := filepath.Join(root, "sys/class/thermal/thermal_zone0/temp")
	must(t, os.Remove(path))
	must(t, syscall.Mkfifo(path, 0o644))
	got := readings(t, New(Options{Root: root}, quiet()))
	if has(got, "temp_celsius{cpu-thermal}") || got["temp_die_celsius"] != 50.031 {
		t.Errorf("got %v", got)
	}
}

// Readers that block for ever, as a driver may, must cost the others nothing
// and must not pile up from one Read to the next.
func TestHungSensorsDelayNobodyElse(t *testing.T) {
	const sensors, hung = 60, 7
	dir := t.TempDir()
	tracks := newTrackSet()
	var probes []*probe
	for i := range sensors {
		path := filepath.Join(dir, fmt.Sprint(i))
		if i%8 == 1 && i/8 < hung {
			must(t, syscall.Mkfifo(path, 0o644))
			probes = append(probes, &probe{path: path, track: tracks.get(path), get: func([]byte) (sample, error) {
				fd, err := syscall.Open(path, syscall.O_RDONLY, 0) // blocks until the test writes
				if err == nil {
					syscall.Close(fd)
				}
				return sample{a: -1}, err
			}})
			continue
		}
		must(t, os.WriteFile(path, []byte("30000\n"), 0o644))
		b := builder{read: rawRead, tracks: tracks, byPath: map[string]int{}}
		b.probe(path, parseTemp)
		probes = append(probes, b.plan.probes...)
	}
	for round, want := range []error{errDeadline, errHung, errHung} {
		missing := 0
		for i, r := range collect(t.Context(), probes, 2*time.Second) {
			switch {
			case r.err == nil && r.a == 30:
			case r.err == want:
				missing++
			default:
				t.Errorf("round %d, sensor %d: %v %v", round, i, r.a, r.err)
			}
		}
		if missing != hung {
			t.Errorf("round %d: %d sensors missing, want %d", round, missing, hung)
		}
	}
	for i, p := range probes { // let the readers go
		if i%8 == 1 && i/8 < hung {
			w, err := os.OpenFile(p.path, os.O_WRONLY, 0)
			must(t, err)
			w.Close()
		}
	}
}

// Two DS18B20 on one wire: each measures for 0.75 s, one after the other.
func TestSlowSensorOfASharedBusIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "x86")
		for i, v := range []string{"21000", "33000"} {
			dir := filepath.Join(root, fmt.Sprintf("sys/class/hwmon/hwmon2%d", i))
			must(t, os.Mkdir(dir, 0o755))
			put(t, dir, "name", "w1_slave_temp")
			put(t, dir, "temp1_input", v)
		}
		s := New(Options{Root: root}, quiet())
		bus := make(chan struct{}, 1)
		s.read = func(path string, buf []byte) (int, error) {
			if strings.Contains(path, "/hwmon2") && strings.HasSuffix(path, "temp1_input") && len(filepath.Base(filepath.Dir(path))) == 7 {
				bus <- struct{}{}
				time.Sleep(750 * time.Millisecond)
				<-bus
			}
			return rawRead(path, buf)
		}
		for i := range 4 {
			list, _ := s.Read(t.Context())
			got := asMap(t, list)
			if has(got, "temp_inlet_celsius") && has(got, "temp_room_celsius") != (i > 0) {
				t.Errorf("read %d: %v", i+1, got)
			}
			if v := got["temp_inlet_celsius"] + got["temp_room_celsius"]; i > 0 && v != 54 {
				t.Errorf("read %d: the two say %v together, want 54", i+1, v)
			}
			time.Sleep(10 * time.Second)
		}
		time.Sleep(2 * lateFor)
		list, _ := s.Read(t.Context())
		if got := asMap(t, list); has(got, "temp_inlet_celsius") && has(got, "temp_room_celsius") {
			t.Error("an answer of minutes ago is told")
		}
		time.Sleep(time.Minute) // lets the last reader end
	})
}

func TestCancelledReadReturns(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := New(Options{Root: plant(t, "x86")}, quiet()).Read(ctx); err == nil {
		t.Error("no error")
	}
}

func TestPluggedSensorIsFoundAndLostOneIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "x86")
		s := New(Options{Root: root}, quiet())
		readings(t, s)
		room := filepath.Join(root, "sys/class/hwmon/hwmon7")
		must(t, os.Mkdir(room, 0o755))
		put(t, room, "name", "sht3x\n")
		put(t, room, "temp1_input", "22500\n")
		time.Sleep(rediscoverAfter)
		if got := readings(t, s); got["temp_inlet_celsius"] != 22.5 {
			t.Errorf("after plugging: %v", got)
		}
		must(t, os.RemoveAll(room))
		time.Sleep(staleAfter)
		for range 2 { // the first Read finds it gone, the second has a new plan
			if got := readings(t, s); has(got, "temp_inlet_celsius") {
				t.Errorf("after unplugging: %v", got["temp_inlet_celsius"])
			}
		}
		if slices.ContainsFunc(s.Sensors(), func(x Sensor) bool { return x.Metric == TempInlet }) {
			t.Error("an unplugged sensor is still listed")
		}
	})
}

func TestDieSensorThatNeverAnswersIsPassedOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "jetson-orin")
		put(t, root, "sys/class/thermal/thermal_zone8/temp", "-256000")
		s := New(Options{Root: root}, quiet())
		for range failsToPassOver {
			if got := readings(t, s); has(got, "temp_die_celsius") {
				t.Fatalf("die %v", got["temp_die_celsius"])
			}
		}
		time.Sleep(rediscoverAfter)
		if got := readings(t, s); got["temp_die_celsius"] != 49.812 {
			t.Errorf("die %v, want that of cpu-thermal", got["temp_die_celsius"])
		}
	})
}

func TestDiskFreeIsThatOfTheStateDir(t *testing.T) {
	dir := t.TempDir()
	got := readings(t, New(Options{Root: plant(t, "x86"), StateDir: dir}, quiet()))
	var fs syscall.Statfs_t
	must(t, syscall.Statfs(dir, &fs))
	if all := float64(fs.Blocks) * float64(fs.Bsize); !(got["disk_free_bytes"] > 0 && got["disk_free_bytes"] <= all) {
		t.Errorf("free %v of %v", got["disk_free_bytes"], all)
	}
}

func TestSimulatedBoardsReadLikeRealOnes(t *testing.T) {
	for _, profile := range simboard.Profiles() {
		t.Run(profile, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				root := t.TempDir()
				begin := time.Now()
				board := simboard.New(simboard.Options{Root: root, Profile: profile, Name: "box-1", Seed: 1,
					CPU: func() time.Duration { return time.Since(begin) / 2 }}, quiet())
				defer board.Close()
				s := New(Options{Root: root, StateDir: root}, quiet())
				board.Step(time.Now())
				readings(t, s)
				var got map[string]float64
				for range 30 {
					for range 10 {
						time.Sleep(time.Second)
						board.Step(time.Now())
					}
					got = readings(t, s)
				}
				must(t, board.Err())
				truth := board.Truth()
				check := func(metric Metric, want, off float64) {
					t.Helper()
					if v, ok := got[string(metric)]; !ok || math.Abs(v-want) > off {
						t.Errorf("%s = %v (there: %v), want %v ± %v", metric, v, ok, want, off)
					}
				}
				check(TempDie, truth.DieCelsius, 3)
				check(FanRPM, truth.FanRPM, 0.05*truth.FanRPM)
				check(FanDuty, truth.FanDuty, 0.02)
				check(Power, truth.PowerWatts, 0.06*truth.PowerWatts)
				check(CPUBusy, 0.55, 0.02) // half by the load, a tenth besides
				check(CoolingState, 0, 0)
				check(Uptime, 300, 0.1)
				if _, jetson := got["temp_celsius{gpu-thermal}"]; !jetson {
					check(TempInlet, truth.InletCelsius, 3)
				}
				for _, m := range []Metric{CPUFreq, MemUsed, DiskFree, Load1} {
					if !has(got, string(m)) {
						t.Errorf("no %s", m)
					}
				}
				b := s.Board()
				if b.Class != profile || !b.Simulated || b.BootID == "" || !strings.HasPrefix(b.Serial, "SIM") || b.CPUs < 4 || b.MemBytes < 8e9 {
					t.Errorf("board %+v", b)
				}
				board.FanStop(true)
				for range 60 {
					time.Sleep(time.Second)
					board.Step(time.Now())
				}
				if got = readings(t, s); !has(got, "fan_rpm") || got["fan_rpm"] != 0 {
					t.Errorf("seized fan: %v", got["fan_rpm"])
				}
			})
		})
	}
}
