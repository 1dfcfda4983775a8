package sense

import (
	"bytes"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// faulty stands between the Sampler and its files and does what drivers do.
// A value is derived from the file's name and the time, so that the test knows
// the truth; the files themselves are there for the discoveries.
type faulty struct {
	mu    sync.Mutex
	rng   *rand.Rand
	begin time.Time
	whole map[string]bool // files that were read whole at least once
	gone  map[string]bool // directories that were unplugged
	off   bool            // no more faults
	hung  int             // readers that hang now
	worst int
}

// truth is what a file would say at a time, "" for files that are not played.
func (f *faulty) truth(path string, at time.Time) string {
	base := filepath.Base(path)
	seed := 0
	for _, c := range filepath.Base(filepath.Dir(path)) + base {
		seed = (seed*31 + int(c)) % 997
	}
	swing := math.Sin(at.Sub(f.begin).Seconds()/600 + float64(seed))
	switch kind, _, attr, _ := splitAttr(base); {
	case kind == "temp" && attr == "input" || base == "temp":
		return strconv.Itoa(45_000 + seed*10 + int(15_000*swing))
	case kind == "fan" && attr == "input":
		return strconv.Itoa(1500 + seed + int(400*swing))
	case kind == "pwm":
		return strconv.Itoa(120 + int(80*swing))
	case base == "energy_uj":
		watts := 20 + float64(seed%20)
		joules := math.Mod(262_000+watts*at.Sub(f.begin).Seconds(), 262_143.328850)
		return strconv.FormatInt(int64(joules*1e6), 10)
	case strings.HasSuffix(base, "_count"):
		return strconv.Itoa(7 + int(at.Sub(f.begin).Hours()))
	}
	return ""
}

func (f *faulty) read(path string, buf []byte) (int, error) {
	f.mu.Lock()
	truth := f.truth(path, time.Now())
	if f.gone[filepath.Dir(path)] {
		f.mu.Unlock()
		return 0, syscall.ENODEV
	}
	if truth == "" {
		f.mu.Unlock()
		return rawRead(path, buf)
	}
	dice := f.rng.IntN(60)
	if f.off {
		dice = 59
	}
	hang := time.Duration(f.rng.IntN(30_000)) * time.Millisecond
	f.mu.Unlock()
	errs := []error{syscall.EAGAIN, syscall.EIO, syscall.ENODATA, syscall.ENXIO, syscall.EINVAL, syscall.EACCES, syscall.ENODEV, syscall.ETIMEDOUT, syscall.EREMOTEIO}
	say := func(s string) (int, error) { return copy(buf, s), nil }
	switch {
	case dice < len(errs):
		return 0, errs[dice]
	case dice == 20: // hangs for up to half a minute, then tells the truth of then
		f.note(+1)
		time.Sleep(hang)
		f.note(-1)
		return say(f.truth(path, time.Now()) + "\n")
	case dice == 21:
		return 0, errNoValue // an empty file
	case dice == 22 && f.isWhole(path): // half-written
		return say(truth[:1+len(truth)/3])
	case dice == 23:
		return say([]string{"garbage\n", "\x00\x00\n", "1e9\n", "NaN\n", "0x41\n", "99999999999999999999\n"}[hang%6])
	case dice == 24:
		return say(f.sentinel(path, int(hang)))
	}
	f.mu.Lock()
	f.whole[path] = true
	f.mu.Unlock()
	return say(truth + "\n")
}

func (f *faulty) isWhole(path string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.whole[path]
}

func (f *faulty) note(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hung += n
	f.worst = max(f.worst, f.hung)
}

// sentinel is a value that says nothing, or one in another unit.
func (f *faulty) sentinel(path string, pick int) string {
	base := filepath.Base(path)
	var list []string
	switch kind, _, _, _ := splitAttr(base); {
	case kind == "temp" || base == "temp":
		list = []string{"0", "127000", "128000", "-128000", "-256000", "-274000", "-89700", "255000", "45", "-40000", "65535000"}
	case kind == "fan":
		list = []string{"65535", "-1", "3276800"}
	case kind == "pwm":
		list = []string{"256", "-1", "65535"}
	case base == "energy_uj":
		list = []string{"-1", "18446744073709551615"}
	default:
		list = []string{"-1"}
	}
	return list[pick%len(list)] + "\n"
}

// near says whether v is what the truth was at one moment of the last span.
func (f *faulty) near(path string, scale, v float64, span time.Duration) bool {
	for back := time.Duration(0); back <= span; back += 250 * time.Millisecond {
		n, _ := strconv.ParseFloat(f.truth(path, time.Now().Add(-back)), 64)
		if math.Abs(n/scale-v) <= 1e-9+0.002*math.Abs(v) {
			return true
		}
	}
	return false
}

// A day of a box on which everything fails now and then. What is told is true
// or missing: never a false zero, never late, and nothing is left behind: the
// bubble of the test does not end while a reader lives.
func TestDayOfFaultsTellsNothingFalse(t *testing.T) {
	day := 2 * time.Hour
	if os.Getenv("EDGEHERD_PROVE") != "" {
		day = 24 * time.Hour
	}
	seed := assets.Seed(t)
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "x86")
		for i := range 30 { // sixty sensors and more
			put(t, root, fmt.Sprintf("sys/class/hwmon/hwmon1/temp%d_input", 10+i), "45000")
		}
		put(t, root, "sys/class/powercap/intel-rapl:0/constraint_0_power_limit_uw", "65000000")
		put(t, root, "sys/class/powercap/intel-rapl:1/constraint_0_power_limit_uw", "65000000")
		f := &faulty{rng: rand.New(rand.NewPCG(seed, 1)), begin: time.Now(), whole: map[string]bool{}, gone: map[string]bool{}}
		var log bytes.Buffer
		s := New(Options{Root: root}, slog.New(slog.NewTextHandler(&log, nil)))
		s.read = f.read
		chips := []string{"hwmon0", "hwmon1", "hwmon3"}
		told := map[string]int{}
		reads := int(day / (10 * time.Second))
		for i := range reads {
			f.plug(t, root, chips[i%3], i)
			begin := time.Now()
			list, _ := s.Read(t.Context())
			if took := time.Since(begin); took > 2*s.opts.Timeout {
				t.Fatalf("seed %d: read %d took %s", seed, i, took)
			}
			for _, r := range list {
				told[r.Metric]++
				f.judge(t, s, r)
			}
			if t.Failed() {
				t.Fatalf("seed %d, read %d", seed, i)
			}
			time.Sleep(10 * time.Second)
		}
		f.mu.Lock()
		worst := f.worst
		f.mu.Unlock()
		if worst == 0 || worst > 80 {
			t.Errorf("seed %d: %d readers hung at once", seed, worst)
		}
		if n := bytes.Count(log.Bytes(), []byte("\n")); n > 1000 {
			t.Errorf("seed %d: %d log lines in %s", seed, n, day)
		}
		f.healed(t, s, root, chips)
		for _, m := range []string{"temp_die_celsius", "temp_board_celsius", "fan_rpm", "power_watts", "temp_celsius{nct6798/temp39}"} {
			if told[m] < reads/3 {
				t.Errorf("seed %d: %s was told %d times of %d", seed, m, told[m], reads)
			}
		}
	})
}

// plug takes a chip away now and then and brings it back under another number,
// as drivers that are loaded anew do.
func (f *faulty) plug(t *testing.T, root, name string, i int) {
	dir := filepath.Join(root, "sys/class/hwmon", name)
	away := filepath.Join(root, "away-"+name)
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.gone[dir] && i%7 == 0:
		must(t, os.Rename(away, dir))
		delete(f.gone, dir)
	case !f.gone[dir] && f.rng.IntN(150) == 0:
		must(t, os.Rename(dir, away))
		f.gone[dir] = true
	}
}

// judge compares one reading with the truth.
func (f *faulty) judge(t *testing.T, s *Sampler, r Reading) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name, _, _ := strings.Cut(r.Metric, "{")
	lo, hi, notZero := plausibleRange(name)
	if !(r.Value >= lo && r.Value <= hi) || notZero && r.Value == 0 {
		t.Errorf("%s = %v", r.Metric, r.Value)
	}
	for _, o := range s.plan.outputs {
		if o.name != r.Metric || len(o.from) != 1 {
			continue
		}
		path := s.plan.probes[o.from[0]].path
		switch o.sensor.Metric {
		case Temp, TempDie, TempBoard, TempSSD:
			if !f.near(path, 1000, r.Value, 35*time.Second) {
				t.Errorf("%s = %v, never said by %s", r.Metric, r.Value, path)
			}
		case FanRPM:
			if !f.near(path, 1, r.Value, 35*time.Second) {
				t.Errorf("%s = %v, never said by %s", r.Metric, r.Value, path)
			}
		case Power:
			if r.Value < 19 || r.Value > 41 {
				t.Errorf("%s = %v W, the truth is 20 to 40", r.Metric, r.Value)
			}
		}
	}
}

// plausibleRange is what a metric can be. The test that runs over the trees of
// others uses it too.
func plausibleRange(name string) (lo, hi float64, notZero bool) {
	switch unit := name[strings.LastIndex(name, "_")+1:]; unit {
	case "celsius":
		return -40, 125, true
	case "rpm":
		return 0, 40_000, false
	case "watts":
		return 0, maxWatts, true
	case "hertz":
		return 1e6, 1e11, true
	case "ratio":
		return 0, 2.55, false
	case "state":
		return 0, 1, false
	case "volts", "amperes":
		return -1000, 1000, false
	}
	return 0, math.MaxFloat64, false
}

// healed checks that all comes back when the faults end.
func (f *faulty) healed(t *testing.T, s *Sampler, root string, chips []string) {
	f.mu.Lock()
	f.off = true
	f.mu.Unlock()
	for _, chip := range chips {
		for i := 0; f.isGone(filepath.Join(root, "sys/class/hwmon", chip)); i += 7 {
			f.plug(t, root, chip, i)
		}
	}
	time.Sleep(rediscoverAfter)
	s.Read(t.Context())
	time.Sleep(40 * time.Second)
	s.Read(t.Context())
	time.Sleep(rediscoverAfter)
	s.Read(t.Context())
	time.Sleep(10 * time.Second)
	got := readings(t, s)
	// Which fan is the first is settled by who turned first; that of fan3 has no duty.
	for _, m := range []string{"temp_die_celsius", "temp_board_celsius", "temp_ssd_celsius", "fan_rpm", "power_watts", "throttle_count"} {
		if !has(got, m) {
			t.Errorf("%s did not come back", m)
		}
	}
	if !has(got, "fan_duty_ratio") && !has(got, "fan_duty_ratio{nct6798/pwm2}") {
		t.Error("the duty of the fans did not come back")
	}
}

func (f *faulty) isGone(dir string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gone[dir]
}

// Whichever file hangs, at boot as well, it costs what it says itself and
// nothing else.
func TestAnyHungFileCostsItselfOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := plant(t, "x86")
		var mu sync.Mutex
		asked := map[string]bool{}
		tell := func(hung string) int {
			stop := make(chan struct{})
			defer close(stop)
			s := New(Options{Root: root}, quiet())
			s.read = func(path string, buf []byte) (int, error) {
				mu.Lock()
				asked[path] = true
				mu.Unlock()
				if path == hung {
					<-stop
				}
				return rawRead(path, buf)
			}
			begin, told := time.Now(), 0
			for range 3 {
				list, _ := s.Read(t.Context())
				told = len(list)
				time.Sleep(time.Second)
			}
			if took := time.Since(begin); took > 6*s.opts.Timeout+time.Second/2 {
				t.Errorf("three reads took %s with %s hung", took-3*time.Second, hung)
			}
			return told
		}
		all := tell("")
		if all < 10 || len(asked) < 40 {
			t.Fatalf("%d readings of %d files", all, len(asked))
		}
		for _, path := range slices.Sorted(maps.Keys(asked)) {
			if !strings.Contains(path, "/sys/") {
				continue
			}
			if told := tell(path); told < all-3 { // a fan is a speed and a duty
				t.Errorf("%d readings of %d with %s hung", told, all, path)
			}
		}
	})
}
