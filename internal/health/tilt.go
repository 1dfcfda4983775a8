package health

import "math"

// A clog weakens what the fans do; dried paste adds a resistance that no fan
// changes. So a clog weighs more while they turn slowly, paste while they turn
// fast: a witness that needs no second sensor. Without fans the load stands
// for the speed: it is what drives the draught.

// tilt are the sums of a regression of the residual on the speed, each day
// about its own means, so that a trend does not tilt it.
type tilt struct{ XX, XY float64 }

const (
	tiltDays  = 10
	tiltLeast = 0.1 // of XX: less says nothing
)

func (t *tilt) add(o tilt) { t.XX, t.XY = t.XX+o.XX, t.XY+o.XY }

// speed is ln of the airflow, or of the load where there is no fan.
func (b *Basis) speed(h *Hour) float64 {
	if b.Air == AirNone {
		return math.Log(b.load(h))
	}
	return b.air(h)
}

// moving is the speed and the residual of an hour.
type moving struct{ X, R float64 }

func tiltOf(hours []moving) tilt {
	var mx, mr float64
	for _, h := range hours {
		mx, mr = mx+h.X/float64(len(hours)), mr+h.R/float64(len(hours))
	}
	var t tilt
	for _, h := range hours {
		t.XX, t.XY = t.XX+(h.X-mx)*(h.X-mx), t.XY+(h.X-mx)*(h.R-mr)
	}
	return t
}

// learnTilt is that of the clean box, and how far an hour lies off.
func (base *Baseline) learnTilt(hours []Hour, basis *Basis) {
	var day []moving
	var sum tilt
	var off []float64
	for i := range hours {
		if i > 0 && hours[i].day() != hours[i-1].day() {
			sum.add(tiltOf(day))
			day = day[:0]
		}
		r, ok := base.residual(&hours[i], basis)
		if x := basis.speed(&hours[i]); ok && x == x {
			day, off = append(day, moving{x, r}), append(off, r)
		}
	}
	sum.add(tiltOf(day))
	if sum.XX > tiltLeast {
		base.Tilt, base.TiltSigma = sum.XY/sum.XX, max(madToSigma*medianAbs(off), 0.01)
	}
}

// tilted is how much more the excess of the last days weighs with each ln of
// speed, as a share of it, and how unsure that is.
func (b *Box) tilted() (share, unsure float64, ok bool) {
	var sum tilt
	last := &b.Days[len(b.Days)-1]
	for i := max(len(b.Days)-tiltDays, 0); i < len(b.Days); i++ {
		if d := &b.Days[i]; d.Day >= b.CleanDay && d.S7 > last.S7/3 {
			sum.add(d.Tilt)
		}
	}
	r := float64(last.S7)
	if sum.XX < tiltLeast || b.Base.TiltSigma == 0 || !(r > 0) {
		return 0, 0, false
	}
	return (sum.XY/sum.XX - b.Base.Tilt) / r, b.Base.TiltSigma / math.Sqrt(sum.XX) / r, true
}
