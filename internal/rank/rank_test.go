package rank

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// TestPlacesAreThoseOfASortedColumn: of columns as charts and findings bring them,
// with equal, missing and infinite values, sorted either way or not at all.
func TestPlacesAreThoseOfASortedColumn(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	special := []float64{math.NaN(), math.Inf(1), math.Inf(-1), 0, 1}
	for range 2000 {
		v := make([]float64, 1+random.IntN(60))
		kinds := 1 + random.IntN(50)
		for i := range v {
			if v[i] = float64(random.IntN(kinds)); random.IntN(8) == 0 {
				v[i] = special[random.IntN(len(special))]
			}
		}
		switch random.IntN(4) {
		case 0:
			slices.Sort(v)
		case 1:
			slices.Sort(v)
			slices.Reverse(v)
		}
		sorted := slices.Sorted(slices.Values(v)) // NaN first
		k := random.IntN(len(v))
		got := slices.Clone(v)
		Place(got, k)
		same := func(a, b float64) bool { return a == b || a != a && b != b }
		if !same(got[k], sorted[k]) {
			t.Fatalf("place %d of %v is %v, want %v", k, v, got[k], sorted[k])
		}
		for i, x := range got {
			if i < k && x > got[k] || i > k && x < got[k] {
				t.Fatalf("place %d of %v: %v", k, v, got)
			}
		}
		if all := slices.Sorted(slices.Values(got)); !slices.EqualFunc(all, sorted, same) {
			t.Fatalf("%v became %v", v, got)
		}
		if n := len(v); n%2 == 1 {
			if m := Median(slices.Clone(v)); !same(m, sorted[n/2]) {
				t.Fatalf("the median of %v is %v", v, m)
			}
		}
	}
	if q := Quantile([]float64{4, 1, 3, 2}, 0.5); q != 2.5 {
		t.Errorf("the middle of one to four is %v", q)
	}
	if !math.IsNaN(Median(nil)) {
		t.Error("nothing has a median")
	}
}
