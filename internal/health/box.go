package health

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// boxVersion is the version of Box as JSON. 1: the fields below.
const boxVersion = 1

// Box is all that is remembered of a box: a few kilobytes as JSON, more while
// it is learnt.
type Box struct {
	Version         int
	Name, Site, SKU string
	First           int64 // start of the first hour of the learning time
	Last            Hour
	Learn           []Hour `json:",omitempty"` // steady hours, until the baseline is final
	Basis           Basis
	Base            *Baseline `json:",omitempty"`
	Days            []Day     `json:",omitempty"` // the last keepDays
	Today           today
	Recent          []moment  // the last steady hours
	Airs            []implied `json:",omitempty"` // the same, where no sensor knows the air
	CleanDay        int32     // S7 looks no further back
	Changes         []Change  `json:",omitempty"` // not yet settled
	Slow            counters
	Stuck           stuckState
	Lying           int
	Below           Value // K that the die read below the inlet while it was learnt
	Still           [len(stillSensors)]still
	Parts           parts
	Air             airRing
	Ambient         counters
	FanSeen         [Fans]int // hours in which it turned
	FanIdle         [Fans]int // hours in which it stood
	FanStop         [Fans]counters
	FanWear         [Fans]counters
	FanLow          [Fans]float64 // ln rpm below the clean curve, lowest of what is open
	FanHealed       [Fans]float64 // and of what went away by itself, which wear does not
	StepLevel       float64       // residual before the step
	StepHigh        float64       // by how much it rose
	Leapt           float64       // K that the implied air leapt; 0: the step was seen otherwise
	LeapFrom        float64       // °C, the implied air before
	StepDust        float64       // what dust adds to each K of the load, then
	SlowHigh        float64       // the highest S7 of the open rise
	Fell            fell          // what came and went by itself
	Trip            trip
	Trend           *Forecast
	Dusted          []dusty    `json:",omitempty"` // times between cleanings
	Open            []Finding  `json:",omitempty"`
	Cleanings       []Cleaning `json:",omitempty"` // the last 20
	out             []Finding
}

// New starts the state of a box that was never seen.
func New(name, site, sku string) *Box {
	return &Box{Version: boxVersion, Name: name, Site: site, SKU: sku, Last: Hour{V: Blank()}}
}

// counters hold how long a condition lasted: hours or days.
type counters struct{ Watch, Fire, Calm int }

// moment is the residual of one steady hour.
type moment struct {
	Start int64
	R     float64
}

const (
	keepDays    = 60
	keepHours   = 48
	leastDay    = 4     // steady hours that make a day
	firstWeek   = 7     // days to the provisional baseline
	fourWeeks   = 28    // days to the final one
	holdDays    = 3     // after a change
	changeLimit = 0.166 // ln 1.18: a larger shift is no side effect of a change
)

// Day is what is kept of a day.
type Day struct {
	Day     int32
	N       int         // steady hours
	R       Value       // residual, median
	S7      Value       // median of the last seven days
	DieK    Value       // K that the residual is worth at the die
	Witness [3]Value    // K that board, NVMe and exhaust are above the clean box
	WRatio  [3]Value    // and as a ratio of their clean rise
	Fan     [Fans]Value // ln rpm above the clean curve
	RPMSD   [Fans]Value // spread over that of the clean fan
	Need    Value       // relative rise of the resistance at which the day would have throttled at 95 °C
	PerK    Value       // and how much more for each K above that
	Tilt    tilt        // of the residual over the speed of the fans
	Hot     Value       // share of the hours that throttled
	Line    dayLine     // without a reference
}

// today gathers a day.
type today struct {
	R, DieK         []float64
	Moving          []moving
	SD              [Fans][]float64
	Witness, WRatio [3][]float64
	Fan             [Fans][]float64
	Beyond          []dutyPoint `json:",omitempty"` // at duties that the clean box never had
	Steady          []Hour      `json:",omitempty"` // without a reference only
	Need, PerK      float64
	Needs           int
	TopUp           float64 // highest predicted rise, without a reference
	top             float64 // ln airflow at full duty by the curve, which a day does not change; 0: not looked up
	Hot             float64
	Hours           int
}

func (t *today) reset() {
	t.R, t.DieK, t.Steady = t.R[:0], t.DieK[:0], t.Steady[:0]
	t.Moving, t.Beyond = t.Moving[:0], t.Beyond[:0]
	for i := range t.Witness {
		t.Witness[i], t.WRatio[i] = t.Witness[i][:0], t.WRatio[i][:0]
	}
	for i := range t.Fan {
		t.Fan[i], t.SD[i] = t.Fan[i][:0], t.SD[i][:0]
	}
	t.Need, t.PerK, t.Needs, t.TopUp, t.top, t.Hot, t.Hours = 0, 0, 0, 0, 0, 0, 0
}

// restart forgets the clean box: it stands elsewhere now.
func (b *Box) restart(at int64, why string) {
	for len(b.Open) > 0 {
		b.close(b.Open[0].Family, at, why)
	}
	b.First, b.Learn, b.Base, b.Days, b.Recent = at, nil, nil, nil, nil
	b.Air, b.Slow, b.Trend, b.CleanDay = airRing{}, counters{}, nil, 0
	b.Airs = nil
	b.Today.reset()
}

// gather keeps the steady hours of the learning time, without the first day:
// a box that was just mounted is not yet itself.
func (b *Box) gather(h *Hour, steady bool) {
	if steady && !b.stuck() && h.Start >= b.First+daySeconds && h.V[Die].OK() {
		b.Learn = append(b.Learn, *h)
	}
}

// LearnWindow picks the hours that FitPrior wants of a box: the steady ones of
// the days 2 to 28.
func LearnWindow(hours []Hour) []Hour {
	var out []Hour
	for i := 1; i < len(hours); i++ {
		h := &hours[i]
		if h.Start >= hours[0].Start+fourWeeks*daySeconds {
			break
		}
		if h.Start >= hours[0].Start+daySeconds && h.V[Die].OK() && h.Steady(&hours[i-1]) {
			out = append(out, *h)
		}
	}
	return out
}

// commission makes or refreshes the baseline when its time has come.
func (b *Box) commission(env Env) {
	if b.Base != nil && !b.Base.Provisional || len(b.Learn) < leastLearn {
		return
	}
	age := (b.Last.Start - b.First) / daySeconds
	final := age >= fourWeeks
	if age < firstWeek || b.Base != nil && !final {
		return
	}
	if b.Base != nil && b.has("resistance", "step") {
		b.Base.Provisional, b.Learn = false, nil // dust came before the four weeks were over
		return
	}
	basis := basisOf(b.Learn)
	if b.Base != nil {
		basis = b.Basis
	}
	base, ok := commission(b.Learn, &basis, env.Prior)
	if !ok {
		if final && age%7 == 0 {
			b.Learn = b.Learn[len(b.Learn)/2:] // never more than is of use
		}
		return
	}
	base.Provisional, base.Reason = !final, "commissioned"
	if base.Provisional {
		base.Sigma = max(base.Sigma, sigmaFirstWeek)
	}
	if b.Base != nil {
		b.carryOver(base)
	}
	b.Base, b.Basis = base, basis
	if final {
		b.Learn = nil
	}
}

// carryOver moves the days of the provisional baseline to the final one.
func (b *Box) carryOver(base *Baseline) {
	var d []float64
	for i := range b.Learn {
		was, ok1 := b.Base.residual(&b.Learn[i], &b.Basis)
		is, ok2 := base.residual(&b.Learn[i], &b.Basis)
		if ok1 && ok2 {
			d = append(d, is-was)
		}
	}
	shift := rank.Median(d)
	if b.Basis.Ref == RefNone {
		shift = math.Log(b.Base.NoRefSlope / base.NoRefSlope)
	}
	if shift == shift {
		b.moveDays(0, shift)
	}
}

// moveDays adds to the residuals of the days from one on.
func (b *Box) moveDays(from int32, by float64) {
	for i := range b.Days {
		if b.Days[i].Day >= from {
			b.Days[i].R += Value(by)
			b.Days[i].S7 += Value(by)
		}
	}
	for i := range b.Recent {
		if int32(b.Recent[i].Start/daySeconds) >= from {
			b.Recent[i].R += by
		}
	}
}

// measureFans takes the fans of a steady hour into the day.
func (b *Box) measureFans(h *Hour) {
	t := &b.Today
	for fan := range Fans {
		if d, ok := b.Base.fanDeviation(h, &b.Basis, fan); ok {
			t.Fan[fan] = append(t.Fan[fan], d)
		} else if p, ok := b.Base.beyond(h, fan); ok {
			t.Beyond = append(t.Beyond, p)
		}
		if v, ok := fanSpread(h, fan); ok && b.Base.RPMSD[fan] > 0 {
			t.SD[fan] = append(t.SD[fan], v/float64(b.Base.RPMSD[fan]))
		}
	}
}

// measure takes a steady hour into the day.
func (b *Box) measure(h *Hour) {
	t := &b.Today
	b.imply(h)
	if b.Basis.Ref == RefNone {
		t.Steady = append(t.Steady, *h)
		return
	}
	r, ok := b.Base.residual(h, &b.Basis)
	if !ok {
		return
	}
	t.R = append(t.R, r)
	if x := b.Basis.speed(h); x == x {
		t.Moving = append(t.Moving, moving{x, r})
	}
	rise := float64(h.V[Die]) - b.Basis.reference(h)
	t.DieK = append(t.DieK, rise*(1-math.Exp(-r)))
	if b.Basis.Ref == RefInlet {
		b.missedBy(Inlet, rise*(1-math.Exp(-r)))
	}
	for i, f := range witnesses {
		if w := &b.Base.Witness[i]; w.Known {
			if k, ratio := w.excess(h, &b.Basis, f); k == k {
				t.Witness[i] = append(t.Witness[i], k)
				t.WRatio[i] = append(t.WRatio[i], ratio)
				b.missedBy(f, k)
			}
		}
	}
	b.Recent = append(b.Recent, moment{h.Start, r})
	if len(b.Recent) > keepHours {
		b.Recent = slices.Delete(b.Recent, 0, len(b.Recent)-keepHours)
	}
}

// noteThrottle keeps what the forecast needs of every hour, steady or not.
func (b *Box) noteThrottle(h *Hour) {
	t := &b.Today
	t.Hours++
	if v := float64(h.V[Throttled]); v > 0 {
		t.Hot += min(v, 1)
	}
	b.Trip.note(h)
	if b.Base == nil {
		return
	}
	if x := b.Basis.air(h); x > b.Base.MaxAir {
		b.Base.MaxAir = x
	}
	p := b.Basis.load(h)
	if sd := float64(h.V[PowerSD]); b.Basis.Load == LoadPower && sd == sd {
		p += sd
	}
	if p != p {
		return
	}
	up := b.Base.predicted(p, b.topAir())
	t.TopUp = max(t.TopUp, up)
	if ref := b.Basis.reference(h); ref == ref && up > 0 {
		// An hour that throttles a clean box tells nothing of dust.
		if need := (defaultTrip-ref)/up - 1; need > 0 && (t.Needs == 0 || need < t.Need) {
			t.Need, t.PerK = need, 1/up
			t.Needs++
		}
	}
}

// topAir is ln of the airflow figure with the fans at full duty.
func (b *Box) topAir() float64 {
	switch b.Basis.Air {
	case AirPWM:
		return 0
	case AirRPM:
		if b.Today.top == 0 {
			b.Today.top = b.curveAir()
		}
		if b.Today.top == b.Today.top {
			return max(b.Today.top, b.Base.MaxAir)
		}
	}
	return b.Base.MaxAir
}

// curveAir is ln of the mean speed at full duty by curve and levels of the fans;
// NaN where they say nothing.
func (b *Box) curveAir() float64 {
	sum, n := 0.0, 0.0
	for fan, fitted := range b.Basis.Fitted {
		if level := float64(b.Base.FanLevel[fan]); fitted && level == level {
			if top := curveTop(&b.Base.Curve); top == top {
				sum, n = sum+math.Exp(top+level), n+1
			}
		}
	}
	return math.Log(sum / n) // NaN of 0/0
}

// curveTop is ln rpm at full duty, with the shipped shape beyond what was seen.
func curveTop(c *[curveBins]Value) float64 {
	for i := curveBins - 1; i >= 0; i-- {
		if c[i].OK() {
			return float64(c[i]) - shippedCurve*math.Log((float64(i)+0.5)/curveBins)
		}
	}
	return math.NaN()
}

// closeDay ends a day: its figures, the changes, the slow detectors, the
// forecast and the baseline, in this order.
func (b *Box) closeDay(day int32, env Env) {
	b.Trip.Told = env.TripC
	b.watchParts(day)
	if b.Base != nil {
		b.widenCurve(day)
		b.Days = append(b.Days, b.finish(day))
		if len(b.Days) > keepDays {
			b.Days = slices.Delete(b.Days, 0, len(b.Days)-keepDays)
		}
		b.settle(day)
		d := &b.Days[len(b.Days)-1]
		d.S7 = b.weekOf(day)
		b.watchCleaning()
		b.closeStep()
		b.forecast()
		b.watchSlow(env.Mates)
		b.watchFans()
	} else {
		b.dropChanges(day)
	}
	b.Today.reset()
	b.commission(env)
}

func (b *Box) finish(day int32) Day {
	t := &b.Today
	d := Day{Day: day, N: len(t.R), R: Missing(), S7: Missing(), DieK: Missing(), Need: Missing(), PerK: Missing(), Tilt: tiltOf(t.Moving)}
	if len(t.R) >= leastDay {
		d.R, d.DieK = Value(rank.Median(t.R)), Value(rank.Median(t.DieK))
	}
	for i := range witnesses {
		d.Witness[i], d.WRatio[i] = Missing(), Missing()
		if len(t.Witness[i]) >= leastDay {
			d.Witness[i], d.WRatio[i] = Value(rank.Median(t.Witness[i])), Value(rank.Median(t.WRatio[i]))
		}
	}
	for fan := range Fans {
		d.Fan[fan], d.RPMSD[fan] = Missing(), Missing()
		if len(t.Fan[fan]) >= leastDay {
			d.Fan[fan] = Value(rank.Median(t.Fan[fan]))
		}
		if len(t.SD[fan]) >= leastDay {
			d.RPMSD[fan] = Value(rank.Median(t.SD[fan]))
		}
	}
	d.Hot = Value(t.Hot / float64(max(t.Hours, 1)))
	if t.Needs > 0 {
		d.Need, d.PerK = Value(t.Need), Value(t.PerK)
	}
	if b.Basis.Ref == RefNone {
		b.finishSlope(&d)
	}
	return d
}

// finishSlope is the residual of a box without a reference: the slope of the
// last seven days over that of the clean box.
func (b *Box) finishSlope(d *Day) {
	d.Line = b.Base.dayLine(b.Today.Steady, &b.Basis)
	d.N = d.Line.N
	if d.N < leastDay {
		d.Line = dayLine{}
		return
	}
	lines := []dayLine{d.Line}
	for i := len(b.Days) - 1; i >= 0 && d.Day-b.Days[i].Day < 7; i-- {
		if b.Days[i].Line.N > 0 && b.Days[i].Day >= b.CleanDay {
			lines = append(lines, b.Days[i].Line)
		}
	}
	if k, ok := slopeOf(lines); ok && len(lines) >= 4 {
		d.R = Value(math.Log(k / b.Base.NoRefSlope))
		d.DieK = Value((k - b.Base.NoRefSlope) * d.Line.Up)
		if ambient := d.Line.Die - k*d.Line.Up; b.Today.TopUp > 0 {
			up := b.Base.NoRefSlope * b.Today.TopUp
			d.Need, d.PerK = Value((defaultTrip-ambient)/up-1), Value(1/up)
		}
	}
}

// weekOf is the median residual of the seven days that end with day.
func (b *Box) weekOf(day int32) Value {
	var r [7]float64
	n := 0
	for i := len(b.Days) - 1; i >= 0 && n < len(r); i-- {
		d := &b.Days[i]
		if d.Day > day {
			continue
		}
		if day-d.Day >= 10 || d.Day < b.CleanDay {
			break
		}
		if d.R.OK() {
			r[n] = float64(d.R)
			n++
		}
	}
	if n < 3 {
		return Missing()
	}
	return Value(rank.Median(r[:n]))
}
