// Package sense reads the hardware of a box: temperatures, fans, power,
// throttling, memory, disk and identity, from sysfs and procfs below a root
// path, so that a fixture tree or a simulated board is read by the same code
// as a real machine.
//
// Vocabulary: a probe is one file that is read every period; an output is one
// metric computed from one or more probes; a plan is the list of both, found
// by a discovery that is repeated every few minutes and when a device goes
// away. A source is what lies outside of sysfs and takes longer than a Read: a
// program, a BMC, a supply, a serial line. Metric names carry their SI unit; the
// sensors that decide about heat have a role and a plain name
// (temp_die_celsius), all others carry a label in braces
// (temp_celsius{nct6798/AUXTIN0}). rules.go says which sensor becomes which.
//
// Kept on disk: StateDir/fans-seen.json, the keys of the fans that have turned,
// so that one that seizes while the box is off is not taken for an empty header.
//
// A value that could not be read is left out: a missing reading means unknown,
// and zero is only reported when a sensor said zero and may be believed. Rates
// (RAPL power, CPU use) need two reads.
//
// The one rule a caller can break: never read sysfs with os.ReadFile. Offline
// thermal zones of a Jetson answer EAGAIN, and Go's poller then waits for ever.
package sense

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

// Metric is a name of the product's vocabulary, with its SI unit in the name.
type Metric string

// The metrics. Fans, duty and power exist with a {label} as well.
const (
	TempDie      Metric = "temp_die_celsius"
	TempInlet    Metric = "temp_inlet_celsius"
	TempBoard    Metric = "temp_board_celsius"
	TempSSD      Metric = "temp_ssd_celsius"
	TempExhaust  Metric = "temp_exhaust_celsius"
	TempRoom     Metric = "temp_room_celsius"
	Temp         Metric = "temp_celsius" // only with a label
	FanRPM       Metric = "fan_rpm"
	FanDuty      Metric = "fan_duty_ratio"
	Power        Metric = "power_watts"
	CPUFreq      Metric = "cpu_freq_hertz"      // mean of the cpufreq policies
	CPUBusy      Metric = "cpu_busy_ratio"      // since the previous Read
	MemUsed      Metric = "mem_used_ratio"      // 1 - MemAvailable/MemTotal
	DiskFree     Metric = "disk_free_bytes"     // free to the agent, on the disk of StateDir
	Throttle     Metric = "throttle_count"      // events since boot
	CoolingState Metric = "cooling_state_ratio" // 0 = not throttled, 1 = as far as it goes
	Throttled    Metric = "throttled_ratio"     // share of the time since the previous Read
	Load1        Metric = "load1"
	Uptime       Metric = "uptime_seconds"
	// With a label only.
	GPUBusy     Metric = "gpu_busy_ratio"
	GPUClock    Metric = "gpu_clock_hertz"
	GPUMemory   Metric = "gpu_memory_used_ratio"
	RailVolts   Metric = "rail_volts"
	RailAmperes Metric = "rail_amperes"
	Humidity    Metric = "humidity_ratio"
	AirPressure Metric = "air_pressure_pascals"
	// FilterPressure is the difference across a filter or between inside and outside.
	FilterPressure Metric = "filter_pressure_pascals"
	Intrusion      Metric = "intrusion_state"         // 1 = was opened, until someone clears it
	BootOverheat   Metric = "boot_overheat_state"     // 1 = the last reset was for heat (WDIOF_OVERHEAT)
	BootWatchdog   Metric = "boot_watchdog_state"     // 1 = the last reset was by the watchdog (WDIOF_CARDRESET)
	GPUErrors      Metric = "gpu_memory_errors_count" // uncorrected, since the card was made
	GPURows        Metric = "gpu_memory_failing_state"
	DiskWear       Metric = "disk_wear_ratio" // of the rated life; may exceed 1
	DiskSpare      Metric = "disk_spare_ratio"
	DiskSpareLimit Metric = "disk_spare_limit_ratio"
	DiskErrors     Metric = "disk_media_errors_count"
	DiskUnsafe     Metric = "disk_unsafe_shutdowns_count"
	DiskHot        Metric = "disk_hot_seconds"      // above the drive's warning limit
	DiskCritical   Metric = "disk_critical_seconds" // above its critical limit
	DiskOn         Metric = "disk_on_seconds"
	DiskFailing    Metric = "disk_failing_state" // the drive's own verdict
	AirFlow        Metric = "air_flow_m3ph"
	UPSCharge      Metric = "ups_charge_ratio"
	UPSLoad        Metric = "ups_load_ratio"
	UPSRuntime     Metric = "ups_runtime_seconds"
	UPSBattery     Metric = "ups_on_battery_state"
	DustPM1        Metric = "dust_pm1_ugpm3" // µg/m³
	DustPM25       Metric = "dust_pm2p5_ugpm3"
	DustPM10       Metric = "dust_pm10_ugpm3"
	Vibration      Metric = "vibration_mps2" // effective value
	SupplyIn       Metric = "psu_input_watts"
	SupplyOut      Metric = "psu_output_watts"
	SupplyOK       Metric = "psu_ok_state"
	SupplyFan      Metric = "psu_fan_rpm"
	// PowerMode is the number of the nvpmodel mode of a Jetson.
	PowerMode Metric = "power_mode"
)

// Sensor is one thing that can be read. Key is stable across reboots, for
// example "hwmon/k10temp/pci:0000:00:18.3/temp1"; numbers that the kernel hands
// out anew at each boot (hwmon3) are not part of it.
type Sensor struct {
	Key    string
	Metric Metric
	Label  string
}

// Reading is one value. Metric is the name, with the label in braces if any.
type Reading struct {
	Metric string
	Value  float64
}

// Options configure a Sampler.
type Options struct {
	Root    string        // where sys, proc and etc are; default "/"
	Timeout time.Duration // how long one Read waits for all sensors; default 1 s
	// StateDir is the disk whose free space is reported and where fans-seen.json
	// remembers which fans the box has; default none. Not below Root.
	StateDir string
	// Roles says what sensors stand for where the choice of rules.go is wrong:
	// a Sensor.Key to one of die, inlet, board, ssd, exhaust, room, power, fan,
	// or to "none", which leaves the sensor out; default none.
	Roles map[string]string
	// Outside names what is not below Root; default: programs that are there.
	Outside Outside
}

const (
	// rediscoverAfter bounds how long a hot-plugged sensor stays unseen.
	rediscoverAfter = 5 * time.Minute
	// staleAfter keeps a file that is listed but never there from causing a
	// discovery at each Read.
	staleAfter = 30 * time.Second
)

// maxReadings bounds a row of samples: a block may have 1,024 columns (package
// wire). What has no label is kept before all else.
const maxReadings = 800

var errTooMany = fmt.Errorf("more than %d sensors: the rest is left out; give those of no use the role none", maxReadings)

// Sampler reads the sensors of one box. It may be used by several goroutines.
type Sampler struct {
	opts Options // never changes after New
	log  *slog.Logger
	read func(path string, buf []byte) (int, error) // rawRead; tests put faults in

	mu             sync.Mutex // guards the fields below; held for a whole Read
	plan           *plan
	planned        time.Time
	stale          bool       // a device went away: discover before the next read
	discovery      chan *plan // a discovery that is under way, else nil
	tracks         *trackSet  // what is remembered per file, beyond one plan
	logged         map[string]bool
	fans           []string // keys of the fans that have ever turned, in the order of health.RPM1
	fansLoaded     bool
	fansUnsaved    bool
	fanKeys        map[string]string // metric to key of the fans of the last Read
	throttle       throttleState
	sources        []*source
	holders        map[Metric]*holder
	turned         map[string]bool       // keys of fans of sources that have turned
	stillness      map[string]*stillness // by key, of sensors without a role
	outsideSensors []Sensor              // of the last Read
	drivesSilent   bool                  // a drive that has told its health does not
	boardOnce      sync.Once
	boardFound     Board
}

// New makes a Sampler. Nothing is read before the first Read or Board.
func New(opts Options, log *slog.Logger) *Sampler {
	if opts.Root == "" {
		opts.Root = "/"
	}
	if opts.Timeout <= 0 {
		opts.Timeout = time.Second
	}
	return &Sampler{opts: opts, log: log, read: rawRead, tracks: newTrackSet(), logged: map[string]bool{},
		holders: map[Metric]*holder{}, stillness: map[string]*stillness{}, turned: map[string]bool{}}
}

// Read reads every sensor once. What could be read is returned even when err
// is not nil; err joins one error per sensor that failed in earnest. Sensors
// that are only switched off (EAGAIN, ENODATA) or not connected are left out
// without an error. A read that hangs is given up after Options.Timeout and
// is not tried again before it has come back. Sources are asked beside it and
// end with ctx: it must live longer than one Read.
func (s *Sampler) Read(ctx context.Context) ([]Reading, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, err := s.currentPlan(ctx)
	if p == nil {
		return nil, err
	}
	results := collect(ctx, p.probes, s.opts.Timeout)
	errs := []error{err, ctx.Err()}
	for i := range results {
		errs = append(errs, s.judge(p.probes[i], &results[i]))
	}
	readings := make([]Reading, 0, len(p.outputs)+1)
	slowed := slowing{at: time.Now()}
	for _, o := range p.outputs {
		v, ok := o.value(results)
		if !ok {
			o.misses++
			continue
		}
		o.misses = 0
		slowed.note(o.sensor, v)
		if o.sensor.Metric == Temp && s.still(o, v, slowed.die) {
			continue
		}
		if o.sensor.Metric != throttledTime {
			readings = append(readings, Reading{Metric: o.name, Value: v})
		}
	}
	if v, ok := s.throttle.next(slowed, p); ok {
		readings = append(readings, Reading{Metric: string(Throttled), Value: v})
	}
	s.fanKeys = p.fans()
	readings, more := s.outside(ctx, p, readings)
	s.noteFans(readings)
	if len(readings) > maxReadings {
		s.logOnce(s.opts.Root, errTooMany)
		plainFirst := func(r Reading) int { return strings.Count(r.Metric, "{") }
		slices.SortStableFunc(readings, func(x, y Reading) int { return plainFirst(x) - plainFirst(y) })
		readings = readings[:maxReadings]
	}
	return readings, errors.Join(append(errs, more...)...)
}

// still tells whether a sensor is a constant, and logs it once. The die comes
// first in every plan, so that its value of this Read is known.
func (s *Sampler) still(o *output, v float64, die *float64) bool {
	w := s.stillness[o.sensor.Key]
	if w == nil {
		w = &stillness{}
		s.stillness[o.sensor.Key] = w
	}
	if !w.constant(v, die, time.Now()) {
		return false
	}
	s.once(o.sensor.Key, errNoValue, func() { s.log.Info("sensor stands still while the die does not", "path", o.sensor.Key, "value", v) })
	return true
}

// Sensors lists what the last discovery found, in the order of Read.
func (s *Sampler) Sensors() []Sensor {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, _ := s.currentPlan(context.Background())
	if p == nil {
		return nil
	}
	var list []Sensor
	for _, o := range p.outputs {
		if o.sensor.Metric != throttledTime {
			list = append(list, o.sensor)
		}
	}
	return append(list, s.outsideSensors...)
}

// DieLimitCelsius is the temperature at which the kernel or the chip begins to
// throttle the die, as far as the die's own sensor tells it.
func (s *Sampler) DieLimitCelsius() (limit float64, known bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, _ := s.currentPlan(context.Background())
	if h := s.holders[TempDie]; h != nil {
		return h.limit, h.limit > 0
	}
	if p == nil || p.dieLimit == 0 {
		return 0, false
	}
	return p.dieLimit, true
}

// currentPlan returns the plan in force and renews it when it is due. A
// discovery that hangs keeps the old plan in force; only one runs at a time.
func (s *Sampler) currentPlan(ctx context.Context) (*plan, error) {
	if age := time.Since(s.planned); s.plan != nil && age < rediscoverAfter && (!s.stale || age < staleAfter) {
		return s.plan, nil
	}
	if s.discovery == nil {
		found := make(chan *plan, 1)
		s.discovery = found
		s.loadFans()
		b := &builder{root: s.opts.Root, read: s.read, patience: s.opts.Timeout / 4, tracks: s.tracks, byPath: map[string]int{}, labels: map[string]int{},
			roles: s.opts.Roles, turned: slices.Clone(s.fans)}
		opts := s.opts
		go func() { found <- b.discover(opts) }()
	}
	select {
	case p := <-s.discovery:
		p.keepRates(s.plan)
		s.takeSources(p.sources)
		s.plan, s.planned, s.stale, s.discovery = p, time.Now(), false, nil
		return p, nil
	case <-ctx.Done():
		return s.plan, ctx.Err()
	case <-time.After(s.opts.Timeout):
		err := fmt.Errorf("list sensors below %s: no answer within %s", s.opts.Root, s.opts.Timeout)
		s.logOnce(s.opts.Root, err)
		return s.plan, err
	}
}

// judge notes the outcome of one probe and returns an error worth reporting.
func (s *Sampler) judge(p *probe, r *result) error {
	if r.err == nil {
		p.track.fails.Store(0)
		if r.a > 0 {
			p.track.positive.Store(true)
		}
		return nil
	}
	p.track.fails.Add(1)
	if isGone(r.err) {
		s.stale = true
	}
	if errors.Is(r.err, errNoValue) {
		s.once(p.path, errNoValue, func() { s.log.Info("sensor says what cannot be", "path", p.path, "err", r.err) })
		return nil
	}
	if isQuiet(r.err) {
		s.log.Debug("sensor has no value", "path", p.path, "err", r.err)
		return nil
	}
	s.logOnce(p.path, r.err)
	return fmt.Errorf("read %s: %w", p.path, r.err)
}

// maxLogged bounds the memory of logOnce; causes are few on any real box.
const maxLogged = 1000

func (s *Sampler) logOnce(path string, err error) {
	s.once(path, err, func() { s.log.Warn("sensor not readable", "path", path, "err", err) })
}

// once runs tell for the first time that a cause is met.
func (s *Sampler) once(path string, cause error, tell func()) {
	key := path + "\x00" + cause.Error()
	if !s.logged[key] && len(s.logged) < maxLogged {
		s.logged[key] = true
		tell()
	}
}
