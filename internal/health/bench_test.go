package health

import (
	"bytes"
	"fmt"
	"testing"
)

// BenchmarkReplay reads and judges a year of 10 boxes of hourly rows.
func BenchmarkReplay(b *testing.B) {
	var file bytes.Buffer
	file.WriteString("box,sku,site,time,die_c,inlet_c,board_c,power_w,pwm_ratio,rpm,throttled,clock_hz,busy_ratio,power_sd,pwm_sd,samples,rpm_sd\n")
	rows := 0
	for box := range uint64(10) {
		f := formula{name: fmt.Sprint("box", box), seed: box, days: 365, how: func(d float64, s *state) {
			if box%3 == 0 {
				s.clog = ramp(d, 60, 120, 0.5)
			}
		}}
		for _, h := range f.hours() {
			rows++
			fmt.Fprintf(&file, "%s,sku,shop,%d,%.1f,%.1f,%.1f,%.1f,%.2f,%.0f,0,2000000000,%.2f,%.1f,0.02,12,%.0f\n", f.name, h.Start,
				h.V[Die], h.V[Inlet], h.V[Board], h.V[Power], h.V[PWM], h.V[RPM1], h.V[Busy], h.V[PowerSD], h.V[RPMSD])
		}
	}
	b.ResetTimer()
	for range b.N {
		var l Loader
		if err := l.Read("bench", bytes.NewReader(file.Bytes())); err != nil {
			b.Fatal(err)
		}
		Replay(l.Done(), nil, ReplayOptions{})
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}
