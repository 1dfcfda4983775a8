package sense

import (
	"context"
	"math"
	"path/filepath"
	"strings"
	"time"
)

// burst is how many readings of each axis make one figure of vibration. Read
// one by one they come at a few hundred a second: enough for how strong a
// vibration is, too few and too uneven for its spectrum.
const burst = 128

func accelerometer(d iioDevice) bool {
	return exists(filepath.Join(d.dir, "in_accel_x_raw")) || exists(filepath.Join(d.dir, "in_accel_x_input"))
}

// askVibration takes the effective value of the acceleration around its mean,
// which is gravity, of all axes together, in m/s².
func askVibration(d iioDevice) func(ctx context.Context) ([]value, error) {
	return func(ctx context.Context) ([]value, error) {
		var sum, squares [3]float64
		buf := make([]byte, 64)
		taken := 0
		for begin := time.Now(); taken < burst && time.Since(begin) < 5*time.Second && ctx.Err() == nil; taken++ {
			for i, axis := range []string{"x", "y", "z"} {
				v, err := d.acceleration(axis, buf)
				if err != nil {
					return nil, err
				}
				sum[i], squares[i] = sum[i]+v, squares[i]+v*v
			}
		}
		if taken < burst/4 {
			return nil, errDeadline
		}
		variance := 0.0
		for i := range sum {
			mean := sum[i] / float64(taken)
			variance += max(0, squares[i]/float64(taken)-mean*mean)
		}
		rms := math.Sqrt(variance)
		if rms < 1e-5 || rms > 400 { // a real one is never quite still
			return nil, errNoValue
		}
		return []value{{Sensor: Sensor{Key: d.key + "/vibration", Metric: Vibration, Label: cleanLabel(d.name)}, V: rms}}, nil
	}
}

// acceleration reads one axis. The scale is that of the axis or of all.
func (d iioDevice) acceleration(axis string, buf []byte) (float64, error) {
	d.text = text // a source may wait, and has no value without its scale
	path, parse, ok := d.channel("in_accel_" + axis)
	if !ok {
		return 0, errNoValue
	}
	n, err := rawRead(path, buf)
	if err != nil {
		return 0, err
	}
	v, err := parse(buf[:n])
	if strings.HasSuffix(path, "_raw") && !exists(filepath.Join(d.dir, "in_accel_"+axis+"_scale")) {
		if scale, scaleErr := parseFirstFloat([]byte(d.text(filepath.Join(d.dir, "in_accel_scale")))); scaleErr == nil {
			v *= scale.a
		}
	}
	return v, err
}
