package sense

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func FuzzParsers(f *testing.F) {
	for _, seed := range []string{"42000\n", "-128000", "0", "", "9223372036854775808", "twelve", "1e3",
		"cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1", "cpu 18446744073709551615 1 1 1 1", "0.42 0.3 0.2 1/2 3", "NaN", "1e999",
		"MemTotal: 100 kB\nMemAvailable: 50 kB", "MemTotal: 1 kB\nMemAvailable: 2 kB", "MemTotal:\nMemAvailable:",
		"pmode:0002", "437", "43@300000000Hz"} {
		f.Add([]byte(seed))
	}
	f.Add(amdTable(1, 3, 1<<36))
	f.Add(amdTable(2, 4, 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		if s, err := parseAMDTable(data); err == nil && s.a != 0 && s.a != 1 {
			t.Errorf("throttled %v of %x", s.a, data)
		}
		if n, err := parseInt(data); err == nil {
			if again, err := parseInt([]byte(strconv.FormatInt(n, 10))); err != nil || again != n {
				t.Errorf("%q: %d, then %d %v", data, n, again, err)
			}
		}
		if s, err := parseTemp(data); err == nil && (s.a <= -40 || s.a > 125 || s.a == 0) {
			t.Errorf("temperature %v of %q", s.a, data)
		}
		if s, err := parseFan(data); err == nil && (s.a < 0 || s.a > 40_000) {
			t.Errorf("fan %v of %q", s.a, data)
		}
		if s, err := parseStat(data); err == nil && (s.a < 0 || s.b < s.a) {
			t.Errorf("busy %v of %v in %q", s.a, s.b, data)
		}
		if s, err := parseMeminfo(data); err == nil {
			if v, ok := usedRatio(nil, []sample{s}); !ok || v < 0 || v > 1 {
				t.Errorf("used %v of %q", v, data)
			}
		}
		if s, err := parsePowerMode(data); err == nil && (s.a < 0 || s.a > 255) {
			t.Errorf("power mode %v of %q", s.a, data)
		}
		if s, err := parseDevfreqLoad(data); err == nil && (s.a < 0 || s.a > 1) {
			t.Errorf("load %v of %q", s.a, data)
		}
		if s, err := parseFirstFloat(data); err == nil && !(s.a >= 0) {
			t.Errorf("%v of %q", s.a, data)
		}
	})
}

// amdTable is a table as the driver of AMD's cards fills it in.
func amdTable(format, revision byte, status uint64) []byte {
	at := map[byte]int{1: 112, 2: 120}[format]
	b := bytes.Repeat([]byte{0x0A}, at+8+16) // what is not the status looks like lines
	b[0], b[1], b[2], b[3] = byte(len(b)), 0, format, revision
	binary.LittleEndian.PutUint64(b[at:], status)
	return b
}

func TestHeatOfAnAMDChipIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		table []byte
		want  float64
		err   error
	}{
		"hot spot of a card":      {amdTable(1, 3, 1<<36), 1, nil},
		"PROCHOT of a processor":  {amdTable(2, 2, 1<<46), 1, nil},
		"power limit":             {amdTable(2, 4, 1<<5|1<<16), 0, nil},
		"nothing":                 {amdTable(1, 3, 0), 0, nil},
		"not filled in":           {amdTable(2, 2, ^uint64(0)), 0, errNoValue},
		"before the word existed": {amdTable(1, 1, 1<<36), 0, errNoValue},
		"cut short":               {amdTable(1, 3, 1<<36)[:100], 0, errFormat},
	} {
		if s, err := parseAMDTable(c.table); s.a != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v; want %v, %v", name, s.a, err, c.want, c.err)
		}
	}
	root := plant(t, "zoo")
	path := filepath.Join(root, "sys/devices/pci0000:00/0000:03:00.0/gpu_metrics")
	must(t, os.WriteFile(path, amdTable(2, 2, 1<<33), 0o644))
	s := New(Options{Root: root}, quiet())
	for range 2 { // lines or not: a table is no text
		want(t, readings(t, s), map[string]float64{"throttled_ratio{0000:03:00.0}": 1})
		must(t, os.WriteFile(path, append(amdTable(2, 2, 1<<33), 7), 0o644))
	}
	asleep := s.read
	s.read = func(file string, buf []byte) (int, error) {
		if file == filepath.Join(root, "sys/class/drm/card0/device/gpu_metrics") {
			return 0, syscall.EPERM
		}
		return asleep(file, buf)
	}
	s.stale, s.planned = true, time.Time{}
	if got := readings(t, s); has(got, "throttled_ratio{0000:03:00.0}") {
		t.Error("a card that sleeps is told to run free")
	}
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{"temp12_input", "pwm1", "pwm1_auto_point1_pwm", "name", "in0_", "temp01_input", "1_x", "0-3,6", "3-0", "0-99999999"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if kind, n, attr, ok := splitAttr(name); ok {
			back := fmt.Sprintf("%s%d", kind, n)
			if attr != "" {
				back = attrName(kind, n, attr)
			}
			if back != name {
				t.Errorf("%q splits into %q", name, back)
			}
		}
		if strings.ContainsAny(cleanLabel(name), "{}\",\n ") {
			t.Errorf("label %q", cleanLabel(name))
		}
		if n, ok := parseCPUList(name); ok && n <= 0 {
			t.Errorf("%d CPUs in %q", n, name)
		}
	})
}

func TestRateDoesNotSurviveAGapOrAReset(t *testing.T) {
	rate := energyRate([]float64{1000}, 500)
	at := func(seconds int, joules float64) []sample {
		return []sample{{a: joules, at: time.Unix(int64(seconds), 0)}}
	}
	for _, c := range []struct {
		name string
		prev []sample
		now  []sample
		want float64
		ok   bool
	}{
		{"first", nil, at(0, 5), 0, false},
		{"plain", at(0, 100), at(10, 300), 20, true},
		{"wrapped", at(0, 900), at(10, 100), 20, true},
		{"same instant", at(0, 100), at(0, 300), 0, false},
		{"too long ago", at(0, 100), at(301, 300), 0, false},
		{"standing still is no power", at(0, 100), at(10, 100), 0, false},
		{"beyond any box", at(0, 0), at(1, 900_000), 0, false},
		{"reset is no wrap", at(0, 900), at(1, 500), 0, false},
	} {
		o := &output{prev: c.prev}
		if got, ok := rate(o, c.now); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %v %v, want %v %v", c.name, got, ok, c.want, c.ok)
		}
	}
}

func BenchmarkRead60Sensors(b *testing.B) {
	root := plant(b, "x86")
	dir := filepath.Join(root, "sys/class/hwmon/hwmon8")
	must(b, os.Mkdir(dir, 0o755))
	put(b, dir, "name", "bench\n")
	for i := 1; len(New(Options{Root: root}, quiet()).Sensors()) < 60; i++ {
		put(b, dir, fmt.Sprintf("temp%d_input", i), "40000\n")
	}
	s := New(Options{Root: root}, quiet())
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Read(context.Background()); err != nil {
			b.Fatal(err)
		}
	}
}
