package plant

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"
)

var columns = []string{
	"box", "sku", "site", "time", "die_c", "inlet_c", "board_c", "nvme_c", "exhaust_c", "power_w", "pwm_ratio",
	"rpm", "rpm2", "rpm3", "rpm4", "throttled", "clock_hz", "busy_ratio", "room_c", "power_sd", "pwm_sd", "samples", "rpm_sd",
}

// RowWriter writes rows as the replay CSV, in the order they come.
type RowWriter struct {
	w     *csv.Writer
	cells []string
	extra bool
}

// NewRowWriter writes the header. With extra the columns ssd_used_ratio and
// input_w follow the fixed ones.
func NewRowWriter(w io.Writer, extra bool) (*RowWriter, error) {
	r := &RowWriter{w: csv.NewWriter(w), extra: extra}
	header := columns
	if extra {
		header = append(header[:len(header):len(header)], "ssd_used_ratio", "input_w")
	}
	if err := r.w.Write(header); err != nil {
		return nil, fmt.Errorf("write replay header: %w", err)
	}
	return r, nil
}

// number is a cell: digits enough for the sensor, empty if missing.
func number(x float64, digits int) string {
	if math.IsNaN(x) {
		return ""
	}
	s := strconv.FormatFloat(x, 'f', digits, 64)
	if digits == 0 {
		return s
	}
	n := len(s)
	for s[n-1] == '0' {
		n--
	}
	if s[n-1] == '.' {
		n--
	}
	return s[:n]
}

// Write adds a row.
func (r *RowWriter) Write(x *Row) error {
	c := append(r.cells[:0], x.Box, x.SKU, x.Site, x.Time.Format(time.RFC3339),
		number(x.DieC, 3), number(x.InletC, 3), number(x.BoardC, 3), number(x.NVMeC, 3), number(x.ExhaustC, 3),
		number(x.PowerW, 3), number(x.PWMRatio, 4))
	for _, rpm := range x.RPM {
		c = append(c, number(rpm, 1))
	}
	c = append(c, number(x.Throttled, 4), number(x.ClockHz, 0), number(x.BusyRatio, 4), number(x.RoomC, 2),
		number(x.PowerSD, 3), number(x.PWMSD, 4), strconv.Itoa(x.Samples), number(x.RPMSD, 1))
	if r.extra {
		c = append(c, number(x.SSDUsed, 2), number(x.InputW, 1))
	}
	r.cells = c
	return r.w.Write(c)
}

// Flush ends the file.
func (r *RowWriter) Flush() error {
	r.w.Flush()
	return r.w.Error()
}

// writeEvents writes the log as CSV: time, box, site, kind, detail.
func writeEvents(w io.Writer, events []Event) error {
	c := csv.NewWriter(w)
	c.Write([]string{"time", "box", "site", "kind", "detail"}) // errors stay in the writer
	for _, e := range events {
		c.Write([]string{e.Time.Format(time.RFC3339), e.Box, e.Site, e.Kind, e.Detail})
	}
	c.Flush()
	if err := c.Error(); err != nil {
		return fmt.Errorf("write replay events: %w", err)
	}
	return nil
}

// Replay simulates the fleet and writes its hours, box after box, its log and
// its truth (JSON, see Truth).
func (f *Fleet) Replay(rows, events, truth io.Writer) error {
	w, err := NewRowWriter(rows, false)
	if err != nil {
		return err
	}
	var all []BoxTruth
	for i := range f.boxes {
		all = append(all, f.Simulate(i, func(x *Row) {
			if e := w.Write(x); e != nil && err == nil {
				err = e
			}
		}))
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		return fmt.Errorf("write replay rows: %w", err)
	}
	if err := writeEvents(events, f.Events()); err != nil {
		return err
	}
	if err := json.NewEncoder(truth).Encode(f.Join(all)); err != nil {
		return fmt.Errorf("write replay truth: %w", err)
	}
	return nil
}
