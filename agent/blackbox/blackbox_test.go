package blackbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/wire"
)

var (
	boot1, boot2 = [8]byte{1}, [8]byte{2}
	day0         = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
)

func sample(mono time.Duration) Sample {
	s := Blank()
	s.Mono, s.Die, s.Inlet, s.Board, s.SSD = mono, 61.5, 24.1, 35, 40
	s.Watts, s.Volts, s.RPM, s.Duty = 24.5, 12.05, [4]float64{1800, 900, math.NaN(), 0}, 0.4
	s.Throttled, s.Busy, s.Memory, s.ClockHertz = 0, 0.5, 0.25, 2.4e9
	s.Load1, s.LatencySeconds = 1.25, 0.031
	return s
}

// ring is a recorder on a temporary file.
func ring(t *testing.T, opts Options) (*Recorder, *Past) {
	t.Helper()
	if opts.Root == "" {
		opts.Root = t.TempDir()
	}
	r, past, err := Open(opts, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.file.Close() })
	return r, past
}

// live notes a reading each 10 s from mono on, n times.
func live(r *Recorder, from time.Duration, n int) time.Duration {
	for range n {
		r.Note(sample(from), 95, day0.Add(from))
		from += 10 * time.Second
	}
	return from
}

func TestTheLastHourSurvivesAReset(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	r, past := ring(t, Options{Path: path, Boot: boot1})
	if past != nil {
		t.Fatalf("a box that was never recorded has a past: %+v", past)
	}
	live(r, time.Minute, 6*90) // 90 min; nobody closes it
	if _, past = ring(t, Options{Path: path, Boot: boot1}); past != nil {
		t.Error("a restart of the agent alone counts as a reset")
	}
	_, past = ring(t, Options{Path: path, Boot: boot2})
	if past == nil || past.Boot != boot1 || len(past.Records) != slots {
		t.Fatalf("past %+v", past)
	}
	var all []Sample
	for i, rec := range past.Records {
		if i > 0 && rec.Seq != past.Records[i-1].Seq+1 {
			t.Errorf("record %d after %d", rec.Seq, past.Records[i-1].Seq)
		}
		all = append(all, rec.Samples...)
	}
	last := all[len(all)-1]
	if span := last.Mono - all[0].Mono; span < 60*time.Minute || last.Mono < 90*time.Minute {
		t.Errorf("records span %s and end at %s", span, last.Mono)
	}
	want := sample(last.Mono)
	if fmt.Sprintf("%+v", last) != fmt.Sprintf("%+v", want) {
		t.Errorf("last reading\n%+v, want\n%+v", last, want)
	}
}

func TestQuietTimesCostAWriteAMinuteAndHeatIsWrittenAtOnce(t *testing.T) {
	r, _ := ring(t, Options{Path: filepath.Join(t.TempDir(), "ring"), Boot: boot1})
	end := live(r, time.Minute, 6*60)
	if r.seq < 59 || r.seq > 62 {
		t.Errorf("%d writes in an hour", r.seq)
	}
	before := r.seq
	hot := sample(end)
	hot.Die = 93
	r.Note(hot, 95, time.Time{})
	if r.seq != before+1 {
		t.Error("heat waits for its minute")
	}
	hot.Mono += time.Second
	r.Note(hot, 95, time.Time{})
	if r.seq != before+1 {
		t.Error("each second of a hot box is written")
	}
	slow := sample(end + 30*time.Second)
	slow.Throttled = 0.1
	r.Note(slow, 0, time.Time{})
	if r.seq != before+2 {
		t.Error("throttling waits for its minute")
	}
}

// TestATornWriteCostsOneRecord cuts power within a write, at every byte and with
// garbage behind it, and within the whole block.
func TestATornWriteCostsOneRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ring")
	r, _ := ring(t, Options{Path: path, Boot: boot1})
	live(r, time.Minute, 6*70)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	live(r, 80*time.Minute, 6)
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const block = 4096 // of a file system: power may cut the write of a whole one
	slot := int(r.seq%slots) * slotBytes
	if bytes.Equal(before[slot:slot+recordBytes], after[slot:slot+recordBytes]) {
		t.Fatal("the last write is elsewhere")
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for cut := 0; cut <= block; cut += max(13, cut/8) {
		for _, garbage := range []bool{false, true} {
			image := bytes.Clone(before)
			first := slot &^ (block - 1)
			copy(image[first:], after[first:first+cut])
			if garbage {
				for i := first + cut; i < first+block; i++ {
					image[i] = byte(rng.Uint32())
				}
			}
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			_, past := ring(t, Options{Path: path, Boot: boot2})
			if past == nil || len(past.Records) < slots-1 {
				t.Fatalf("cut at %d, garbage %v: %d records", cut, garbage, len(past.Records))
			}
			if n := past.Records[len(past.Records)-1].Seq; n != r.seq && n != r.seq-1 {
				t.Fatalf("cut at %d: the newest record is %d of %d", cut, n, r.seq)
			}
		}
	}
}

func TestARingThatIsNoneIsMadeAnew(t *testing.T) {
	for _, content := range []string{"", "x", strings.Repeat("garbage!", fileBytes/8)} {
		path := filepath.Join(t.TempDir(), "ring")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r, past := ring(t, Options{Path: path, Boot: boot1})
		if past != nil {
			t.Errorf("records of garbage: %+v", past)
		}
		live(r, time.Minute, 12)
		if _, past = ring(t, Options{Path: path, Boot: boot2}); past == nil {
			t.Error("nothing recorded")
		}
	}
}

func TestADiskThatTakesNothingIsSaidOnceAndRecordingGoesOn(t *testing.T) {
	var said bytes.Buffer
	path := filepath.Join(t.TempDir(), "ring")
	r, _ := ring(t, Options{Path: path, Boot: boot1})
	r.log = slog.New(slog.NewTextHandler(&said, nil))
	good := r.file
	var err error
	if r.file, err = os.Open(path); err != nil { // cannot be written to
		t.Fatal(err)
	}
	end := live(r, time.Minute, 60)
	if n := strings.Count(said.String(), "\n"); n != 1 {
		t.Errorf("said %d times:\n%s", n, said.String())
	}
	if len(r.pending) > 100 {
		t.Errorf("%d samples wait in memory", len(r.pending))
	}
	r.file.Close()
	r.file = good
	live(r, end, 6)
	if _, past := ring(t, Options{Path: path, Boot: boot2}); past == nil || len(past.Records[len(past.Records)-1].Samples) != maxSamples {
		t.Errorf("after the disk came back: %+v", past)
	}
}

func FuzzRecord(f *testing.F) {
	rec := Record{Samples: []Sample{sample(time.Minute), Blank()}}
	rec.Seq, rec.Boot, rec.MonoMs = 7, boot1, 61_000
	f.Add(rec.encode())
	f.Add(make([]byte, recordBytes))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == recordBytes { // let the fuzzer past the checksum
			copy(b, magic)
			binary.LittleEndian.PutUint32(b[crcAt:], crc32.Checksum(b[:crcAt], castagnoli))
		}
		if r, err := decode(b); err == nil && !bytes.Equal(r.encode(), b) {
			t.Errorf("decodes and encodes to other bytes:\n%x\n%x", b, r.encode())
		}
	})
}

// story is the past of a box whose last record is changed by how.
func story(how func(*Record)) Past {
	p := Past{Boot: boot1}
	for i := range 20 {
		at := time.Duration(i+1) * time.Minute
		r := Record{Samples: []Sample{sample(at - 10*time.Second), sample(at)}}
		r.Seq, r.Boot, r.MonoMs, r.WallMs = uint64(i+1), boot1, at.Milliseconds(), day0.Add(at).UnixMilli()
		p.Records = append(p.Records, r)
	}
	how(&p.Records[19])
	return p
}

func TestCausesOfAReset(t *testing.T) {
	nothing := func(*Record) {}
	flags := func(f uint16) func(*Record) { return func(r *Record) { r.Flags = f } }
	last := func(set func(*Sample)) func(*Record) { return func(r *Record) { set(&r.Samples[1]) } }
	for _, c := range []struct {
		name  string
		past  func(*Record)
		clues Clues
		cause string
		sure  float64 // at least; guesses are below 0.7
		says  string
	}{
		{"power cut", nothing, Clues{}, wire.ResetPowerCut, 0.6, "looks the same"},
		{"power cut that a Tegra vouches for", nothing, Clues{ResetReason: "SYS_RESET_N"}, wire.ResetPowerCut, 0.85, "power-on"},
		{"shut down", flags(flagClean | flagGoingDown), Clues{}, wire.ResetClean, 0.98, "in order"},
		{"shut down with a watchdog that always says it did it", flags(flagClean | flagGoingDown), Clues{BootStatus: bootCardReset}, wire.ResetClean, 0.98, "in order"},
		{"shut down by the kernel for heat", func(r *Record) { r.Flags = flagClean | flagGoingDown; r.Samples[1].Die = 104 }, Clues{LimitC: 95}, wire.ResetThermal, 0.75, "104 °C"},
		{"panic while going down", flags(flagClean | flagGoingDown), Clues{Crashes: []Crash{{"panic", "Kernel panic - not syncing: x"}}}, wire.ResetPanic, 0.95, "not syncing"},
		{"agent stopped, box soon after", flags(flagClean), Clues{Gap: 20 * time.Second}, wire.ResetClean, 0.9, "20s later"},
		{"agent stopped, box later", flags(flagClean), Clues{Gap: 20 * time.Hour}, wire.ResetClean, 0.6, "not recorded"},
		{"agent stopped, clock unknown", flags(flagClean), Clues{Gap: -1}, wire.ResetClean, 0.6, "not recorded"},
		{"agent stopped, then a hang", flags(flagClean), Clues{BootStatus: bootCardReset, Gap: 20 * time.Hour}, wire.ResetWatchdog, 0.9, "hung"},
		{"shut down by its watchdog, nobody said so", flags(flagClean), Clues{BootStatus: bootCardReset, Gap: 20 * time.Second}, wire.ResetClean, 0.9, "20s later"},
		{"kexec: the Tegra tells of the reset before", flags(flagClean), Clues{ResetReason: "BCCPLEXWDT", Gap: -1}, wire.ResetClean, 0.6, "not recorded"},
		{"away for long", nothing, Clues{Gap: 3 * time.Hour}, wire.ResetPowerCut, 0.6, "3h0m0s passed between"},
		{"watchdog", nothing, Clues{BootStatus: bootCardReset}, wire.ResetWatchdog, 0.9, "hung"},
		{"watchdog of a Tegra", nothing, Clues{ResetReason: "BCCPLEXWDT"}, wire.ResetWatchdog, 0.9, "BCCPLEXWDT"},
		{"watchdog says overheat", nothing, Clues{BootStatus: bootOverheat | bootCardReset}, wire.ResetThermal, 0.95, "overheat"},
		{"thermal reset of a Tegra", nothing, Clues{ResetReason: "SENSOR"}, wire.ResetThermal, 0.95, "SENSOR"},
		{"kernel saw the critical trip", nothing, Clues{Crashes: []Crash{{"panic", "p"}, {"heat", "thermal thermal_zone0: critical temperature reached"}}}, wire.ResetThermal, 0.97, "critical"},
		{"records end hot", last(func(s *Sample) { s.Die = 96 }), Clues{LimitC: 95}, wire.ResetThermal, 0.8, "96 °C"},
		{"records end close to the limit", last(func(s *Sample) { s.Die = 93 }), Clues{LimitC: 95}, wire.ResetThermal, 0.65, "close to"},
		{"hot, limit unknown", last(func(s *Sample) { s.Die = 93 }), Clues{}, wire.ResetPowerCut, 0.6, "last reading: die 93 °C"},
		{"watchdog says low power", nothing, Clues{BootStatus: bootPowerLow}, wire.ResetBrownOut, 0.9, "too low"},
		{"under-voltage events", func(r *Record) { r.LowVolts = 3 }, Clues{}, wire.ResetBrownOut, 0.8, "3 under-voltage"},
		{"supply sags", last(func(s *Sample) { s.Volts = 10.9 }), Clues{}, wire.ResetBrownOut, 0.75, "fell to 10.90 V from 12.05 V"},
		{"no supply sensor", last(func(s *Sample) { s.Volts = math.NaN() }), Clues{}, wire.ResetPowerCut, 0.6, ""},
		{"memory, panic", nothing, Clues{Crashes: []Crash{{"memory", "Kernel panic - not syncing: Out of memory"}}}, wire.ResetMemory, 0.95, "Out of memory"},
		{"memory, killing", func(r *Record) { r.OOMKills = 2 }, Clues{}, wire.ResetMemory, 0.65, "killed 2"},
		{"memory full", last(func(s *Sample) { s.Memory = 0.99 }), Clues{}, wire.ResetMemory, 0.5, "99 %"},
		{"panic", nothing, Clues{Crashes: []Crash{{"panic", "Kernel panic - not syncing: Fatal exception"}}}, wire.ResetPanic, 0.95, "Fatal exception"},
		{"throttled, then dark", last(func(s *Sample) { s.Throttled = 1 }), Clues{}, wire.ResetPowerCut, 0.6, "throttled in its last minutes"},
		{"no reading at all", func(r *Record) { r.Samples = nil }, Clues{}, wire.ResetPowerCut, 0.6, "holds no reading"},
	} {
		got := Judge(story(c.past), c.clues)
		if got.Cause != c.cause || got.Confidence != c.sure || !strings.Contains(fmt.Sprint(got.Evidence), c.says) {
			t.Errorf("%s: %+v, want %s %.2f %q", c.name, got, c.cause, c.sure, c.says)
		}
		if got.UptimeS != 1200 || got.AtMs != day0.Add(20*time.Minute).UnixMilli() || got.PrevBoot != "0100000000000000" {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// TestCluesAreReadFromTheKernelsFiles, those of this reset only.
func TestCluesAreReadFromTheKernelsFiles(t *testing.T) {
	root := t.TempDir()
	put := func(path, content string) string {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if c := Look(root, time.Time{}); c.BootStatus != 0 || c.ResetReason != "" || len(c.Crashes) != 0 {
		t.Errorf("clues of nothing: %+v", c)
	}
	put("sys/class/watchdog/watchdog0/bootstatus", "32\n")
	put("sys/class/watchdog/watchdog1/bootstatus", "0x1\n")
	put("sys/devices/platform/bus@0/c360000.pmc/reset_reason", "SENSOR\n")
	old := put("var/lib/systemd/pstore/1771000000/dmesg.txt", "<0>[ 1.0] Kernel panic - not syncing: of last year\n")
	if err := os.Chtimes(old, day0, day0.Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	put("sys/fs/pstore/dmesg-ramoops-0", "Panic#1 Part1\n<4>[ 9.1] x\n<0>[ 9.2] Kernel panic - not syncing: Fatal exception\n<4> more\n")
	put("sys/fs/pstore/dmesg-ramoops-1", "Oops#1 Part1\n<4>[ 9.1] BUG: unable to handle\n")
	c := Look(root, day0)
	if c.BootStatus != bootCardReset|bootOverheat || c.ResetReason != "SENSOR" {
		t.Errorf("%+v", c)
	}
	if len(c.Crashes) != 1 || c.Crashes[0] != (Crash{"panic", "<0>[ 9.2] Kernel panic - not syncing: Fatal exception"}) {
		t.Errorf("crashes %+v", c.Crashes)
	}
	if err := os.RemoveAll(filepath.Join(root, "sys/fs/pstore")); err != nil {
		t.Fatal(err)
	}
	if c := Look(root, time.Time{}); len(c.Crashes) != 0 {
		t.Errorf("without a clock, a panic of last year is the cause of each reset: %+v", c.Crashes)
	}
	put("proc/vmstat", "nr_free_pages 1\noom_kill 4\nnuma_hit 2\n")
	put("sys/devices/platform/soctherm-oc-event/hwmon/hwmon3/oc1_event_cnt", "7\n")
	if n := findCounts(root); n.oomKills() != 4 || n.lowVolts() != 7 {
		t.Errorf("counts %d and %d", n.oomKills(), n.lowVolts())
	}
	put("sys/class/hwmon/hwmon3/name", "rpi_volt\n")
	put("sys/class/hwmon/hwmon4/name", "nct6798\n") // its first voltage is the core's
	put("sys/class/hwmon/hwmon4/in0_lcrit_alarm", "1\n")
	for path, c := range map[string]struct{ good, low string }{
		"sys/class/hwmon/hwmon3/in0_lcrit_alarm":                                    {"0", "1"},
		"sys/devices/platform/soc/soc:firmware/get_throttled":                       {"50000", "50005"},
		"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": {"0x0", "0x1"},
	} {
		put(path, c.good+"\n")
		if findCounts(root).sagging() {
			t.Errorf("%s: %s is told to be too low", path, c.good)
		}
		put(path, c.low+"\n")
		if !findCounts(root).sagging() {
			t.Errorf("%s: %s is not told to be too low", path, c.low)
		}
		put(path, c.good+"\n")
	}
}

// A driver that hangs or fails for a moment must not look like an event when it
// answers again.
func TestACounterThatIsSilentForAWhileIsNoBrownOut(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "sys/devices/platform/soctherm-oc-event/hwmon/hwmon3")
	path := filepath.Join(dir, "oc1_event_cnt")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(dir, 0o755))
	must(os.WriteFile(path, []byte("7\n"), 0o644))
	c := findCounts(root)
	for i, step := range []func(){
		func() {},
		func() { must(os.WriteFile(path, nil, 0o644)) },
		func() { c.pending[path] = make(chan string, 1) }, // it hangs
		func() { must(os.WriteFile(path, []byte("7\n"), 0o644)) },
		func() { c.pending[path] <- "7" }, // and comes back
		func() {},
	} {
		if step(); c.lowVolts() != 7 {
			t.Errorf("step %d: %d events", i, c.lowVolts())
		}
	}
	must(os.WriteFile(path, []byte("8\n"), 0o644))
	if c.lowVolts() != 8 {
		t.Errorf("%d events, want 8", c.lowVolts())
	}
}

func TestLowVoltageOfARaspberryPiIsABrownOut(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "sys/devices/platform/soc/soc:firmware")
	say := func(bits string) {
		if err := os.WriteFile(filepath.Join(dir, "get_throttled"), []byte(bits+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	say("0")
	path := filepath.Join(t.TempDir(), "ring")
	r, _ := ring(t, Options{Path: path, Boot: boot1, Root: root})
	end := live(r, time.Minute, 60)
	before := r.seq
	say("50005")
	s := sample(end)
	s.Volts = math.NaN()
	r.Note(s, 95, time.Time{})
	if r.seq != before+1 {
		t.Error("low voltage waits for its minute")
	}
	_, past := ring(t, Options{Path: path, Boot: boot2, Root: root})
	if got := Judge(*past, Clues{Gap: -1, LimitC: 95}); got.Cause != wire.ResetBrownOut || got.Confidence < 0.7 {
		t.Errorf("%+v", got)
	}
}

func TestACleanStopIsMarked(t *testing.T) {
	for _, down := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "ring")
		r, _ := ring(t, Options{Path: path, Boot: boot1, GoingDown: func() bool { return down }})
		end := live(r, time.Minute, 3)
		if err := r.Close(end, day0.Add(end)); err != nil {
			t.Fatal(err)
		}
		_, past := ring(t, Options{Path: path, Boot: boot2})
		got := Judge(*past, Clues{Gap: -1})
		if want := map[bool]float64{false: 0.6, true: 0.98}[down]; got.Cause != wire.ResetClean || got.Confidence != want {
			t.Errorf("down %v: %+v", down, got)
		}
	}
}
