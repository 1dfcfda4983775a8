package health

// Learning is how far a box is with learning how it is when it is clean. It has
// learnt enough when both, days and hours, are full.
type Learning struct {
	Days, OfDays   int
	Hours, OfHours int // steady ones
}

// Learning of a box without a baseline.
func (b *Box) Learning() Learning {
	l := Learning{OfDays: firstWeek, OfHours: leastLearn, Hours: len(b.Learn)}
	if b.First > 0 {
		l.Days = int((b.Last.Start - b.First) / daySeconds)
	}
	return l
}
