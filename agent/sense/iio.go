package sense

import (
	"math"
	"path/filepath"
	"strconv"
	"strings"
)

// iioDevice is one directory of the Industrial I/O bus: sensors on I²C, SPI
// and ADCs for which a kernel driver exists.
type iioDevice struct {
	dir, name, key string
	text           func(path string) string
}

func (b *builder) iioDevices() []iioDevice {
	var list []iioDevice
	for _, name := range dirNames(b.path("sys/bus/iio/devices")) {
		if !strings.HasPrefix(name, "iio:device") {
			continue
		}
		dir := b.path("sys/bus/iio/devices", name)
		d := iioDevice{dir: dir, name: b.text(filepath.Join(dir, "name")), text: b.text}
		if d.name == "" || strings.HasPrefix(d.name, "ina3221") {
			continue // a rail monitor, see oldRails
		}
		// The directory lies below its device: .../i2c-1/1-0076/iio:device0
		real, err := filepath.EvalSymlinks(dir)
		d.key = "iio/" + cleanLabel(d.name) + "/" + deviceKey(filepath.Dir(real), err)
		list = append(list, d)
	}
	return list
}

// channel finds how a channel is read: drivers offer the value itself or a raw
// number with a scale and perhaps an offset: (raw + offset) * scale. The unit
// is milli of IIO's: m°C, kPa, milli percent.
func (d iioDevice) channel(name string) (path string, parse func([]byte) (float64, error), ok bool) {
	float := func(b []byte) (float64, error) {
		v, err := strconv.ParseFloat(strings.TrimSpace(string(b)), 64)
		if err != nil || v != v || v-v != 0 {
			return 0, errFormat
		}
		return v, nil
	}
	if path = filepath.Join(d.dir, name+"_input"); exists(path) {
		return path, float, true
	}
	if path = filepath.Join(d.dir, name+"_raw"); !exists(path) {
		return "", nil, false
	}
	number := func(file string, missing float64) float64 {
		file = filepath.Join(d.dir, file)
		if !exists(file) {
			return missing
		}
		v, err := float([]byte(d.text(file)))
		if err != nil {
			return math.NaN() // a raw number without its scale is no value
		}
		return v
	}
	kind := strings.TrimRight(name, "0123456789")
	scale := number(name+"_scale", number(kind+"_scale", 1))
	offset := number(name+"_offset", number(kind+"_offset", 0))
	return path, func(b []byte) (float64, error) {
		v, err := float(b)
		if v = (v + offset) * scale; v != v && err == nil {
			err = errNoValue
		}
		return v, err
	}, true
}

// within makes a parser of a channel's, in units of 1/scale.
func within(parse func([]byte) (float64, error), scale, lo, hi float64) func([]byte) (sample, error) {
	return func(b []byte) (sample, error) {
		v, err := parse(b)
		if err != nil {
			return sample{}, err
		}
		if v /= scale; !(v >= lo && v <= hi) {
			return sample{}, errNoValue
		}
		return sample{a: v}, nil
	}
}

func (b *builder) iioTemps() []found {
	var list []found
	for _, d := range b.iioDevices() {
		for _, name := range []string{"in_temp", "in_temp0"} {
			path, parse, ok := d.channel(name)
			if !ok {
				continue
			}
			list = append(list, found{
				key: d.key + "/temp1", chip: d.name, kind: "temp", n: 1, dir: d.dir, path: path,
				label: b.text(filepath.Join(d.dir, "label")),
				parse: func(b []byte) (sample, error) {
					v, err := parse(b)
					if err != nil {
						return sample{}, err
					}
					return plausibleTemp(v)
				},
			})
			break
		}
	}
	return list
}

// air adds humidity and pressure. A sensor of pressure difference has the
// same channel as a barometer; it is told by its name.
func (b *builder) air() {
	for _, d := range b.iioDevices() {
		for _, c := range []struct {
			channel       string
			metric        Metric
			scale, lo, hi float64
		}{
			{"in_humidityrelative", Humidity, 100_000, 0.001, 1}, // milli percent
			{"in_pressure", AirPressure, 1e-3, 30_000, 120_000},  // kPa
			{"in_pressure", FilterPressure, 1e-3, -1000, 1000},
		} {
			if c.channel == "in_pressure" && isBarometer(d.name) != (c.metric == AirPressure) {
				continue
			}
			if path, parse, ok := d.channel(c.channel); ok {
				b.output(Sensor{Key: d.key + "/" + c.channel, Metric: c.metric, Label: cleanLabel(d.name)}, false, last,
					b.probe(path, within(parse, c.scale, c.lo, c.hi)))
			}
		}
	}
}

// isBarometer tells sensors of absolute pressure from those of a difference:
// the sdp500 driver serves Sensirion's.
func isBarometer(name string) bool { return !strings.HasPrefix(name, "sdp") }
