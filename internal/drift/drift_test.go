package drift

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// sketches draws any counts, the largest included.
var sketches = rapid.Custom(func(t *rapid.T) Sketch {
	var s Sketch
	draw := func(name string) uint64 {
		return rapid.OneOf(rapid.Uint64Range(0, 1000), rapid.Just(uint64(math.MaxUint64)), rapid.Uint64()).Draw(t, name)
	}
	for _, f := range s.fields()[1:] {
		for i := range f {
			if rapid.Bool().Draw(t, "counted") {
				f[i] = draw("count")
			}
		}
	}
	s.Items = draw("items")
	return s
})

func merged(all ...Sketch) Sketch {
	var out Sketch
	for _, s := range all {
		out.Merge(s)
	}
	return out
}

// TestMergeKnowsNoOrder: boxes, hours and parts of hours may be merged as they
// come.
func TestMergeKnowsNoOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := sketches.Draw(t, "a"), sketches.Draw(t, "b"), sketches.Draw(t, "c")
		if merged(a, b) != merged(b, a) {
			t.Fatal("a and b is not b and a")
		}
		if merged(merged(a, b), c) != merged(a, merged(b, c)) {
			t.Fatal("(a, b), c is not a, (b, c)")
		}
		if merged(a, Sketch{}) != a {
			t.Fatal("an empty sketch changes a")
		}
	})
}

// TestMergeIsWhatOneSketchWouldHaveCounted, however the stretch is divided.
func TestMergeIsWhatOneSketchWouldHaveCounted(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var whole Sketch
	parts := make([]Sketch, 5)
	for range 1000 {
		part := &parts[rng.IntN(len(parts))]
		for _, s := range []*Sketch{&whole, part} {
			r := rand.New(rand.NewPCG(whole.Items, 3))
			s.Answer(r.Float64(), r.Float64(), r.IntN(40)-1)
			s.Frame(r.Float64()*255, r.Float64()*30000)
		}
		found := rng.IntN(50)
		whole.Item(found)
		part.Item(found)
	}
	if merged(parts...) != whole || whole.Items != 1000 {
		t.Errorf("parts %v, whole %v", merged(parts...), whole)
	}
}

func TestBinsByHand(t *testing.T) {
	var s Sketch
	for _, score := range []float64{0, 0.049, 0.05, 0.999, 1, 7, -1, math.NaN(), math.Inf(1)} {
		s.Answer(score, math.NaN(), -1)
	}
	if s.Score[0] != 4 || s.Score[1] != 1 || s.Score[19] != 4 || total(s.Entropy[:]) != 0 || total(s.Class[:]) != 0 {
		t.Errorf("scores %v", s.Score)
	}
	for found, want := range map[int]int{0: 0, 1: 1, 2: 2, 3: 3, 4: 3, 5: 4, 8: 4, 9: 5, 16: 5, 17: 6, 32: 6, 33: 7, 9999: 7} {
		var s Sketch
		s.Item(found)
		if s.Found[want] != 1 {
			t.Errorf("%d findings: %v, want bin %d", found, s.Found, want)
		}
	}
	for sharpness, want := range map[float64]int{0: 0, 0.9: 0, 1: 1, 2: 2, 3.9: 2, 100: 7, 16384: 15, 1e9: 15, math.Inf(1): 15, math.NaN(): 0} {
		var s Sketch
		s.Frame(255, sharpness)
		if s.Sharpness[want] != 1 || s.Brightness[15] != 1 {
			t.Errorf("sharpness %v: %v, want bin %d", sharpness, s.Sharpness, want)
		}
	}
	s = Sketch{}
	s.Answer(0, 1, 31)
	s.Answer(0, 0, 5000)
	if s.Class[31] != 2 || s.Entropy[9] != 1 || s.Entropy[0] != 1 {
		t.Errorf("classes %v, entropy %v", s.Class, s.Entropy)
	}
}

// TestShiftsTellALensFromTheWorld: the aspects that changed, and only those.
func TestShiftsTellALensFromTheWorld(t *testing.T) {
	week := func(seed uint64, score, light, sharp float64, n int) Sketch {
		rng := rand.New(rand.NewPCG(seed, 7))
		var s Sketch
		for range n {
			s.Item(rng.IntN(3))
			s.Answer(score+rng.NormFloat64()*0.05, math.NaN(), rng.IntN(3))
			s.Frame(light+rng.NormFloat64()*10, sharp*math.Exp(rng.NormFloat64()*0.3))
		}
		return s
	}
	reference := week(1, 0.9, 120, 800, 5000)
	for _, tt := range []struct {
		name    string
		current Sketch
		moved   map[string]bool
	}{
		{"another day", week(2, 0.9, 120, 800, 500), nil},
		{"a soiled lens", week(3, 0.9, 120, 60, 500), map[string]bool{"sharpness": true}},
		{"a changed world", week(4, 0.6, 120, 800, 500), map[string]bool{"score": true}},
		{"the lamp is out", week(5, 0.9, 30, 800, 500), map[string]bool{"brightness": true}},
	} {
		for _, s := range Compare(reference, tt.current) {
			if moved := s.PSI > 0.25; moved != tt.moved[s.Aspect] || !s.Telling() {
				t.Errorf("%s: %+v, want a move %v", tt.name, s, tt.moved[s.Aspect])
			}
			if tt.moved[s.Aspect] && s.JensenShannon < 0.2 || s.JensenShannon > 1 {
				t.Errorf("%s: %+v", tt.name, s)
			}
		}
	}
	if got := Compare(reference, Sketch{}); got != nil {
		t.Errorf("nothing seen: %v", got)
	}
	if s := Compare(reference, week(6, 0.1, 10, 1, 20)); s[0].Telling() {
		t.Error("twenty items tell")
	}
}

func TestHourFitsTheLine(t *testing.T) {
	var s Sketch
	for i := range 3600 {
		s.Item(i % 4)
		s.Answer(float64(i%100)/100, float64(i%10)/10, i%40)
		s.Frame(float64(i%256), float64(i))
	}
	if n := len(s.Text()); n > 300 {
		t.Errorf("an hour of one item a second has %d bytes as text, want at most 300", n)
	}
	if got, err := Parse(s.Text()); err != nil || got != s {
		t.Errorf("parsed %+v, %v", got, err)
	}
	for _, bad := range []string{"", "AA", "AQ", s.Text() + "AAAA", s.Text()[:50], "not base64!", "Ag" + s.Text()[2:]} {
		if got, err := Parse(bad); err == nil || got != (Sketch{}) {
			t.Errorf("%.10q: accepted", bad)
		}
	}
}

// FuzzDecode: what decodes encodes to the same bytes, so that a sketch has one
// form; an error brings no sketch.
func FuzzDecode(f *testing.F) {
	var s Sketch
	s.Item(3)
	s.Answer(0.5, 0.5, 2)
	f.Add(s.Encode())
	f.Add(Sketch{}.Encode())
	f.Add([]byte{Version, 0x80, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Decode(data)
		if err != nil {
			if s != (Sketch{}) {
				t.Fatal("a sketch with an error")
			}
			return
		}
		if again := s.Encode(); !bytes.Equal(again, data) {
			t.Fatalf("%x became %x", data, again)
		}
	})
}

// TestCheckKnowsWhatAnHourCanHold: what Answer, Item and Frame counted passes,
// also merged; what was made up does not.
func TestCheckKnowsWhatAnHourCanHold(t *testing.T) {
	var good Sketch
	for i := range 3600 {
		good.Item(i % 5)
		good.Answer(0.5, float64(i%2)/0, -1+i%3)
		good.Answer(0.5, math.NaN(), 3)
		good.Frame(float64(i%256), float64(i))
	}
	for name, s := range map[string]Sketch{"empty": {}, "an hour": good, "two parts": merged(good, good)} {
		if err := s.Check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, spoil := range map[string]func(*Sketch){
		"items":      func(s *Sketch) { s.Items, s.Found[0] = MaxItems+1, s.Found[0]+MaxItems+1-s.Items },
		"found":      func(s *Sketch) { s.Found[3]++ },
		"overflow":   func(s *Sketch) { s.Found[3], s.Found[4] = math.MaxUint64, 2 },
		"answers":    func(s *Sketch) { s.Score[0] = 1 << 40 },
		"entropy":    func(s *Sketch) { s.Entropy[0] = 8000 },
		"class":      func(s *Sketch) { s.Class[31] = math.MaxUint64 },
		"brightness": func(s *Sketch) { s.Brightness[0], s.Sharpness[0] = 4000, 4000 },
		"sharpness":  func(s *Sketch) { s.Sharpness[0]++ },
	} {
		bad := good
		if spoil(&bad); bad.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
