package care

import (
	"math"
	"testing"

	"github.com/edgeherd/edgeherd/internal/health"
)

// TestWarmthSumsUpADay: a box of 0.5 K/W at 40 W in air that is 20 °C at night and
// 30 °C from noon on.
func TestWarmthSumsUpADay(t *testing.T) {
	var w Warmth
	if w.Cooling(95, true) != nil {
		t.Error("something is known before the first hour")
	}
	for hour := range 3 * 24 {
		h := health.Hour{Start: int64(hour) * 3600, V: health.Blank()}
		air := 20.0
		if hour%24 >= 12 {
			air = 30
		}
		h.V[health.Inlet], h.V[health.Power], h.V[health.Die] = health.Value(air), 40, health.Value(air+0.5*40)
		w.Take(&h)
		w.Take(&h) // a second summary of the hour
	}
	c := w.Cooling(95.3, false)
	if math.Abs(c.KelvinPerWatt-0.5) > 1e-9 || c.HotCelsius != 50 || c.Watts != 40 || c.LimitCelsius != 95 || !c.LimitAssumed {
		t.Errorf("cooling %+v", c)
	}
	for hour, cool := range c.CoolHours {
		if cool != (hour < 12) {
			t.Errorf("hour %d is cool: %t", hour, cool)
		}
	}
	if len(w.Last) != 24 {
		t.Errorf("%d hours are kept", len(w.Last))
	}
}

// TestNoAirNoResistance: a die without an inlet says nothing of the resistance.
func TestNoAirNoResistance(t *testing.T) {
	var w Warmth
	h := health.Hour{V: health.Blank()}
	h.V[health.Die], h.V[health.Power] = 70, 40
	w.Take(&h)
	if c := w.Cooling(95, true); c.KelvinPerWatt != 0 || c.HotCelsius != 70 || c.CoolHours != [24]bool{} {
		t.Errorf("cooling %+v", c)
	}
}
