package health

import (
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/internal/rank"
)

// Basis says what the index of a box is made from. It is chosen when the box
// is commissioned and then kept, so that no change of source looks like dust.
type Basis struct {
	Ref  string `json:"ref"`
	Air  string `json:"air"`
	Load string `json:"load"`
	// Offsets of inlet, room and neighbour below the chosen reference: another
	// sensor may stand in when that one is silent.
	Offsets [3]Value   `json:"offsets"`
	Fitted  [Fans]bool `json:"fitted"`
	Clock   Value      `json:"clock"` // highest clock seen, Hz
}

var refs = [3]Field{Inlet, Room, Neighbour}
var refNames = [3]string{RefInlet, RefRoom, RefNeighbour}

// insides are what stands in for the air, best first.
var insides = [...]struct {
	field Field
	name  string
}{{Board, RefBoard}, {Exhaust, RefExhaust}, {NVMe, RefDrive}}

// inside is the sensor that stands in for the air, if one does.
func (b *Basis) inside() (Field, bool) {
	for _, s := range insides {
		if b.Ref == s.name {
			return s.field, true
		}
	}
	return 0, false
}

// outer: the reference is the air itself.
func (b *Basis) outer() bool { return slices.Contains(refNames[:], b.Ref) }

// class of references whose slopes can be pooled.
func (b *Basis) class() string {
	if b.outer() {
		return ""
	}
	return b.Ref
}

// enough of the hours must have a figure before an index is built on it.
const enough = 0.6

func share(hours []Hour, f Field) float64 {
	n := 0
	for i := range hours {
		if hours[i].V[f].OK() {
			n++
		}
	}
	return float64(n) / float64(max(len(hours), 1))
}

func basisOf(hours []Hour) Basis {
	b := Basis{Ref: RefNone, Air: AirNone, Load: LoadNone, Clock: Missing(), Offsets: [3]Value{Missing(), Missing(), Missing()}}
	for i := len(insides) - 1; i >= 0; i-- {
		if share(hours, insides[i].field) >= enough {
			b.Ref = insides[i].name
		}
	}
	for i := len(refs) - 1; i >= 0; i-- {
		if share(hours, refs[i]) >= enough {
			b.Ref = refNames[i]
		}
	}
	if k := slices.Index(refNames[:], b.Ref); k >= 0 {
		for i, f := range refs {
			var d []float64
			for j := range hours {
				if v := float64(hours[j].V[refs[k]] - hours[j].V[f]); v == v {
					d = append(d, v)
				}
			}
			if len(d) >= 24 || i == k {
				b.Offsets[i] = Value(rank.Median(d))
			}
		}
	}
	if share(hours, PWM) >= enough {
		b.Air = AirPWM
	}
	for fan := range Fans {
		turning := 0
		for i := range hours {
			if hours[i].V[int(RPM1)+fan] >= 250 {
				turning++
			}
		}
		if float64(turning) >= enough*float64(len(hours)) && turning > 0 {
			b.Fitted[fan], b.Air = true, AirRPM
		}
	}
	switch {
	case share(hours, Power) >= enough:
		b.Load = LoadPower
	case share(hours, Busy) >= enough:
		b.Load = LoadBusy
		for i := range hours {
			if c := hours[i].V[Clock]; c.OK() && !(c <= b.Clock) {
				b.Clock = c
			}
		}
	}
	return b
}

// reference is the air that the box breathes, °C.
func (b *Basis) reference(h *Hour) float64 {
	if b.Ref == RefNone {
		return math.NaN()
	}
	if f, ok := b.inside(); ok {
		return float64(h.V[f])
	}
	k := slices.Index(refNames[:], b.Ref)
	if v := h.V[refs[k]]; v.OK() {
		return float64(v)
	}
	for i, f := range refs {
		if v := h.V[f] + b.Offsets[i]; v.OK() {
			return float64(v)
		}
	}
	return math.NaN()
}

// load is the heat, W, or what stands for it.
func (b *Basis) load(h *Hour) float64 {
	switch b.Load {
	case LoadPower:
		if p := float64(h.V[Power]); p > 0.5 {
			return p
		}
		return math.NaN()
	case LoadBusy:
		// An idle box still takes a quarter of its full power, roughly; the
		// fitted slope corrects most of what this guess gets wrong.
		busy := float64(h.V[Busy])
		if c := float64(h.V[Clock] / b.Clock); c == c {
			busy *= c
		}
		return 0.25 + 0.75*busy
	}
	return 1
}

// air is the airflow figure, ln; NaN when the fans stand or cannot be read.
func (b *Basis) air(h *Hour) float64 {
	switch b.Air {
	case AirRPM:
		sum, n := 0.0, 0.0
		for fan, fitted := range b.Fitted {
			if v := float64(h.V[int(RPM1)+fan]); fitted && v == v {
				sum, n = sum+v, n+1
			}
		}
		if !(sum/n >= 200) {
			return math.NaN()
		}
		return math.Log(sum / n)
	case AirPWM:
		if v := float64(h.V[PWM]); v >= 0.05 {
			return math.Log(v)
		}
		return math.NaN()
	}
	return 0
}

// leastRise is the rise above the reference, K, below which an hour says too
// little: at 1 °C of resolution 3 K is ±10 %.
const leastRise = 3

// row makes the regression row of an hour; false when a figure is missing.
func (b *Basis) row(h *Hour) (row, bool) {
	ref, p := b.reference(h), b.load(h)
	rise := float64(h.V[Die]) - ref
	r := row{y: math.Log(rise / p), x: b.air(h), p: math.Log(p)}
	if b.outer() {
		r.w = ref
	}
	return r, rise >= leastRise && r.y == r.y && r.x == r.x && r.p == r.p
}

func (b *Basis) rows(hours []Hour) []row {
	out := make([]row, 0, len(hours))
	for i := range hours {
		if r, ok := b.row(&hours[i]); ok {
			out = append(out, r)
		}
	}
	return out
}

// Baseline is the clean box, frozen at commissioning. Only a logged change or
// a proved cleaning may move it.
type Baseline struct {
	From, To    int64
	Reason      string
	Provisional bool // of a week; the final one comes after four
	Slopes      Slopes
	PriorBoxes  int
	Level       float64 // of ln R, at x = p = 0 and in air of WarmAt
	WarmAt      float64 // °C
	Bend        bend    // of ln R over ln load, on top of the slope
	Tilt        float64 // of the clean box: residual over the speed of the fans
	TiltSigma   float64 // of an hour about it
	Sigma       float64 // of a day's residual
	Leap        float64 // K, of the implied air of the clean box, without a reference
	Swing       float64 // that four hours of the clean box reached
	Hours       int
	MaxAir      float64 // ln airflow at its highest so far
	Rise        float64 // K above the reference, median
	NoRefSlope  float64 // of die over predicted rise, without a reference
	Witness     [3]witness
	FanLevel    [Fans]Value
	FanSigma    [Fans]float64
	RPMSD       [Fans]Value // median relative spread of each fan
	Curve       [curveBins]Value
	Heat        [heatBins]Value // ln rpm over the die's temperature, where no duty is told
	HeatFrom    int             // the coolest bin that is judged
}

// witness is a second place in the same air: ln(rise/P) of board, NVMe or
// exhaust in the clean box.
type witness struct {
	Known                   bool
	Level, Air, Load, Sigma float64
}

var witnesses = [3]Field{Board, NVMe, Exhaust}

// The floors of a day's spread, by what the index is made from.
const (
	sigmaFloor     = 0.008
	sigmaProxy     = 0.02
	sigmaNoLoad    = 0.04
	sigmaNeighbour = 0.03 // their air is not quite one's own
	sigmaNoRef     = 0.05
	sigmaFirstWeek = 0.015
)

// commission makes the baseline of a box from its learning hours.
func commission(hours []Hour, basis *Basis, prior *Prior) (*Baseline, bool) {
	ship := Shipped(basis.Air, basis.Load)
	if prior == nil || prior.Boxes == 0 || prior.Air != basis.Air || prior.Load != basis.Load || prior.Ref != basis.class() {
		// The curve may be pooled even where the slopes cannot be.
		ship.Curve = fitCurve([][]Hour{hours})
		if prior != nil && prior.SKU != "" {
			ship.Curve = prior.Curve
		}
		prior = &ship
	}
	base := &Baseline{Slopes: ownSlopes(basis.rows(hours), prior), PriorBoxes: prior.Boxes, Curve: prior.Curve, MaxAir: math.Inf(-1)}
	base.From, base.To = hours[0].Start, hours[len(hours)-1].Start+hourSeconds
	for i := range hours {
		if x := basis.air(&hours[i]); x > base.MaxAir {
			base.MaxAir = x
		}
	}
	if math.IsInf(base.MaxAir, 0) {
		base.MaxAir = 0
	}
	var ok bool
	if basis.Ref == RefNone {
		ok = base.learnSlope(hours, basis)
	} else {
		ok = base.learnLevel(hours, basis)
		for i := 0; i < len(witnesses) && basis.outer(); i++ {
			base.Witness[i] = learnWitness(hours, basis, witnesses[i])
		}
	}
	base.learnLeap(hours, basis)
	base.learnFans(hours, basis)
	return base, ok
}

// leastLearn steady hours with all figures are needed for a baseline.
const leastLearn = 48

func (base *Baseline) learnLevel(hours []Hour, basis *Basis) bool {
	var levels, rises, airs []float64
	var days [][]float64
	day := int32(-1)
	rows := basis.rows(hours)
	for _, r := range rows {
		airs = append(airs, r.w)
	}
	base.WarmAt = rank.Median(airs)
	base.Bend = learnBend(rows, base.Slopes)
	for i := range hours {
		r, ok := basis.row(&hours[i])
		if !ok {
			continue
		}
		v := r.y - base.Slopes.Air*r.x - base.Slopes.Load*r.p - base.Bend.at(r.p) - base.warmth(r.w)
		levels = append(levels, v)
		rises = append(rises, float64(hours[i].V[Die])-basis.reference(&hours[i]))
		if d := hours[i].day(); d != day {
			day, days = d, append(days, nil)
		}
		days[len(days)-1] = append(days[len(days)-1], v)
	}
	if len(levels) < leastLearn {
		return false
	}
	inOrder := slices.Clone(levels)
	base.Hours, base.Level, base.Rise = len(levels), rank.Median(levels), rank.Median(rises)
	var daily []float64
	for _, d := range days {
		if len(d) >= leastDay {
			daily = append(daily, rank.Median(d))
		}
	}
	base.Sigma = max(madToSigma*medianAbs(daily), floorOf(basis))
	base.learnTilt(hours, basis)
	for i := 4; i <= len(levels); i++ { // in order of time: median moves a copy
		base.Swing = max(base.Swing, rank.Median(slices.Clone(inOrder[i-4:i]))-base.Level)
	}
	return len(daily) >= 3
}

func floorOf(b *Basis) float64 {
	switch {
	case b.Load == LoadNone:
		return sigmaNoLoad
	case b.Ref == RefNone:
		return sigmaNoRef
	case b.Ref == RefNeighbour || b.Ref == RefDrive:
		return sigmaNeighbour
	case b.Load == LoadBusy || !b.outer():
		return sigmaProxy
	}
	return sigmaFloor
}

// residual is how far ln R of an hour lies above the clean box at the same
// airflow and load.
func (base *Baseline) residual(h *Hour, basis *Basis) (float64, bool) {
	r, ok := basis.row(h)
	return r.y - base.Level - base.Slopes.Air*r.x - base.Slopes.Load*r.p - base.Bend.at(r.p) - base.warmth(r.w), ok
}

// predicted is the clean rise, K, of a load at an airflow (without a
// reference: in units of its own).
func (base *Baseline) predicted(load, air float64) float64 {
	p := math.Log(load)
	return load * math.Exp(base.Level+base.Slopes.Air*air+base.Slopes.Load*p+base.Bend.at(p))
}

// learnWitness fits a witness on its own: its slopes differ from the die's.
func learnWitness(hours []Hour, basis *Basis, f Field) witness {
	var g []row
	for i := range hours {
		p := basis.load(&hours[i])
		rise := float64(hours[i].V[f]) - basis.reference(&hours[i])
		r := row{y: math.Log(rise / p), x: basis.air(&hours[i]), p: math.Log(p)}
		if rise >= 1.5 && r.x == r.x && r.p == r.p {
			g = append(g, r)
		}
	}
	if len(g) < leastLearn {
		return witness{}
	}
	ship := Shipped(basis.Air, basis.Load)
	ship.Slopes.Load = -0.3 // the board is heated by more than the die
	s := centredSums([][]row{g}, [][]float64{slices.Repeat([]float64{1}, len(g))})
	b, _ := solveWitness(s, ship)
	w := witness{Known: true, Air: b.Air, Load: b.Load}
	levels := make([]float64, len(g))
	for i, r := range g {
		levels[i] = r.y - b.Air*r.x - b.Load*r.p
	}
	w.Level = rank.Median(levels)
	w.Sigma = madToSigma * medianAbs(levels)
	return w
}

func solveWitness(s sums, ship Prior) (Slopes, bool) {
	b := ship.Slopes
	const pull = ridge * 0.1 * 0.1
	s.xx, s.pp = s.xx+pull, s.pp+pull
	s.xy, s.py = s.xy+pull*b.Air, s.py+pull*b.Load
	det := s.xx*s.pp - s.xp*s.xp
	if ship.Air == AirNone || det < 1e-9 {
		b.Load = min(max(s.py/s.pp, -1), 0.5)
		return b, true
	}
	b.Air = min(max((s.xy*s.pp-s.py*s.xp)/det, -1), 0.1)
	b.Load = min(max((s.py-b.Air*s.xp)/s.pp, -1), 0.5)
	return b, true
}

// excess is how much warmer, K, the witness is than in the clean box, and as
// a ratio of its clean rise.
func (w *witness) excess(h *Hour, basis *Basis, f Field) (kelvin, ratio float64) {
	p := basis.load(h)
	rise := float64(h.V[f]) - basis.reference(h)
	clean := p * math.Exp(w.Level+w.Air*basis.air(h)+w.Load*math.Log(p))
	return rise - clean, rise/clean - 1
}

// dayLine is the centred regression of one day: die over predicted rise.
type dayLine struct {
	Sxx, Sxy float64
	Die, Up  float64 // their means
	N        int
}

// learnSlope is the clean baseline of a box without any reference.
func (base *Baseline) learnSlope(hours []Hour, basis *Basis) bool {
	var days []dayLine
	for from := 0; from < len(hours); {
		to := from
		for to < len(hours) && hours[to].day() == hours[from].day() {
			to++
		}
		if l := base.dayLine(hours[from:to], basis); l.N >= leastDay {
			days = append(days, l)
			base.Hours += l.N
		}
		from = to
	}
	k, ok := slopeOf(days)
	if !ok || len(days) < 5 {
		return false
	}
	base.NoRefSlope = k
	var logs []float64
	for i := range days {
		if s, ok := slopeOf(days[max(i-6, 0) : i+1]); ok && i >= 3 {
			logs = append(logs, math.Log(s/k))
		}
	}
	base.Sigma = max(madToSigma*medianAbs(logs), floorOf(basis))
	return base.Hours >= leastLearn
}

// dayLine takes the mean of the day away, and with it most of the ambient.
func (base *Baseline) dayLine(hours []Hour, basis *Basis) dayLine {
	var l dayLine
	var ups, dies []float64
	for i := range hours {
		p, x, die := basis.load(&hours[i]), basis.air(&hours[i]), float64(hours[i].V[Die])
		if u := base.predicted(p, x); u == u && die == die {
			ups, dies = append(ups, u), append(dies, die)
			l.Up, l.Die = l.Up+u, l.Die+die
		}
	}
	l.N = len(ups)
	l.Up, l.Die = l.Up/float64(l.N), l.Die/float64(l.N)
	for i, u := range ups {
		l.Sxx += (u - l.Up) * (u - l.Up)
		l.Sxy += (u - l.Up) * (dies[i] - l.Die)
	}
	return l
}

func slopeOf(days []dayLine) (float64, bool) {
	var sxx, sxy, up float64
	for _, d := range days {
		sxx, sxy, up = sxx+d.Sxx, sxy+d.Sxy, up+d.Up*d.Up*float64(d.N)
	}
	// The load must move by 5 % at least, else the slope is noise.
	if sxx <= 0 || sxy <= 0 || sxx < 0.0025*up {
		return 0, false
	}
	return sxy / sxx, true
}
