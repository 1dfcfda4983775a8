package sense

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// This file decides which sensor becomes which metric. Each rank function
// returns 0 for "is not this" and else the better the lower; of equals the
// first key wins, so a box keeps its choice across reboots. A sensor that has
// failed at every read since the last discovery is passed over.
//
//	temp_die    k10temp Tdie, Tctl, zenpower; coretemp packages (the hottest);
//	            zone tj-thermal (Jetson), CPU-therm, cpu-thermal, x86_pkg_temp,
//	            soc-thermal, then any other zone with cpu in its type
//	temp_inlet  a label or zone that says inlet, intake or ambient; else the first
//	            room sensor chip (sht3x, sht4x, shtc1, bme280, DS18B20 on 1-wire)
//	temp_room   the next room sensor chip
//	temp_exhaust  a label or zone that says exhaust or outlet
//	temp_board  what quirks.go says of this board; a label SYSTIN, Motherboard, MB, System or Board; zone Tboard_tegra
//	temp_ssd    nvme Composite; drivetemp
//	fan_rpm     a label that says cpu; a chip that is a tachometer; the first fan.
//	            A fan that has never turned since the process began looks like a
//	            header with no fan and is left out: zero is said of fans that
//	            have turned.
//	fan_duty    the pwm of that fan's number on its chip, else the only pwmfan
//	power       VDD_IN or POM_5V_IN (INA3221); an ACPI power meter; RAPL psys;
//	            the sum of RAPL packages; the sum of the INA3221's rails

func attrName(kind string, n int, attr string) string { return fmt.Sprintf("%s%d_%s", kind, n, attr) }

func dieRank(f found) int {
	switch {
	case f.chip == "k10temp" && f.label == "Tdie":
		return 1
	case f.chip == "zenpower" && f.label == "Tdie":
		return 2
	case (f.chip == "k10temp" || f.chip == "zenpower") && f.label == "Tctl",
		f.chip == "k10temp" && f.label == "" && f.n == 1: // families before Zen
		return 3
	case f.chip == "coretemp" && (strings.HasPrefix(f.label, "Package id") || strings.HasPrefix(f.label, "Physical id")):
		return 4
	case f.chip != "":
		return 0
	}
	for i, zone := range []string{"tj-thermal", "CPU-therm", "cpu-thermal", "cpu_thermal", "x86_pkg_temp", "soc-thermal", "soc_thermal", "bcm2835_thermal"} {
		if f.label == zone {
			return 5 + i
		}
	}
	if strings.Contains(strings.ToLower(f.label), "cpu") {
		return 20
	}
	return 0
}

func inletRank(f found) int {
	label := strings.ToLower(f.label)
	switch {
	case strings.Contains(label, "inlet"):
		return 1
	case strings.Contains(label, "intake"):
		return 2
	case strings.Contains(label, "ambient"):
		return 3
	}
	return 4 * roomRank(f)
}

func roomRank(f found) int {
	if f.n == 1 && slices.Contains(roomChips, f.chip) {
		return 1
	}
	return 0
}

// roomChips measure air and are sold on cables, as hwmon or IIO devices.
var roomChips = []string{"sht3x", "sht4x", "shtc1", "shtw1", "sht21", "hih6130", "w1_slave_temp",
	"bme280", "bmp280", "bme680", "hts221", "hdc1000", "hdc2010", "hdc3020", "si7020", "htu21", "am2315", "dht11"}

func exhaustRank(f found) int {
	label := strings.ToLower(f.label)
	switch {
	case strings.Contains(label, "exhaust"):
		return 1
	case strings.Contains(label, "outlet"):
		return 2
	}
	return 0
}

func boardRank(f found) int {
	if f.means == "board" {
		return 1
	}
	switch strings.ToLower(f.label) {
	case "systin", "motherboard", "mb", "system", "board", "tboard_tegra":
		return 2
	}
	return 0
}

func ssdRank(f found) int {
	switch {
	case f.chip == "nvme" && f.n == 1:
		return 1
	case f.chip == "drivetemp" && f.n == 1:
		return 2
	}
	return 0
}

// choose returns the indexes of all sensors with the best rank, best key first.
// A sensor to which Options.Roles gives this role goes before all others, and
// one that it gives another role is not asked.
func (b *builder) choose(all []found, kind, role string, rank func(found) int) []int {
	best, chosen := 0, []int(nil)
	for i, f := range all {
		if f.kind != kind {
			continue
		}
		r := rank(f)
		if given, ok := b.roles[f.key]; ok {
			r = 0
			if given == role {
				r = -1000
			}
		}
		if r == 0 {
			continue
		}
		if b.tracks.get(f.path).fails.Load() >= failsToPassOver {
			r += 1000
		}
		if best == 0 || r < best {
			best, chosen = r, nil
		}
		if r == best {
			chosen = append(chosen, i)
		}
	}
	return chosen
}

// failsToPassOver is half of the reads between two discoveries, at one per 10 s.
const failsToPassOver = 15

func (b *builder) temps(all []found) {
	used := map[int]bool{}
	for _, role := range []struct {
		metric Metric
		name   string
		rank   func(found) int
	}{{TempDie, "die", dieRank}, {TempInlet, "inlet", inletRank}, {TempRoom, "room", roomRank},
		{TempExhaust, "exhaust", exhaustRank}, {TempBoard, "board", boardRank}, {TempSSD, "ssd", ssdRank}} {
		chosen := b.choose(all, "temp", role.name, role.rank)
		chosen = slices.DeleteFunc(chosen, func(i int) bool { return used[i] })
		if len(chosen) == 0 {
			continue
		}
		if role.metric != TempDie { // two sockets: the hottest die decides; elsewhere one sensor
			chosen = chosen[:1]
		}
		var from []int
		for _, i := range chosen {
			used[i] = true
			from = append(from, b.probesOf(all[i], parseTemp)...)
		}
		eval := highest
		if len(chosen) == 1 {
			eval = unlessFault
		}
		b.output(Sensor{Key: all[chosen[0]].key, Metric: role.metric}, false, eval, from...)
		if role.metric == TempDie {
			b.plan.dieLimit = b.dieLimit(all[chosen[0]])
		}
	}
	for i, f := range all {
		if f.kind == "temp" && !used[i] {
			b.output(Sensor{Key: f.key, Metric: Temp, Label: f.metricLabel()}, false, unlessFault, b.probesOf(f, parseTemp)...)
		}
	}
}

// dieLimit is where throttling begins: a chip's crit (coretemp's max is only
// where fans shall run at full speed), or a zone's lowest passive, else hot,
// else critical trip. Values outside 60 to 120 °C are defaults of drivers.
func (b *builder) dieLimit(f found) float64 {
	limit := 0.0
	consider := func(path string) {
		s, err := parseTemp([]byte(b.text(path)))
		if err == nil && s.a >= 60 && s.a <= 120 && (limit == 0 || s.a < limit) {
			limit = s.a
		}
	}
	if f.chip != "" {
		consider(filepath.Join(f.dir, attrName("temp", f.n, "crit")))
		return limit
	}
	for _, kind := range []string{"passive", "hot", "critical"} {
		for _, name := range dirNames(f.dir) {
			if stem, ok := strings.CutSuffix(name, "_type"); ok && b.text(filepath.Join(f.dir, name)) == kind {
				consider(filepath.Join(f.dir, stem+"_temp"))
			}
		}
		if limit != 0 {
			break
		}
	}
	return limit
}

func fanRank(f found) int {
	switch {
	case strings.Contains(strings.ToLower(f.label), "cpu"):
		return 1
	case strings.Contains(f.chip, "tach"), pwmFan(f):
		return 2
	case slices.Contains([]string{"amdgpu", "radeon", "nouveau", "i915", "xe", "corsairpsu"}, f.chip):
		return 100 + f.n // that of a card or a power supply does not cool the box
	}
	return 2 + f.n
}

func (b *builder) fans(all []found) {
	main := b.mainFan(all)
	pwm := pwmOf(all, main)
	for i, f := range all {
		switch {
		case f.kind == "fan":
			from := b.probesOf(f, parseFan)
			tr := b.plan.probes[from[0]].track
			if slices.Contains(b.turned, f.key) {
				tr.positive.Store(true)
			}
			s := Sensor{Key: f.key, Metric: FanRPM}
			if i != main {
				s.Label = f.metricLabel()
			}
			b.output(s, false, ifTurned(tr), from...)
		case f.kind == "pwm":
			b.duty(all, i, i == pwm)
		}
	}
}

// mainFan prefers fans that turn: on most boards fan1 is a header without a fan.
func (b *builder) mainFan(all []found) int {
	chosen := b.choose(all, "fan", "fan", func(f found) int {
		r := fanRank(f)
		if len(b.turned) > 0 && b.turned[0] == f.key {
			return 1
		}
		s, err := parseFan([]byte(b.text(f.path)))
		if turned := b.tracks.get(f.path).positive.Load() || err == nil && s.a > 0; !turned {
			r += 500
		}
		return r + 1
	})
	if len(chosen) == 0 {
		return -1
	}
	return chosen[0]
}

// duty adds one pwm channel; those of headers without a turning fan say nothing.
func (b *builder) duty(all []found, i int, isMain bool) {
	f := all[i]
	eval := last
	if j := slices.IndexFunc(all, func(g found) bool { return g.kind == "fan" && g.dir == f.dir && g.n == f.n }); j >= 0 {
		eval = ifTurned(b.tracks.get(all[j].path))
	} else if !isMain && !pwmFan(f) {
		return
	}
	s := Sensor{Key: f.key, Metric: FanDuty}
	if !isMain {
		s.Label = f.metricLabel()
	}
	b.output(s, false, eval, b.probe(f.path, number(255, 0, 1)))
}

func ifTurned(tr *track) func(*output, []sample) (float64, bool) {
	return func(o *output, in []sample) (float64, bool) {
		v, ok := unlessFault(o, in)
		return v, ok && tr.positive.Load()
	}
}

// pwmFan tells the driver that is nothing but a fan: there is one behind it, with
// a tachometer or without.
func pwmFan(f found) bool { return f.chip == "pwmfan" || f.chip == "pwm-fan" }

// pwmOf finds the channel that drives a fan: the same number on the same chip,
// else the only pwmfan (Jetsons have tachometer and pwm as separate devices, and
// some have no tachometer: fan is then below 0).
func pwmOf(all []found, fan int) int {
	var separate []int
	for i, f := range all {
		if f.kind != "pwm" {
			continue
		}
		if fan >= 0 && f.dir == all[fan].dir && f.n == all[fan].n {
			return i
		}
		if pwmFan(f) {
			separate = append(separate, i)
		}
	}
	if len(separate) == 1 {
		return separate[0]
	}
	return -1
}
