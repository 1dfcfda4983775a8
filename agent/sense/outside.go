package sense

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense/air"
	"github.com/edgeherd/edgeherd/agent/sense/bmc"
)

// Outside names what is not below Root: programs, the network, serial lines.
// Programs are looked for only on the real root, and only where their devices
// are; all else is read only when it is named here.
type Outside struct {
	// NVIDIASMI, Smartctl and IPMITool are the programs; default: found in
	// PATH. "none" leaves one out.
	NVIDIASMI string `yaml:"nvidia_smi"`
	Smartctl  string `yaml:"smartctl"`
	IPMITool  string `yaml:"ipmitool"`
	// GPUPeriod is between two runs of nvidia-smi; default 30 s.
	GPUPeriod time.Duration `yaml:"gpu_period"`
	// DrivePeriod is between two looks at a drive's SMART data; default 10 min.
	// Sleeping disks are left asleep.
	DrivePeriod time.Duration `yaml:"drive_period"`
	// BMCPeriod is between two reads of a BMC, in-band or Redfish; default 60 s.
	BMCPeriod time.Duration `yaml:"bmc_period"`
	// Redfish is a BMC to ask over the network; default none. With one, ipmitool
	// is not run.
	Redfish bmc.Redfish `yaml:"redfish"`
	// UPS are supplies behind NUT servers: "name@host", "name@host:port", or
	// "@host" for all that a server knows; or behind apcupsd, which has one:
	// "apcupsd://host" or "apcupsd://host:port"; default none.
	UPS []string `yaml:"ups"`
	// UPSPeriod is between two questions to a supply; default 30 s.
	UPSPeriod time.Duration `yaml:"ups_period"`
	// Dust are particle sensors on serial lines; default none.
	Dust []air.Serial `yaml:"dust"`
	// Pressure is an SDP8xx across the filter; default none.
	Pressure air.I2C `yaml:"pressure"`
	// AirPeriod is between two readings of dust, pressure and vibration;
	// default 60 s.
	AirPeriod time.Duration `yaml:"air_period"`
}

// apcupsd begins the address of one in Outside.UPS.
const apcupsd = "apcupsd://"

func (o Outside) withDefaults() Outside {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.GPUPeriod, 30*time.Second)
	def(&o.DrivePeriod, 10*time.Minute)
	def(&o.BMCPeriod, time.Minute)
	def(&o.UPSPeriod, 30*time.Second)
	def(&o.AirPeriod, time.Minute)
	return o
}

// Check tells what is wrong with the options, before they are used.
func (o Outside) Check() error {
	if o.Redfish.URL != "" {
		if _, err := bmc.NewRedfish(o.Redfish); err != nil {
			return err
		}
	}
	for _, d := range o.Dust {
		if err := d.Check(); err != nil {
			return err
		}
	}
	if o.Pressure != (air.I2C{}) {
		if err := o.Pressure.Check(); err != nil {
			return err
		}
	}
	for _, u := range o.UPS {
		if host, apc := strings.CutPrefix(u, apcupsd); apc && host != "" && !strings.ContainsAny(host, "/@ ") {
			continue
		}
		if name, host, ok := strings.Cut(u, "@"); !ok || host == "" || strings.ContainsAny(name, " \"\\") {
			return fmt.Errorf("supply %q: want name@host or @host of a NUT server, or apcupsd://host", u)
		}
	}
	return nil
}

// value is one figure from outside. Plain is a metric without a label that it
// may stand for when no sensor below Root does; "" for none.
type value struct {
	Sensor
	Plain Metric
	V     float64
	Limit float64 // of a temperature: where throttling begins; 0 when unknown
}

// source is one thing outside that takes too long for a Read. It is asked once
// per period, beside the Reads, which tell its last answer until it is too old.
// Fields below name are guarded by Sampler.mu.
type source struct {
	name   string // also the beginning of its keys
	period time.Duration
	limit  time.Duration // of one answer
	ask    func(ctx context.Context) ([]value, error)

	failing bool // the last answer was an error, and it is logged
	asked   time.Time
	told    time.Time
	last    []value
	waiting chan answer // a question that has not been answered, else nil
}

type answer struct {
	values []value
	err    error
}

// next takes the answer if it is there, asks when it is time, and returns the
// last answer that is not too old. A source that hangs is asked no second time
// before it has come back; its values go when they are three periods old.
func (s *source) next(ctx context.Context, now time.Time) (fresh []value, err error) {
	if s.waiting != nil {
		select {
		case a := <-s.waiting:
			s.waiting, err = nil, a.err
			if a.err == nil || len(a.values) > 0 {
				s.last, s.told = a.values, now
			}
			s.failing = s.failing && a.err != nil
		default:
			if now.Sub(s.asked) > s.limit+s.period {
				err = errHung
			}
		}
	}
	if s.waiting == nil && (s.asked.IsZero() || now.Sub(s.asked) >= s.period) {
		s.asked = now
		waiting := make(chan answer, 1) // room for it: nobody may wait any more
		s.waiting = waiting
		ask, limit := s.ask, s.limit
		go func() {
			ctx, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			values, err := ask(ctx)
			waiting <- answer{values, err}
		}()
	}
	if s.told.IsZero() || now.Sub(s.told) > 3*s.period {
		return nil, err
	}
	return s.last, err
}

// takeSources goes on with the sources that a discovery still finds and takes
// up the new ones.
func (s *Sampler) takeSources(found []*source) {
	for i, f := range found {
		if j := slices.IndexFunc(s.sources, func(old *source) bool { return old.name == f.name }); j >= 0 {
			found[i] = s.sources[j]
		}
	}
	s.sources = found
}

// holder is a sensor from outside that stands for a plain metric.
type holder struct {
	key    string
	limit  float64
	misses int // Reads without a value, in a row
}

// outside asks the sources and adds what they said to the readings of a Read.
func (s *Sampler) outside(ctx context.Context, p *plan, readings []Reading) ([]Reading, []error) {
	var errs []error
	var all []value
	s.drivesSilent = false
	for _, src := range s.sources {
		values, err := src.next(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			errs = append(errs, err)
			if !src.failing { // one line, for as long as it fails: its words may vary
				s.log.Warn("sensors outside not readable", "path", src.name, "err", err)
			}
			src.failing = true
		}
		if strings.HasPrefix(src.name, "smart") && !src.told.IsZero() && len(values) == 0 {
			s.drivesSilent = true
		}
		for _, v := range values {
			if s.opts.Roles[v.Key] != "none" && s.fitted(v) {
				all = append(all, v)
			}
		}
	}
	names := map[string]int{}
	s.outsideSensors = s.outsideSensors[:0]
	for _, v := range all {
		sensor := v.Sensor
		if plain := s.mayStandFor(p, v); plain != "" {
			sensor.Metric, sensor.Label = plain, ""
		}
		name := sensor.Name()
		if names[name]++; names[name] > 1 {
			sensor.Label = fmt.Sprintf("%s#%d", sensor.Label, names[name])
			name = sensor.Name()
		}
		if sensor.Metric == FanRPM {
			s.fanKeys[name] = v.Key
		}
		s.outsideSensors = append(s.outsideSensors, sensor)
		readings = append(readings, Reading{Metric: name, Value: v.V})
	}
	return s.settleHolders(readings, names), errs
}

// fitted tells fans from slots without one: those have never turned.
func (s *Sampler) fitted(v value) bool {
	if v.Metric != FanRPM && v.Metric != SupplyFan {
		return true
	}
	if v.V > 0 {
		s.turned[v.Key] = true
	}
	return s.turned[v.Key] || slices.Contains(s.fans, v.Key)
}

// mayStandFor returns the plain metric that v stands for. Sensors below Root go
// first; one from outside takes a role that none of them has, or whose sensor
// has not answered for as long as it takes to be passed over. Who has a role
// keeps it until it falls silent, so that it does not go to and fro.
func (s *Sampler) mayStandFor(p *plan, v value) Metric {
	want := v.Plain
	given, ordered := s.opts.Roles[v.Key]
	if ordered {
		want = roleMetrics[given]
	}
	if want == "" {
		return ""
	}
	if h := s.holders[want]; h != nil && h.key != v.Key || h == nil && !ordered && p.answers(want) {
		return ""
	}
	s.holders[want] = &holder{key: v.Key, limit: v.Limit}
	return want
}

// settleHolders takes out what sensors below Root say of a role that has gone
// to one from outside, and ends the roles of those that have fallen silent.
func (s *Sampler) settleHolders(readings []Reading, outside map[string]int) []Reading {
	for metric, h := range s.holders {
		if outside[string(metric)] == 0 {
			if h.misses++; h.misses >= failsToPassOver {
				delete(s.holders, metric)
			}
		}
		for i := 0; i < len(readings)-1; i++ {
			again := slices.ContainsFunc(readings[i+1:], func(r Reading) bool { return r.Metric == string(metric) })
			if readings[i].Metric == string(metric) && (again || outside[string(metric)] == 0) {
				readings = slices.Delete(readings, i, i+1)
				break
			}
		}
	}
	return readings
}

// roleMetrics are the words of Options.Roles.
var roleMetrics = map[string]Metric{
	"die": TempDie, "inlet": TempInlet, "board": TempBoard, "ssd": TempSSD,
	"exhaust": TempExhaust, "room": TempRoom, "power": Power, "fan": FanRPM,
}

// answers tells whether the plan has a sensor for a plain metric that is not
// silent.
func (p *plan) answers(m Metric) bool {
	for _, o := range p.outputs {
		if o.sensor.Metric == m && o.sensor.Label == "" {
			return o.misses < failsToPassOver
		}
	}
	return false
}

// Name is the metric of a Reading of the sensor.
func (s Sensor) Name() string {
	if s.Label == "" {
		return string(s.Metric)
	}
	return string(s.Metric) + "{" + s.Label + "}"
}
