package sense

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
)

// rail is one channel of an INA3221.
type rail struct {
	key, label    string
	volts, ampere int // probes
}

// rails lists the connected channels. "NC" is not connected; the fourth label
// is the sum of the shunt voltages, which is no rail.
func (b *builder) rails(chips []chip) []rail {
	var list []rail
	for _, c := range chips {
		if c.name != "ina3221" {
			continue
		}
		for n := 1; n <= 3; n++ {
			label := b.text(filepath.Join(c.dir, attrName("in", n, "label")))
			volts, ampere := attrName("in", n, "input"), attrName("curr", n, "input")
			if label == "" || label == "NC" || !slices.Contains(c.files, volts) || !slices.Contains(c.files, ampere) {
				continue
			}
			list = append(list, rail{
				key: c.key + "/" + attrName("in", n, "input"), label: cleanLabel(label),
				volts:  b.probe(filepath.Join(c.dir, volts), number(1000, 0, 100)),
				ampere: b.probe(filepath.Join(c.dir, ampere), number(1000, 0, 200)),
			})
		}
	}
	return list
}

// zone is one RAPL energy counter.
type zone struct {
	name    string  // package-0, psys
	counter int     // probe
	joules  float64 // what the counter wraps at
	watts   float64 // more than this it cannot take
}

func (b *builder) rapl() []zone {
	var list []zone
	dir := b.path("sys/class/powercap")
	for _, name := range dirNames(dir) {
		// intel-rapl:0 is a package or psys; intel-rapl:0:1 is a part of it;
		// intel-rapl-mmio repeats the package.
		if !strings.HasPrefix(name, "intel-rapl:") || strings.Count(name, ":") != 1 {
			continue
		}
		wrap, err := parseInt([]byte(b.text(filepath.Join(dir, name, "max_energy_range_uj"))))
		if err != nil || wrap <= 0 {
			continue
		}
		list = append(list, zone{
			name:    b.text(filepath.Join(dir, name, "name")),
			counter: b.probe(filepath.Join(dir, name, "energy_uj"), number(1e6, 0, 1e13)),
			joules:  float64(wrap) / 1e6, watts: b.raplLimit(filepath.Join(dir, name)),
		})
	}
	return list
}

// raplLimit is one and a half times the highest of a zone's limits: the short
// one is exceeded for milliseconds only.
func (b *builder) raplLimit(dir string) float64 {
	highest := 0.0
	for i := range 3 {
		s, err := number(1e6, 1, maxWatts)([]byte(b.text(filepath.Join(dir, fmt.Sprintf("constraint_%d_power_limit_uw", i)))))
		if err == nil {
			highest = max(highest, s.a)
		}
	}
	if highest == 0 {
		return maxWatts
	}
	return min(1.5*highest, maxWatts)
}

// powers adds the one that stands for the box as power_watts, all others with
// a label. See rules.go for the order.
func (b *builder) powers(all []found, chips []chip) {
	rails, counters := append(b.rails(chips), b.oldRails()...), b.rapl()
	main := b.mainRail(rails)
	for i, f := range all {
		if f.kind != "power" {
			continue
		}
		s := Sensor{Key: f.key, Metric: Power, Label: f.metricLabel()}
		switch { // of a PMBus power supply (kernel, pmbus)
		case f.label == "pin":
			s.Metric = SupplyIn
		case strings.HasPrefix(f.label, "pout"):
			s.Metric = SupplyOut
		}
		if !main && f.chip == "power_meter" {
			s.Label, main = "", true
		}
		b.output(s, false, positive, b.probesOf(all[i], number(1e6, 0, maxWatts))...) // µW
	}
	main = b.counters(counters, main)
	for i, r := range rails {
		if b.labels[string(Power)] > 0 && i == 0 && isTotal(r.label) {
			continue // already power_watts
		}
		b.output(Sensor{Key: r.key, Metric: Power, Label: "ina3221/" + r.label}, false, product, r.volts, r.ampere)
	}
	if !main && len(rails) > 0 {
		var from []int
		for _, r := range rails {
			from = append(from, r.volts, r.ampere)
		}
		b.output(Sensor{Key: "hwmon/ina3221/sum", Metric: Power}, false, product, from...)
	}
}

func isTotal(label string) bool { return label == "VDD_IN" || label == "POM_5V_IN" || label == "VIN" }

// mainRail moves the rail that feeds the whole module to the front and adds it
// as power_watts.
func (b *builder) mainRail(rails []rail) bool {
	i := slices.IndexFunc(rails, func(r rail) bool { return isTotal(r.label) })
	if i < 0 {
		return false
	}
	rails[0], rails[i] = rails[i], rails[0]
	b.output(Sensor{Key: rails[0].key, Metric: Power}, false, product, rails[0].volts, rails[0].ampere)
	return true
}

func (b *builder) counters(zones []zone, main bool) bool {
	var packages, ranges = []int(nil), []float64(nil)
	most := 0.0
	for _, z := range zones {
		s := Sensor{Key: "rapl/" + cleanLabel(z.name), Metric: Power, Label: "rapl/" + cleanLabel(z.name)}
		if z.name == "psys" && !main {
			s.Label, main = "", true
		} else if strings.HasPrefix(z.name, "package-") {
			packages, ranges = append(packages, z.counter), append(ranges, z.joules)
			most += z.watts
			if len(zones) == 1 && !main {
				continue // the sum below is this very counter
			}
		}
		b.output(s, false, energyRate([]float64{z.joules}, z.watts), z.counter)
	}
	if main || len(packages) == 0 {
		return main
	}
	b.output(Sensor{Key: "rapl/packages", Metric: Power}, false, energyRate(ranges, most), packages...)
	return true
}
