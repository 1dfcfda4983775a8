package sense

import (
	"cmp"
	"context"
	"errors"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense/air"
	"github.com/edgeherd/edgeherd/agent/sense/bmc"
	"github.com/edgeherd/edgeherd/agent/sense/child"
	"github.com/edgeherd/edgeherd/agent/sense/ups"
)

// sources lists what is outside. A program is run where it and a device for it
// are there.
func (b *builder) sources(o Outside) []*source {
	o = o.withDefaults()
	list := []*source{}
	if path := b.program(o.NVIDIASMI, "nvidia-smi", exists(b.path("dev/nvidiactl"))); path != "" {
		list = append(list, &source{name: "nvidia", period: o.GPUPeriod, limit: 20 * time.Second, ask: askNVIDIA(path)})
	}
	if path := b.program(o.Smartctl, "smartctl", true); path != "" {
		for _, device := range drives(b) {
			list = append(list, &source{name: "smart" + device, period: o.DrivePeriod, limit: 30 * time.Second, ask: askDrive(path, device)})
		}
	}
	hasIPMI := exists(b.path("dev/ipmi0")) || exists(b.path("dev/ipmi/0"))
	if o.Redfish.URL != "" {
		client, err := bmc.NewRedfish(o.Redfish)
		ask := func(context.Context) ([]value, error) { return nil, err }
		if err == nil {
			ask = askBMC(o.BMCPeriod, client.Read)
		}
		list = append(list, &source{name: "bmc", period: o.BMCPeriod, limit: 50 * time.Second, ask: ask})
	} else if path := b.program(o.IPMITool, "ipmitool", hasIPMI); path != "" {
		list = append(list, &source{name: "bmc", period: o.BMCPeriod, limit: 50 * time.Second, ask: askBMC(o.BMCPeriod, func(ctx context.Context) ([]bmc.Sensor, error) {
			return bmc.IPMI(ctx, path)
		})})
	}
	for _, u := range o.UPS {
		list = append(list, &source{name: "ups/" + cleanLabel(u), period: o.UPSPeriod, limit: 5 * time.Second, ask: askUPS(u)})
	}
	for _, d := range o.Dust {
		rest := time.Duration(d.PeriodMinutes) * time.Minute // it is silent for as long
		list = append(list, &source{name: "dust" + d.Path, period: max(o.AirPeriod, rest), limit: rest + 45*time.Second, ask: askDust(d)})
	}
	if o.Pressure != (air.I2C{}) {
		list = append(list, &source{name: "pressure", period: o.AirPeriod, limit: 5 * time.Second, ask: askPressure(o.Pressure)})
	}
	for _, d := range b.iioDevices() {
		if accelerometer(d) {
			list = append(list, &source{name: d.key, period: o.AirPeriod, limit: 10 * time.Second, ask: askVibration(d)})
		}
	}
	return list
}

// program returns where to find one, "" to leave it out. What is named is run;
// what is not is looked for on the real root alone, if its device is there.
func (b *builder) program(named, usual string, device bool) string {
	switch {
	case named == "none":
		return ""
	case named != "":
		return named
	case filepath.Clean(b.root) != "/" || !device:
		return ""
	}
	path, err := exec.LookPath(usual)
	if err != nil {
		return ""
	}
	return path
}

// drives lists the controllers of NVMe drives and the disks behind SATA or SAS.
func drives(b *builder) (list []string) {
	for _, name := range dirNames(b.path("sys/class/nvme")) {
		list = append(list, "/dev/"+name)
	}
	for _, name := range dirNames(b.path("sys/block")) {
		if strings.HasPrefix(name, "sd") && exists(b.path("sys/block", name, "device/model")) {
			list = append(list, "/dev/"+name)
		}
	}
	return list[:min(len(list), 24)]
}

// values collects figures that may be missing.
type values []value

func (l *values) add(key, label string, m Metric, v *float64) {
	if v != nil && !math.IsNaN(*v) && !math.IsInf(*v, 0) {
		*l = append(*l, value{Sensor: Sensor{Key: key + "/" + string(m), Metric: m, Label: cleanLabel(label)}, V: *v})
	}
}

func (l *values) flag(key, label string, m Metric, v *bool) {
	if v != nil {
		n := 0.0
		if *v {
			n = 1
		}
		l.add(key, label, m, &n)
	}
}

func askNVIDIA(path string) func(ctx context.Context) ([]value, error) {
	return func(ctx context.Context) ([]value, error) {
		out, err := child.Output(ctx, path, child.NVIDIA()...)
		if err != nil {
			return nil, err
		}
		cards, err := child.Cards(out)
		if err != nil {
			return nil, err
		}
		var l values
		for _, c := range cards {
			key, label := "nvidia/"+cleanLabel(c.UUID), c.Bus
			l.add(key, label+"/die", Temp, c.DieCelsius)
			if c.DieCelsius != nil && c.SlowCelsius != nil {
				l[len(l)-1].Limit = *c.SlowCelsius
			}
			l.add(key+"/memory", label+"/memory", Temp, c.MemoryCelsius)
			l.add(key, label, Power, c.PowerWatts)
			l.add(key, label, FanDuty, c.FanRatio)
			l.add(key, label, GPUBusy, c.BusyRatio)
			l.add(key, label, GPUMemory, c.MemoryRatio)
			l.add(key, label, GPUClock, c.ClockHertz)
			l.flag(key, label, Throttled, c.Throttled)
			l.add(key, label, GPUErrors, c.Uncorrected)
			l.flag(key, label, GPURows, c.RowsFailed)
		}
		return l, nil
	}
}

func askDrive(path, device string) func(ctx context.Context) ([]value, error) {
	return func(ctx context.Context) ([]value, error) {
		out, err := child.Output(ctx, path, child.SMART(device)...)
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			return nil, err
		}
		// Bit 1 of the code: the device could not be opened, or sleeps; the bits
		// from 3 on are findings and no reason to look away (smartctl(8)).
		d, err := child.DriveOf(out)
		if err != nil {
			if exit != nil && exit.ExitCode()&2 != 0 && strings.Contains(string(out), "STANDBY") {
				return nil, nil
			}
			return nil, err
		}
		var l values
		key, label := "smart/"+cleanLabel(d.Serial), d.Serial
		if d.Serial == "" {
			key, label = "smart"+device, filepath.Base(device)
		}
		l.add(key, label, Temp, d.Celsius)
		l.add(key, label, DiskWear, d.WearRatio)
		l.add(key, label, DiskSpare, d.SpareRatio)
		l.add(key, label, DiskSpareLimit, d.SpareLimitRatio)
		l.add(key, label, DiskErrors, d.MediaErrors)
		l.add(key, label, DiskUnsafe, d.UnsafeShutdowns)
		l.add(key, label, DiskHot, d.HotSeconds)
		l.add(key, label, DiskCritical, d.CriticalSeconds)
		l.add(key, label, DiskOn, d.PowerOnSeconds)
		l.flag(key, label, DiskFailing, d.Failing)
		return l, nil
	}
}

// askBMC reads a controller and believes what three readings agree on. Those are
// taken in a row when it is asked for the first time.
func askBMC(period time.Duration, read func(ctx context.Context) ([]bmc.Sensor, error)) func(ctx context.Context) ([]value, error) {
	metrics := map[bmc.Kind]Metric{bmc.Celsius: Temp, bmc.RPM: FanRPM, bmc.DutyRatio: FanDuty, bmc.Watts: Power,
		bmc.CFM: AirFlow, bmc.Intrusion: Intrusion,
		bmc.SupplyIn: SupplyIn, bmc.SupplyOut: SupplyOut, bmc.SupplyOK: SupplyOK, bmc.SupplyRPM: SupplyFan}
	steady, first := &bmc.Steady{}, true // of one goroutine at a time
	return func(ctx context.Context) ([]value, error) {
		begin, pause := time.Now(), period/60 // they measure every second or two
		said, err := read(ctx)                // a part of it even with an error
		sensors, young := steady.Take(said)
		enough := 2 * (time.Since(begin) + pause)
		for range 2 {
			end, limited := ctx.Deadline()
			if !first || !young || len(said) == 0 || limited && time.Until(end) < enough {
				break // what is young grows older with the next question
			}
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			if said, err = read(ctx); len(said) > 0 {
				sensors, young = steady.Take(said)
			}
		}
		first = first && len(said) == 0
		list := make([]value, 0, len(sensors))
		for _, s := range sensors {
			v := value{V: s.Value, Sensor: Sensor{Key: "bmc/" + string(s.Kind) + "/" + cleanLabel(s.Name), Metric: metrics[s.Kind], Label: "bmc/" + cleanLabel(s.Name)}}
			switch {
			case s.Kind == bmc.CFM:
				v.V *= 1.699 // m³/h
			case s.Place == bmc.Inlet:
				v.Plain = TempInlet
			case s.Place == bmc.Exhaust:
				v.Plain = TempExhaust
			case s.Place == bmc.System:
				v.Plain = Power
			case s.Kind == bmc.RPM:
				v.Plain = FanRPM
			case s.Kind == bmc.DutyRatio:
				v.Plain = FanDuty
			}
			list = append(list, v)
		}
		return list, err
	}
}

func askUPS(named string) func(ctx context.Context) ([]value, error) {
	name, host, _ := strings.Cut(named, "@")
	read := func(ctx context.Context) ([]ups.Supply, error) { return ups.Read(ctx, host, name) }
	if address, apc := strings.CutPrefix(named, apcupsd); apc {
		host = address
		read = func(ctx context.Context) ([]ups.Supply, error) {
			s, err := ups.ReadAPC(ctx, address)
			if err != nil {
				return nil, err
			}
			s.Name = cmp.Or(s.Name, "apcupsd")
			return []ups.Supply{s}, nil
		}
	}
	return func(ctx context.Context) ([]value, error) {
		supplies, err := read(ctx)
		var l values
		for _, s := range supplies {
			key, label := "ups/"+cleanLabel(s.Name+"@"+host), "ups/"+s.Name
			l.add(key, label, UPSCharge, s.ChargeRatio)
			l.add(key, label, UPSLoad, s.LoadRatio)
			l.add(key, label, UPSRuntime, s.RuntimeSeconds)
			l.add(key, label, Power, s.Watts)
			l.flag(key, label, UPSBattery, s.OnBattery)
			l.add(key, label, Temp, s.Celsius)
		}
		return l, err
	}
}

func askDust(port air.Serial) func(ctx context.Context) ([]value, error) {
	prepared := false // of one goroutine at a time: a source is asked again when it has answered
	return func(ctx context.Context) ([]value, error) {
		if !prepared {
			if err := port.Prepare(ctx); err != nil {
				return nil, err
			}
			prepared = true
		}
		d, err := port.Read(ctx)
		if err != nil {
			return nil, err
		}
		var l values
		key := "dust/" + cleanLabel(port.Path)
		l.add(key, port.Kind, DustPM1, &d.PM1)
		l.add(key, port.Kind, DustPM25, &d.PM25)
		l.add(key, port.Kind, DustPM10, &d.PM10)
		return l, nil
	}
}

func askPressure(sensor air.I2C) func(ctx context.Context) ([]value, error) {
	return func(ctx context.Context) ([]value, error) {
		p, err := sensor.Read(ctx)
		if err != nil {
			return nil, err
		}
		var l values
		key := "sdp/" + cleanLabel(sensor.Path)
		l.add(key, "sdp8xx", FilterPressure, &p.Pascals)
		l.add(key, "sdp8xx", Temp, &p.Celsius)
		return l, nil
	}
}
