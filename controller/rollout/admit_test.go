package rollout

import "testing"

// TestHeadroomIsInKelvin: 20 W more at 0.5 K/W are 10 K.
func TestHeadroomIsInKelvin(t *testing.T) {
	for _, c := range []struct {
		name                           string
		celsius, watts, perWatt, limit float64
		want                           float64
	}{
		{"as it is", 80, 0, 0.5, 95, 15},
		{"20 W more", 80, 20, 0.5, 95, 5},
		{"20 W less", 80, -20, 0.5, 95, 25},
		{"a small box of 3 K/W", 60, 4, 3, 97, 25},
		{"beyond its limit", 90, 20, 0.5, 95, -5},
	} {
		if got := Headroom(c.celsius, c.watts, c.perWatt, c.limit); got != c.want {
			t.Errorf("%s: %v K, want %v K", c.name, got, c.want)
		}
	}
}

// TestWattsComeFromTheBestSource: what was measured in the rollout stands above
// what others draw, and that above an estimate from times.
func TestWattsComeFromTheBestSource(t *testing.T) {
	all := draw{change: 7, rose: 1, watts: 60, ran: 2, ratio: 1.5, tried: 3}
	others, tried := all, all
	others.rose = 0
	tried.rose, tried.ran = 0, 0
	for _, c := range []struct {
		d         draw
		now, busy float64
		watts     float64
		known     bool
	}{
		{all, 40, 0.5, 7, true},
		{others, 40, 0.5, 20, true},
		{tried, 40, 0.5, 10, true}, // 40 W × half busy × half as long again
		{tried, 0, 0.5, 0, false},
		{draw{}, 40, 0.5, 0, false},
	} {
		watts, how := c.d.more(c.now, c.busy)
		if watts != c.watts || (how.Text != "") != c.known {
			t.Errorf("%+v at %v W: %v W (%s), want %v W, known %v", c.d, c.now, watts, how, c.watts, c.known)
		}
	}
}
