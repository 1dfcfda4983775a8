// Package rank selects among numbers: medians and quantiles without sorting all.
//
// A quantile lies between two values; a place is the index that a value has in
// the sorted slice. NaN comes before all numbers.
//
// The one rule a caller can break: every function here changes the order of the
// slice that it is given.
package rank

import "math"

// Median is the middle of v; NaN when it is empty.
func Median(v []float64) float64 { return Quantile(v, 0.5) }

// Quantile reads between the values of v as if they were sorted.
func Quantile(v []float64, q float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	x := q * float64(len(v)-1)
	i := min(int(x), len(v)-1)
	Place(v, i)
	f := x - float64(i)
	if f == 0 {
		return v[i]
	}
	return v[i]*(1-f) + least(v[i+1:])*f
}

func least(v []float64) float64 {
	m := v[0]
	for _, x := range v[1:] { // min would look for NaN, which costs twice the time
		if x < m {
			m = x
		}
	}
	return m
}

// Place puts the value that would be v[k] of a sorted v there, none above it
// before and none below it behind (Hoare's selection).
func Place(v []float64, k int) {
	low, high := 0, len(v)-1
	for i, x := range v {
		if x != x {
			v[low], v[i] = x, v[low]
			low++
		}
	}
	if k < low {
		return
	}
	for high-low > small {
		pivot := middle(v[low], v[(low+high)/2], v[high]) // of three: it spares sorted columns the worst case
		i, j := low, high
		for i <= j {
			for v[i] < pivot {
				i++
			}
			for v[j] > pivot {
				j--
			}
			if i <= j {
				v[i], v[j] = v[j], v[i]
				i, j = i+1, j-1
			}
		}
		switch {
		case k <= j:
			high = j
		case k >= i:
			low = i
		default:
			return
		}
	}
	for i := low + 1; i <= high; i++ {
		x, j := v[i], i
		for ; j > low && v[j-1] > x; j-- {
			v[j] = v[j-1]
		}
		v[j] = x
	}
}

// small many values are sorted outright.
const small = 12

func middle(a, b, c float64) float64 { return max(min(a, b), min(max(a, b), c)) }
