package serve

import (
	"encoding/binary"
	"encoding/json"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// checkNumber compares everything scanNumber says of text with strconv and
// encoding/json.
func checkNumber(t *testing.T, text string) {
	t.Helper()
	d, end := scanNumber([]byte(text), 0)
	// json.Valid is the grammar; a number followed by anything else is cut there.
	valid := text != "" && json.Valid([]byte(text)) && strings.ContainsAny(text[:1], "-0123456789") && !strings.ContainsAny(text, " \t\r\n")
	if valid != (end == len(text) && end > 0) {
		t.Fatalf("scanNumber(%q) ends at %d, JSON says valid=%v", text, end, valid)
	}
	if !valid {
		return
	}
	want64, err := strconv.ParseFloat(text, 64)
	got64, ok := d.float64([]byte(text))
	if ok != (err == nil) || ok && math.Float64bits(got64) != math.Float64bits(want64) {
		t.Fatalf("float64(%q) = %v, %v; strconv says %v, %v", text, got64, ok, want64, err)
	}
	wide, err := strconv.ParseFloat(text, 32)
	got32, ok := d.float32([]byte(text))
	if ok != (err == nil) || ok && math.Float32bits(got32) != math.Float32bits(float32(wide)) {
		t.Fatalf("float32(%q) = %v, %v; strconv says %v, %v", text, got32, ok, wide, err)
	}
	for _, width := range []int{8, 16, 32, 64} {
		wantI, err := strconv.ParseInt(text, 10, width)
		gotI, ok := d.signed(math.MaxInt64 >> (64 - width))
		if ok != (err == nil) || ok && gotI != wantI {
			t.Fatalf("signed(%q, %d bits) = %v, %v; strconv says %v, %v", text, width, gotI, ok, wantI, err)
		}
		wantU, err := strconv.ParseUint(strings.TrimPrefix(text, "-"), 10, width)
		negative := strings.HasPrefix(text, "-") && wantU != 0
		gotU, ok := d.unsigned([]byte(text), math.MaxUint64>>(64-width))
		if ok != (err == nil && !negative) || ok && gotU != wantU {
			t.Fatalf("unsigned(%q, %d bits) = %v, %v; strconv says %v, %v", text, width, gotU, ok, wantU, err)
		}
	}
}

func numberSeeds() []string {
	return []string{
		"0", "-0", "1", "-1", "01", "-", "", ".5", "5.", "1.5", "1e5", "1E+5", "1e-5", "1e", "1e+", "+1", "0x1p3", "1_0", "Infinity", "NaN",
		"0.1", "0.3", "123456789012345678", "1234567890123456789", "12345678901234567890",
		"18446744073709551615", "18446744073709551616", "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
		"127", "128", "-128", "-129", "255", "256", "65535", "65536", "4294967295", "4294967296",
		"3.4028234663852886e38", "3.4028235e38", "3.4028236e38", "3.40282357e38", "1e39", "1e308", "1.8e308", "1e400", "1e-400", "1e99999999999999999999",
		"1.1754943508222875e-38", "1.17549435e-38", "1.1754942e-38", "1e-45", "7e-46", "7.1e-46", "5e-324", "2e-324",
		// Halfway between two float32: 1+2^-24, and a breath above and below.
		"1.000000059604644775390625", "1.000000059604644775390626", "1.000000059604644775390624",
		"16777217", "16777219", "16777217.000000001", "16777216.999999999", "9007199254740993", "9007199791611905",
		"0.000000000000000000000000000000000000011754943508222875", "100000000000000000000000", "1.0000000000000000000000000000000001",
	}
}

func TestNumbersAreThoseOfStrconv(t *testing.T) {
	for _, s := range numberSeeds() {
		checkNumber(t, s)
	}
	const seed = 20260101
	r := rand.New(rand.NewPCG(seed, 1))
	for range 20_000 {
		bits := r.Uint32()
		f := float64(math.Float32frombits(bits))
		if f-f != 0 {
			continue
		}
		next := float64(math.Nextafter32(float32(f), 0))
		for _, s := range []string{
			strconv.FormatFloat(f, 'g', -1, 32), strconv.FormatFloat(f, 'f', 6, 64), strconv.FormatFloat(f, 'g', 17, 64),
			strconv.FormatFloat((f+next)/2, 'g', -1, 64), // halfway
			strconv.FormatFloat((f+next)/2, 'e', 30, 64),
		} {
			checkNumber(t, s)
		}
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func FuzzNumber(f *testing.F) {
	for _, s := range numberSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkNumber(t, s) })
}

func BenchmarkDecodeFP32(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	values := make([]string, 27648) // a 3×48×192 image
	for i := range values {
		values[i] = strconv.FormatFloat(r.Float64()*2-1, 'g', -1, 32)
	}
	request := []byte(`{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3,48,192],"data":[` + strings.Join(values, ",") + `]}]}`)
	b.SetBytes(int64(len(request)))
	b.Run("one-pass", func(b *testing.B) {
		var arena []byte
		for range b.N {
			d := decoder{arena: arena[:0], reserve: func(int64) error { return nil }}
			if err := d.decode(request, nil); err != nil {
				b.Fatal(err)
			}
			arena = d.arena
		}
	})
	b.Run("encoding-json", func(b *testing.B) {
		for range b.N {
			var v struct {
				Inputs []struct {
					Data []float32 `json:"data"`
				} `json:"inputs"`
			}
			if err := json.Unmarshal(request, &v); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestPlainFloatsAreThoseOfStrconv writes numbers in every common form and
// compares each with the nearest float32.
func TestPlainFloatsAreThoseOfStrconv(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var texts []string
	for range 20000 {
		v := (random.Float64()*2 - 1) * math.Pow(10, float64(random.IntN(16)-8))
		texts = append(texts, strconv.FormatFloat(v, 'f', random.IntN(12), 64), strconv.FormatFloat(v, 'g', 1+random.IntN(17), 32))
	}
	texts = append(texts, "0", "-0", "-0.0", "16777217", "16777219", "0.5000000298023224", "123456789012345", "1234567890123456")
	for _, sep := range []string{",", ", ", " ,\n"} {
		d := decoder{reserve: func(int64) error { return nil }}
		d.buf = []byte("[" + strings.Join(texts, sep) + "]")
		if err := d.floats(); err != nil || d.pos != len(d.buf) || d.count != int64(len(texts)) {
			t.Fatalf("separator %q: %v at %d of %d, %d numbers", sep, err, d.pos, len(d.buf), d.count)
		}
		for i, text := range texts {
			want, err := strconv.ParseFloat(text, 32)
			if err != nil {
				t.Fatal(err)
			}
			if got := binary.LittleEndian.Uint32(d.arena[4*i:]); got != math.Float32bits(float32(want)) {
				t.Fatalf("separator %q: %s is %x, want %x", sep, text, got, math.Float32bits(float32(want)))
			}
		}
	}
	for _, bad := range []string{"[1,]", "[01]", "[1.]", "[.5]", "[-]", "[1,,2]", "[1 2]", "[1,2", "[--1]", "[1,-]"} {
		d := decoder{reserve: func(int64) error { return nil }}
		d.buf = []byte(bad)
		if err := d.floats(); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}
