package health

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// columns of a replay file, beside box, sku, site, time and samples.
var columns = map[string]Field{
	"die_c": Die, "inlet_c": Inlet, "board_c": Board, "nvme_c": NVMe, "exhaust_c": Exhaust, "room_c": Room,
	"power_w": Power, "pwm_ratio": PWM, "rpm": RPM1, "rpm2": RPM2, "rpm3": RPM3, "rpm4": RPM4,
	"throttled": Throttled, "clock_hz": Clock, "busy_ratio": Busy,
	"power_sd": PowerSD, "pwm_sd": PWMSD, "rpm_sd": RPMSD, "rpm2_sd": RPMSD2, "rpm3_sd": RPMSD3, "rpm4_sd": RPMSD4,
	"nvme_used_percent": NVMeUsed, "nvme_spare_percent": NVMeSpare, "nvme_media_errors": NVMeErrors,
	"psu_in_w": PSUIn, "psu_out_w": PSUOut, "psu_ok": PSUOK, "psu_rpm": PSUFan,
}

// What a column holds that is no figure.
const (
	colBox = -1 - iota
	colSKU
	colSite
	colTime
	colSamples
	colIgnored
)

var wordColumns = map[string]int{"box": colBox, "sku": colSKU, "site": colSite, "time": colTime, "samples": colSamples}

// The times that a clock which was set can show.
const (
	earliest = 1262304000 // 2010
	latest   = 4102444800 // 2100
)

// longestLine is more than any honest row has.
const longestLine = 1 << 16

// Loader reads replay files into hours, box by box.
type Loader struct {
	table  Table
	boxes  map[string]*loading
	counts map[string]*tally
	order  []string
	file   string
	line   int
	head   []string
	cols   []int
	cells  [][]byte
	last   *loading
}

type loading struct {
	series   *Series
	agg      Aggregator
	last     int64 // time of the last row
	unsorted bool
}

// tally counts one kind of note.
type tally struct {
	text string
	n    int
}

// note keeps the first place of a kind of fault and counts the rest.
func (l *Loader) note(kind, column, text string) {
	key := l.file + "\x00" + kind + "\x00" + column
	if l.counts == nil {
		l.counts = map[string]*tally{}
	}
	t := l.counts[key]
	if t == nil {
		where := fmt.Sprintf("%s: line %d", l.file, l.line)
		if column != "" {
			where += ", column " + column
		}
		t = &tally{text: where + ": " + text}
		l.counts[key] = t
		l.order = append(l.order, key)
	}
	t.n++
}

func (l *Loader) fault(column, format string, args ...any) error {
	where := fmt.Sprintf("%s: line %d", l.file, l.line)
	if column != "" {
		where += ", column " + column
	}
	return fmt.Errorf("%s: %s", where, fmt.Sprintf(format, args...))
}

// Read reads one file; name is for messages.
func (l *Loader) Read(name string, r io.Reader) error {
	l.file, l.line, l.head, l.cols, l.last = name, 0, nil, nil, nil
	if l.boxes == nil {
		l.boxes = map[string]*loading{}
	}
	units := make([]unitCount, 0, 64)
	in := bufio.NewReaderSize(r, longestLine)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			l.line++
			if errors.Is(err, bufio.ErrBufferFull) {
				return l.fault("", "is longer than %d bytes: is this a CSV file?", longestLine)
			}
			return fmt.Errorf("read %s: %w", name, err)
		}
		whole := err == nil
		if line = bytes.TrimRight(line, "\r\n"); len(line) > 0 || whole {
			l.line++
		}
		if len(line) > 0 {
			if l.cols == nil {
				if herr := l.header(line); herr != nil {
					return herr
				}
				units = units[:len(l.cols)]
			} else if rerr := l.row(line, whole, units); rerr != nil {
				return rerr
			}
		}
		if err != nil {
			break
		}
	}
	if l.cols == nil {
		l.line = 1
		return l.fault("", "the file is empty; the first line must name the columns: box,time,die_c,…")
	}
	return l.judgeUnits(units)
}

// unitCount says how much of a column could be taken.
type unitCount struct {
	taken, wrong int
	guess        string
}

// judgeUnits fails when a column was refused as a whole: its unit is wrong.
func (l *Loader) judgeUnits(units []unitCount) error {
	for i, u := range units {
		if u.wrong >= 3 && u.wrong > 9*u.taken {
			return fmt.Errorf("%s: column %s: %d of %d cells are out of range and look like %s", l.file, l.head[i], u.wrong, u.wrong+u.taken, u.guess)
		}
	}
	return nil
}

func (l *Loader) header(line []byte) error {
	line = bytes.TrimPrefix(line, []byte("\xef\xbb\xbf"))
	if bytes.Count(line, []byte(";")) > bytes.Count(line, []byte(",")) {
		return l.fault("", "the columns are parted by semicolons; write the file with commas and decimal points")
	}
	cells, err := l.split(line)
	if err != nil {
		return err
	}
	if len(cells) > 64 {
		return l.fault("", "%d columns, want at most 64", len(cells))
	}
	seen := map[string]bool{}
	for _, c := range cells {
		name := strings.ToLower(strings.TrimSpace(string(c)))
		if seen[name] {
			return l.fault(name, "is there twice")
		}
		seen[name] = true
		l.head = append(l.head, name)
		if f, ok := columns[name]; ok {
			l.cols = append(l.cols, int(f))
		} else if w, ok := wordColumns[name]; ok {
			l.cols = append(l.cols, w)
		} else {
			l.cols = append(l.cols, colIgnored)
			l.note("unknown", name, "is not known and left out")
		}
	}
	for _, must := range []string{"box", "time"} {
		if !seen[must] {
			l.cols = nil
			return l.fault("", "has no column %s; it must name the columns: box,time,die_c,…", must)
		}
	}
	return nil
}

// split parts a line at its commas. Quotes are rare and take the slow road.
func (l *Loader) split(line []byte) ([][]byte, error) {
	l.cells = l.cells[:0]
	if bytes.IndexByte(line, '"') >= 0 {
		words, err := csv.NewReader(bytes.NewReader(line)).Read()
		if err != nil {
			return nil, l.fault("", "%v", err)
		}
		for _, w := range words {
			l.cells = append(l.cells, []byte(w))
		}
		return l.cells, nil
	}
	for {
		i := bytes.IndexByte(line, ',')
		if i < 0 {
			return append(l.cells, line), nil
		}
		l.cells = append(l.cells, line[:i])
		line = line[i+1:]
	}
}

func (l *Loader) row(line []byte, whole bool, units []unitCount) error {
	cells, err := l.split(line)
	l.cells = cells
	if !whole && (err != nil || len(cells) < len(l.cols)) {
		l.note("half", "", "the last line is half written and left out")
		return nil
	}
	if err != nil {
		return err
	}
	if len(cells) != len(l.cols) {
		return l.fault("", "%d cells, want %d as in the first line", len(cells), len(l.cols))
	}
	s := Sample{V: Blank()}
	var box, sku, site []byte
	var at int64
	for i, cell := range cells {
		if n := len(cell); n > 0 && (cell[0] <= ' ' || cell[n-1] <= ' ' || cell[0] >= 0x80 || cell[n-1] >= 0x80) {
			cell = bytes.TrimSpace(cell)
		}
		switch col := l.cols[i]; col {
		case colBox:
			box = cell
		case colSKU:
			sku = cell
		case colSite:
			site = cell
		case colTime:
			if at, err = parseTime(cell); err != nil {
				return l.fault("time", "%v", err)
			}
		case colSamples:
			if v, ok, _ := l.number(cell, i); ok && v >= 1 && v < 1e6 {
				s.Count = int(v)
			}
		case colIgnored:
		default:
			if err := l.figure(&s, cell, i, &units[i]); err != nil {
				return err
			}
		}
	}
	if len(box) == 0 {
		return l.fault("box", "is empty")
	}
	l.table.Rows++
	if at < earliest || at > latest {
		l.note("clock", "time", fmt.Sprintf("%s: the clock was not set; row left out", timeOf(at).Format(time.RFC3339)))
		return nil
	}
	s.Time = time.Unix(at, 0)
	l.take(l.box(box, sku, site), &s, at)
	return nil
}

// Take adds one reading that did not come out of a file.
func (l *Loader) Take(box, sku, site string, s *Sample) {
	if l.boxes == nil {
		l.boxes = map[string]*loading{}
	}
	l.take(l.box([]byte(box), []byte(sku), []byte(site)), s, s.Time.Unix())
}

// figure takes one cell into the sample.
func (l *Loader) figure(s *Sample, cell []byte, i int, u *unitCount) error {
	v, ok, err := l.number(cell, i)
	if err != nil || !ok {
		return err
	}
	f := Field(l.cols[i])
	value, refused := Check(f, v)
	if refused == nil {
		s.V[f] = value
		u.taken++
		return nil
	}
	text := fmt.Sprintf("%v is no plausible value in %s and counts as missing", v, refused.Unit)
	if refused.Wrong != "" {
		text += "; it looks like " + refused.Wrong
		u.wrong++
		u.guess = refused.Wrong
	}
	l.note("value"+refused.Wrong, l.head[i], text)
	return nil
}

// number reads a cell; false when it is empty.
func (l *Loader) number(cell []byte, i int) (float64, bool, error) {
	if len(cell) == 0 {
		return 0, false, nil
	}
	if v, ok := decimal(cell); ok {
		return v, true, nil
	}
	v, err := strconv.ParseFloat(string(cell), 64)
	if err == nil && !math.IsNaN(v) && !math.IsInf(v, 0) {
		return v, true, nil
	}
	switch strings.ToLower(string(cell)) {
	case "nan", "na", "n/a", "null", "none", "-", "not readable", "no reading":
		return 0, false, nil
	case "true":
		return 1, true, nil
	case "false":
		return 0, true, nil
	}
	return 0, false, l.fault(l.head[i], "%.40q is no number; leave a missing value empty", cell)
}

var tens = [...]float64{1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15}

// decimal reads plain numbers of up to 15 digits exactly.
func decimal(b []byte) (float64, bool) {
	neg := b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) > 16 {
		return 0, false
	}
	n, digits, point := int64(0), 0, -1
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			n, digits = 10*n+int64(c-'0'), digits+1
		case c == '.' && point < 0:
			point = len(b) - 1 - i
		default:
			return 0, false
		}
	}
	if digits == 0 || digits > 15 {
		return 0, false
	}
	v := float64(n) / tens[max(point, 0)]
	if neg {
		v = -v
	}
	return v, true
}

func parseTime(cell []byte) (int64, error) {
	if len(cell) == 0 {
		return 0, errors.New("is empty")
	}
	if v, ok := decimal(cell); ok {
		if v > 1e11 {
			return 0, fmt.Errorf("%s looks like milliseconds; want RFC 3339 or Unix seconds", cell)
		}
		return int64(v), nil
	}
	var t time.Time
	if err := t.UnmarshalText(cell); err != nil {
		return 0, fmt.Errorf("%.40q is no time; want RFC 3339 like 2026-03-01T07:00:00Z, or Unix seconds", cell)
	}
	return t.Unix(), nil
}

func (l *Loader) box(box, sku, site []byte) *loading {
	if l.last != nil && l.last.series.Box == string(box) {
		return l.last
	}
	b := l.boxes[string(box)]
	if b == nil {
		b = &loading{series: &Series{Box: string(box), SKU: string(sku), Site: string(site)}}
		l.boxes[b.series.Box] = b
		l.table.Series = append(l.table.Series, b.series)
	}
	l.last = b
	return b
}

// take gives a row to its box.
func (l *Loader) take(b *loading, s *Sample, at int64) {
	if at == b.last {
		l.note("twice", "time", fmt.Sprintf("box %s has this time twice; row left out", b.series.Box))
		return
	}
	if at < b.last {
		b.unsorted = true
		l.note("unsorted", "time", fmt.Sprintf("box %s goes back by %s; its hours are put in order", b.series.Box, time.Duration(b.last-at)*time.Second))
	}
	b.last = at
	if h, ok := b.agg.Add(s); ok {
		b.series.add(h)
	}
}

// Done ends the reading.
func (l *Loader) Done() *Table {
	for _, s := range l.table.Series {
		b := l.boxes[s.Box]
		if h, ok := b.agg.Flush(); ok {
			s.add(h)
		}
		if b.unsorted {
			s.sort()
		}
		if n := s.dropLeaps(); n > 0 {
			l.table.Notes = append(l.table.Notes, fmt.Sprintf("box %s: %d hours lie more than half a year after all others: its clock had leapt; left out", s.Box, n))
		}
	}
	for _, key := range l.order {
		t := l.counts[key]
		if t.n > 1 {
			t.text += fmt.Sprintf(" (and %d more)", t.n-1)
		}
		l.table.Notes = append(l.table.Notes, t.text)
	}
	slices.SortStableFunc(l.table.Series, func(a, b *Series) int { return strings.Compare(a.Box, b.Box) })
	t := l.table
	*l = Loader{}
	return &t
}
