package health

import (
	"math"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// Where no duty is told, a fan is held against the other fans of its box, which
// get the same one, or against the die's temperature, which the duty follows.

// heatBins of 4 K from heatLow °C on.
const (
	heatBins  = 16
	heatLow   = 24.0
	heatWidth = 4.0
	// A fan that idles answers to the air more than to the die; wear slows it at
	// every speed. Boxes that are warm so often are judged by these hours alone.
	heatBusy = 0.25
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
	low, high, n := heatBins, 0, 0
	for k, b := range bins {
		base.Heat[k] = Missing()
		if n += len(b); len(b) >= 2*curveLeast {
			base.Heat[k], low, high = Value(rank.Median(b)), min(low, k), k
		}
	}
	busy := 0
	for _, b := range bins[(2*low+high+2)/3:] {
		busy += len(b)
	}
	if base.HeatFrom = 0; float64(busy) >= heatBusy*float64(n) {
		base.HeatFrom = (2*low + high + 2) / 3
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
	if k, ok := heatBin(h); ok && k >= base.HeatFrom {
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
	return rank.Median(v), len(v) >= 24
}

func (base *Baseline) learnFans(hours []Hour, basis *Basis) {
	base.learnHeat(hours, basis)
	for fan := range Fans {
		base.FanLevel[fan] = Missing()
		level, ok := fanLevel(hours, fan, &base.Curve)
		if share(hours, PWM) < enough {
			level, ok = base.peerLevel(hours, basis, fan)
		}
		if !ok || !basis.Fitted[fan] {
			continue
		}
		base.FanLevel[fan] = Value(level)
		var devs []float64
		for i := range hours {
			if d, ok := base.fanDeviation(&hours[i], basis, fan); ok {
				devs = append(devs, d)
			}
		}
		// A day's median of a dozen hours is about a third as wide as an hour.
		base.FanSigma[fan] = max(madToSigma*medianAbs(devs)/3, 0.006)
	}
	for fan := range Fans {
		base.RPMSD[fan] = Missing()
		var sds []float64
		for i := range hours {
			if v, ok := fanSpread(&hours[i], fan); ok {
				sds = append(sds, v)
			}
		}
		if len(sds) >= 24 {
			base.RPMSD[fan] = Value(rank.Median(sds))
		}
	}
}

var spreads = [Fans]Field{RPMSD, RPMSD2, RPMSD3, RPMSD4}

// fanSpread is the relative spread of a fan's speed within an hour, of hours
// in which the duty did not move it.
func fanSpread(h *Hour, fan int) (float64, bool) {
	v := float64(h.V[spreads[fan]] / h.V[int(RPM1)+fan])
	return v, v == v && !math.IsInf(v, 0) && !(h.V[PWMSD] > calmPWM)
}

// calmPWM: a duty that moves by more moves the speed as well.
const calmPWM = 0.02

// fanDeviation is how far a fan turns above its own speed at that duty, ln.
func (base *Baseline) fanDeviation(h *Hour, basis *Basis, fan int) (float64, bool) {
	level := float64(base.FanLevel[fan])
	if !h.V[PWM].OK() {
		d := base.overPeers(h, basis, fan) - level
		return d, d == d
	}
	_, ln, ok := fanPoint(h, fan)
	if !ok {
		return 0, false
	}
	d := ln - curveAt(&base.Curve, float64(h.V[PWM])) - level
	return d, d == d
}

// dutyPoint is how far a fan turned above its own level in an hour at a duty
// that the curve does not have.
type dutyPoint struct {
	Fan, Bin int
	Ln       float64
}

func (base *Baseline) beyond(h *Hour, fan int) (dutyPoint, bool) {
	bin, ln, ok := fanPoint(h, fan)
	level := float64(base.FanLevel[fan])
	if !ok || level != level || base.Curve[bin].OK() {
		return dutyPoint{}, false
	}
	return dutyPoint{fan, bin, ln - level - shippedCurve*math.Log(float64(h.V[PWM])*curveBins/(float64(bin)+0.5))}, true
}

// wornLately days: how old the wear of a fan may be to be taken for today's.
const wornLately = 14

// widenCurve: a box that clogs drives its fans harder than it ever did when it
// was clean. Such a duty is learnt on the first day that has it: the fans are
// then as worn as they were shortly before.
func (b *Box) widenCurve(day int32) {
	var bins [curveBins][]float64
	for _, p := range b.Today.Beyond {
		for i := len(b.Days) - 1; i >= 0 && day-b.Days[i].Day <= wornLately; i-- {
			if worn := float64(b.Days[i].Fan[p.Fan]); worn == worn {
				bins[p.Bin] = append(bins[p.Bin], p.Ln-worn)
				break
			}
		}
	}
	for k, v := range bins {
		if len(v) >= leastDay {
			b.Base.Curve[k] = Value(rank.Median(v))
		}
	}
}
