package health

import "math"

// Where no duty is told, a fan is held against the other fans of its box, which
// get the same one, or against the die's temperature, which the duty follows.

// heatBins of 4 K from heatLow °C on.
const (
	heatBins  = 16
	heatLow   = 24.0
	heatWidth = 4.0
)

func heatBin(h *Hour) (int, bool) {
	x := (float64(h.V[Die]) - heatLow) / heatWidth
	return int(x), x >= 0 && x < heatBins && !(h.V[Throttled] > 0)
}

func lnSpeed(h *Hour, fan int) float64 {
	if v := float64(h.V[int(RPM1)+fan]); v >= 250 {
		return math.Log(v)
	}
	return math.NaN()
}

func (base *Baseline) learnHeat(hours []Hour, basis *Basis) {
	var bins [heatBins][]float64
	for i := range hours {
		if k, ok := heatBin(&hours[i]); ok {
			if x := basis.air(&hours[i]); x == x && basis.Air == AirRPM {
				bins[k] = append(bins[k], x)
			}
		}
	}
	for k, b := range bins {
		base.Heat[k] = Missing()
		if len(b) >= 2*curveLeast {
			base.Heat[k] = Value(median(b))
		}
	}
}

// overPeers is ln of a fan's speed over that of its peers.
func (base *Baseline) overPeers(h *Hour, basis *Basis, fan int) float64 {
	sum, n := 0.0, 0.0
	for i, fitted := range basis.Fitted {
		if v := lnSpeed(h, i); fitted && i != fan && v == v {
			sum, n = sum+v, n+1
		}
	}
	if n > 0 {
		return lnSpeed(h, fan) - sum/n
	}
	if k, ok := heatBin(h); ok {
		return lnSpeed(h, fan) - float64(base.Heat[k])
	}
	return math.NaN()
}

func (base *Baseline) peerLevel(hours []Hour, basis *Basis, fan int) (float64, bool) {
	var v []float64
	for i := range hours {
		if d := base.overPeers(&hours[i], basis, fan); d == d {
			v = append(v, d)
		}
	}
	return median(v), len(v) >= 24
}
