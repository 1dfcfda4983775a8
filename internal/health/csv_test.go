package health

import (
	"bytes"
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func load(t *testing.T, text string) (*Table, error) {
	t.Helper()
	var l Loader
	err := l.Read("f.csv", strings.NewReader(text))
	return l.Done(), err
}

func hoursOf(s *Series) []Hour {
	var out []Hour
	s.Each(func(h *Hour) bool { out = append(out, *h); return true })
	return out
}

func TestFaultyFilesAreNamedByLineAndColumn(t *testing.T) {
	const head = "box,time,die_c\n"
	tests := []struct{ name, text, want string }{
		{"empty", "", "the file is empty"},
		{"no box column", "time,die_c\n1767225600,50\n", "line 1: has no column box"},
		{"column twice", "box,time,time\n", "line 1, column time: is there twice"},
		{"semicolons", "box;time;die_c\n", "semicolons"},
		{"a word for a number", head + "a,1767225600,50\na,1767229200,hot\n", `line 3, column die_c: "hot" is no number`},
		{"a bad time", head + "a,yesterday,50\n", `line 2, column time: "yesterday" is no time`},
		{"milliseconds", head + "a,1767225600000,50\n", "line 2, column time: 1767225600000 looks like milliseconds"},
		{"a row too short", head + "a,1767225600\na,1767229200,50\n", "line 2: 2 cells, want 3"},
		{"no box", head + ",1767225600,50\n", "line 2, column box: is empty"},
		{"wrong unit throughout", head + strings.Repeat("a,1767225600,50000\n", 4), "column die_c: 4 of 4 cells are out of range and look like m°C"},
	}
	for _, tt := range tests {
		if _, err := load(t, tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

func TestOddRowsAreNotedAndTheRestIsRead(t *testing.T) {
	const head = "box,time,die_c,power_w,rpm,pwm_ratio\n"
	const good = "a,1767225600,50,40,2000,0.5\n"
	tests := []struct {
		name, text, note string
		hours            int
	}{
		{"half a last line", head + good + "a,17672", "line 3: the last line is half written", 1},
		{"unsorted", head + "a,1767229200,50,40,2000,0.5\n" + good, "line 3, column time: box a goes back by 1h0m0s", 2},
		{"twice", head + good + good, "has this time twice", 1},
		{"clock not set", head + good + "a,3600,50,40,2000,0.5\n", "the clock was not set", 1},
		{"unknown column", "box,time,colour\na,1767225600,red\n", "column colour: is not known", 1},
		{"sentinels", head + "a,1767225600,127,25550,65535,0.5\n", "line 2, column die_c: 127 is no plausible value", 1},
		{"one odd unit", head + good + "a,1767229200,50,40,2000,128\n", "it looks like 0..255: divide by 255", 2},
	}
	for _, tt := range tests {
		table, err := load(t, tt.text)
		if err != nil || len(table.Series) != 1 || table.Series[0].Len() != tt.hours {
			t.Errorf("%s: %v, want %d hours", tt.name, err, tt.hours)
			continue
		}
		if !strings.Contains(strings.Join(table.Notes, "\n"), tt.note) {
			t.Errorf("%s: notes %q, want %q", tt.name, table.Notes, tt.note)
		}
	}
}

func TestRefusedReadingsAreMissingAndNeverZero(t *testing.T) {
	tests := []struct {
		f Field
		v []float64
	}{
		{Die, []float64{0, 127, 128, -128, -256, -89.7, 45000}},
		{Inlet, []float64{0, 85, -274}},
		{Power, []float64{0, -5, 2550, 25450, 25550}},
		{RPM1, []float64{65535, -1}},
		{PWM, []float64{-0.1, 1.01, 255}},
		{Clock, []float64{0, 1800}},
	}
	for _, tt := range tests {
		for _, v := range tt.v {
			if got, refused := Check(tt.f, v); refused == nil || got.OK() {
				t.Errorf("field %d: %v taken as %v", tt.f, v, got)
			}
		}
	}
	if v, refused := Check(RPM1, 0); refused != nil || v != 0 {
		t.Errorf("a fan at 0 rpm: %v, want 0: it stands", v)
	}
}

func TestLeapOfTheClockDoesNotStretchTheYear(t *testing.T) {
	var b strings.Builder
	b.WriteString("box,time,die_c\n")
	for i := range 100 {
		at := t0 + int64(i)*hourSeconds
		if i == 50 {
			at += 9 * 365 * daySeconds
		}
		b.WriteString("a," + timeOf(at).Format("2006-01-02T15:04:05Z") + ",50\n")
	}
	table, err := load(t, b.String())
	if err != nil || table.Series[0].Len() != 99 {
		t.Fatalf("%d hours, %v; want 99", table.Series[0].Len(), err)
	}
}

func TestSamplesMakeTheHoursThatTheirMeansWould(t *testing.T) {
	var b strings.Builder
	b.WriteString("box,time,die_c,power_w\n")
	for i := range 24 {
		b.WriteString("a," + timeOf(t0+int64(i)*300).Format("2006-01-02T15:04:05Z") + "," + []string{"50", "52"}[i%2] + "," + []string{"40", "42", ""}[i%3] + "\n")
	}
	table, err := load(t, b.String())
	if err != nil {
		t.Fatal(err)
	}
	h := hoursOf(table.Series[0])
	if len(h) != 2 || h[1].V[Die] != 51 || h[1].V[Power] != 41 || h[1].Samples != 12 || math.Abs(float64(h[1].V[PowerSD])-1) > 1e-5 {
		t.Errorf("hours %+v", h)
	}
	if !h[1].Steady(&h[0]) {
		t.Error("a calm hour is not steady")
	}
}

func TestSteadyHours(t *testing.T) {
	hour := func(start int64, p, sd float64) *Hour {
		h := &Hour{Start: start, V: Blank(), Samples: 12, Period: 300}
		h.V[Power], h.V[PowerSD] = Value(p), Value(sd)
		return h
	}
	few := hour(t0+hourSeconds, 50, 1)
	few.Samples = 5
	tests := []struct {
		name string
		prev *Hour
		h    *Hour
		want bool
	}{
		{"calm", hour(t0, 50, 1), hour(t0+hourSeconds, 52, 1), true},
		{"restless", hour(t0, 50, 1), hour(t0+hourSeconds, 50, 12), false},
		{"after a leap", hour(t0, 25, 1), hour(t0+hourSeconds, 50, 1), false},
		{"after a gap", hour(t0-hourSeconds, 50, 1), hour(t0+hourSeconds, 50, 1), false},
		{"half read", hour(t0, 50, 1), few, false},
	}
	for _, tt := range tests {
		if got := tt.h.Steady(tt.prev); got != tt.want {
			t.Errorf("%s: steady %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestBoxGoesOnFromItsJSON(t *testing.T) {
	f := formula{name: "a", seed: 5, days: 90, how: func(d float64, s *state) { s.clog = ramp(d, 35, 50, 0.6) }}
	straight, stored := New("a", "shop", "sku"), New("a", "shop", "sku")
	var want, got []Finding
	for i, h := range f.hours() {
		want = append(want, Advance(straight, &h, Env{})...)
		if i%97 == 0 {
			data, err := json.Marshal(stored)
			if err != nil {
				t.Fatal(err)
			}
			stored = &Box{}
			if err := json.Unmarshal(data, stored); err != nil {
				t.Fatal(err)
			}
		}
		got = append(got, Advance(stored, &h, Env{})...)
	}
	if len(want) == 0 || !slices.EqualFunc(got, want, func(a, b Finding) bool { return a.Cause == b.Cause && a.Opened == b.Opened && a.Level == b.Level }) {
		t.Errorf("stored box found %v, straight one %v", got, want)
	}
}

func TestLateHoursAreIgnored(t *testing.T) {
	b := New("a", "", "")
	h := formula{seed: 1, days: 2}.hours()
	Advance(b, &h[10], Env{})
	Advance(b, &h[5], Env{})
	if b.Last.Start != h[10].Start {
		t.Error("an older hour was taken")
	}
}

func TestStoredHourIsTheHour(t *testing.T) {
	h := formula{seed: 1, days: 1}.hours()[3]
	b, err := h.AppendBinary(nil)
	if err != nil || len(b) > 120 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	var got Hour
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	again, _ := got.AppendBinary(nil)
	if !bytes.Equal(b, again) || got.V[Die] != h.V[Die] || got.V[Room].OK() {
		t.Errorf("%+v, want %+v", got, h)
	}
}

func FuzzHour(f *testing.F) {
	b, _ := formula{seed: 1, days: 1}.hours()[3].AppendBinary(nil)
	f.Add(b)
	f.Add([]byte{hourVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		var h Hour
		if err := h.UnmarshalBinary(b); err != nil {
			if !reflect.DeepEqual(h, Hour{}) {
				t.Fatal("an error returned a value")
			}
			return
		}
		again, err := h.AppendBinary(nil)
		if err != nil || !bytes.Equal(again, b) {
			t.Fatalf("%x encodes as %x, %v", b, again, err)
		}
	})
}

// FuzzReplayCSV: whatever is read is plausible, in order and can be judged.
func FuzzReplayCSV(f *testing.F) {
	f.Add("box,time,die_c,inlet_c,power_w,rpm,pwm_ratio\na,1767225600,50,20,40,2000,0.5\na,1767229200,51,,40,0,0.5\n")
	f.Add("box,time,samples,die_c\n\"a,b\",2026-01-01T00:00:00Z,12,127\n")
	f.Add("time,box,throttled\n1767225600.5,b,true\n1,b,\n")
	f.Add(string(example()[:4000]))
	f.Fuzz(func(t *testing.T, text string) {
		var l Loader
		if l.Read("f", strings.NewReader(text)) != nil {
			return
		}
		table := l.Done()
		for _, s := range table.Series {
			last := int64(0)
			s.Each(func(h *Hour) bool {
				if h.Start <= last || h.Start%hourSeconds != 0 {
					t.Fatalf("hour %d after %d", h.Start, last)
				}
				last = h.Start
				for f, v := range h.V {
					if _, refused := Check(Field(f), float64(v)); v.OK() && refused != nil {
						t.Fatalf("field %d: %v", f, v)
					}
				}
				return true
			})
		}
		Replay(table, nil, ReplayOptions{})
	})
}
