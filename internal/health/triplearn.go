package health

import "github.com/edgeherd/edgeherd/internal/rank"

// PooledTrip is the die temperature at which boxes of one SKU throttle, from
// the throttled hours of all of them; false: they throttled too seldom to tell.
// What one box has shown holds for its brothers.
func PooledTrip(boxes []*Box) (float64, bool) {
	var hot []float64
	for _, b := range boxes {
		for _, die := range b.Trip.Hot {
			hot = append(hot, float64(die))
		}
	}
	if len(hot) < 2*tripLeast {
		return 0, false
	}
	return rank.Quantile(hot, tripShare), true
}
