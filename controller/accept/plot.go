package accept

import (
	"math"

	"github.com/edgeherd/edgeherd/internal/acceptance"
)

// panel is one drawing of the curve: temperatures, or speed. All places are
// shares of its width and height, 0 at the left and at the top.
type panel struct {
	Unit  string
	Lines []line
	Marks []mark // of the values, at the left
}

type line struct {
	Name   string
	Colour string    // #rrggbb, readable on white
	Parts  [][]place // a gap in the readings ends a part
}

type place struct{ X, Y float64 }

type mark struct {
	At   float64
	Text string
}

// Colours that are told apart without colour vision as well (Okabe and Ito).
var colours = map[string]string{"die": "#d55e00", "inlet": "#0072b2", "inference": "#007a5a"}

// panels draw temperatures, and inferences below them.
func (d dictionary) panels(r acceptance.Report) (out []panel, times []mark) {
	n := len(r.CurveSeconds)
	if n < 2 {
		return nil, nil
	}
	last := r.CurveSeconds[n-1]
	if last <= 0 {
		return nil, nil
	}
	for _, names := range [][]string{{"die", "inlet"}, {"inference"}} {
		var chosen []acceptance.Course
		for _, name := range names {
			for _, s := range r.Curve {
				if s.Name == name && len(s.Values) == n {
					chosen = append(chosen, s)
				}
			}
		}
		if p, ok := d.panel(chosen, r.CurveSeconds, last); ok {
			out = append(out, p)
		}
	}
	unit, scale := d.word("seconds"), 1.0
	if last > 180 {
		unit, scale = d.word("minutes"), 60
	}
	for _, t := range ticks(0, last/scale, 6) {
		if at := t * scale / last; at <= 1 {
			times = append(times, mark{at, d.number(acceptance.FormatNumber(t)) + " " + unit})
		}
	}
	return out, times
}

func (d dictionary) panel(chosen []acceptance.Course, seconds []float64, last float64) (panel, bool) {
	low, high := math.Inf(1), math.Inf(-1)
	for _, s := range chosen {
		for _, v := range s.Values {
			if v != nil {
				low, high = min(low, *v), max(high, *v)
			}
		}
	}
	if low > high {
		return panel{}, false
	}
	if chosen[0].Name == "inference" {
		low = 0 // a speed is compared with none
	}
	steps := ticks(low, max(high, low+1), 4)
	low, high = min(low, steps[0]), max(high, steps[len(steps)-1])
	p := panel{Unit: chosen[0].Unit}
	for _, s := range steps {
		p.Marks = append(p.Marks, mark{1 - (s-low)/(high-low), d.number(acceptance.FormatNumber(s))})
	}
	for _, s := range chosen {
		l := line{Name: d.word("series." + s.Name), Colour: colours[s.Name]}
		var part []place
		for i, v := range s.Values {
			if v != nil {
				part = append(part, place{seconds[i] / last, 1 - (*v-low)/(high-low)})
				continue
			}
			if len(part) > 1 {
				l.Parts = append(l.Parts, part)
			}
			part = nil
		}
		if len(part) > 1 {
			l.Parts = append(l.Parts, part)
		}
		p.Lines = append(p.Lines, l)
	}
	return p, true
}

// ticks are round numbers from below low to above high, about n steps of 1, 2 or
// 5 times a power of ten.
func ticks(low, high float64, n int) []float64 {
	raw := (high - low) / float64(n)
	power := math.Pow(10, math.Floor(math.Log10(raw)))
	step := power
	for _, m := range []float64{1, 2, 5, 10} {
		if step = m * power; step >= raw {
			break
		}
	}
	var out []float64
	for k := math.Floor(low / step); ; k++ {
		out = append(out, k*step)
		if k*step >= high {
			return out
		}
	}
}
