package wdelta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models/container"
)

// A weights file of the tests: safetensors with tensors of one type. The next
// version of it has all weights moved by about rel of their size.
type weights struct {
	dtype   string
	tensors int
	n       int // elements of each
	row     int // of a matrix: elements of a row; all rows move alike
	seed    uint64
}

func (w weights) size() int {
	return map[string]int{"F32": 4, "F16": 2, "BF16": 2, "I8": 1, "F64": 8, "I16": 2}[w.dtype]
}

// file is version v: 0 is the base, v > 0 has moved v times.
func (w weights) file(v int, rel float64) []byte {
	rng := rand.New(rand.NewPCG(w.seed, 1))
	step := rand.New(rand.NewPCG(w.seed, 2))
	var header strings.Builder
	var data []byte
	for i := range w.tensors {
		n, shape := w.n+i, fmt.Sprint(w.n+i)
		if w.row > 0 {
			n -= n % w.row
			shape = fmt.Sprintf("%d,%d", n/w.row, w.row)
		}
		fmt.Fprintf(&header, `%q:{"dtype":%q,"shape":[%s],"data_offsets":[%d,%d]},`, fmt.Sprint("layer.", i), w.dtype, shape, len(data), len(data)+n*w.size())
		for j := range n {
			if w.row > 0 && j%w.row == 0 {
				step = rand.New(rand.NewPCG(w.seed, 2))
			}
			x := rng.NormFloat64() * 0.05
			for range v {
				x += step.NormFloat64() * 0.05 * rel
			}
			data = w.append(data, x)
		}
	}
	head := "{" + header.String() + fmt.Sprintf(`"__metadata__":{"version":"%d"}}`, v)
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...), data...)
}

func (w weights) append(b []byte, x float64) []byte {
	switch w.dtype {
	case "F32":
		return binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(x)))
	case "BF16":
		return binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(float32(x))>>16))
	case "F16": // normal numbers only
		bits := math.Float32bits(float32(x))
		e := int(bits>>23&255) - 112
		if e <= 0 {
			return binary.LittleEndian.AppendUint16(b, uint16(bits>>16&0x8000))
		}
		return binary.LittleEndian.AppendUint16(b, uint16(bits>>16&0x8000|uint32(e)<<10|bits>>13&0x3ff))
	case "F64":
		return binary.LittleEndian.AppendUint64(b, math.Float64bits(x))
	case "I16":
		return binary.LittleEndian.AppendUint16(b, uint16(int16(x*4000)))
	}
	return append(b, byte(int8(max(-128, min(127, x*600)))))
}

func source(b []byte) Source {
	if b == nil {
		return nil
	}
	return bytes.NewReader(b)
}

func mustEncode(t testing.TB, base, target []byte, o Options) ([]byte, Stats) {
	t.Helper()
	var out bytes.Buffer
	stats, err := Encode(t.Context(), source(base), bytes.NewReader(target), &out, o)
	if err != nil {
		t.Fatal(err)
	}
	if stats.WireBytes != int64(out.Len()) || stats.TargetBytes != int64(len(target)) {
		t.Fatalf("stats say %d of %d bytes, it is %d of %d", stats.WireBytes, stats.TargetBytes, out.Len(), len(target))
	}
	return out.Bytes(), stats
}

func decode(base, delta []byte) ([]byte, error) {
	var out bytes.Buffer
	_, err := Decode(context.Background(), source(base), bytes.NewReader(delta), &out)
	return out.Bytes(), err
}

func mustDecode(t testing.TB, base, delta, want []byte) {
	t.Helper()
	got, err := decode(base, delta)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("the result is not the target")
	}
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b) // never fails
	return b
}

func TestWhatIsDecodedIsTheTarget(t *testing.T) {
	f32 := weights{dtype: "F32", tensors: 3, n: 30_001}
	base, next := f32.file(0, 0), f32.file(1, 1e-3)
	shifted := append(random(1, 300), base[:200_000]...)
	for _, tc := range []struct {
		name         string
		base, target []byte
		most         float64 // of the target, on the wire
	}{
		{"nothing", nil, nil, 0},
		{"nothing from something", base, nil, 0},
		{"something from nothing", []byte{}, next, 0.9},
		{"one byte", []byte{1}, []byte{2}, 1000},
		{"a file again", base, base, 0.001},
		{"fp32 moved", base, next, 0.58},
		{"fp32 cold", nil, next, 0.86},
		{"no container, shifted", base[300:], shifted, 0.04},
		{"no container, moved", base[1000:], next[1000:], 0.58},
		{"noise", random(2, 600_000), random(3, 600_000), 1.001},
		{"zeros", nil, make([]byte, 600_000), 0.001},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, o := range []Options{{}, {Coder: Fast, Workers: 3}} {
				delta, stats := mustEncode(t, tc.base, tc.target, o)
				mustDecode(t, tc.base, delta, tc.target)
				t.Logf("ratio %.4f, %+v", stats.Ratio(), stats.Methods)
				if tc.most > 0 && o.Coder == Smallest && stats.Ratio() > tc.most {
					t.Errorf("ratio %.4f, want at most %.4f: %+v", stats.Ratio(), tc.most, stats)
				}
			}
		})
	}
}

func TestEveryTypeShrinksByItsKind(t *testing.T) {
	for _, tc := range []struct {
		dtype       string
		moved, cold float64
	}{
		{"F32", 0.56, 0.86}, {"F16", 0.30, 0.86}, {"BF16", 0.15, 0.70}, {"I8", 0.10, 0.88}, {"I16", 0.15, 0.65}, {"F64", 0.80, 0.93},
	} {
		w := weights{dtype: tc.dtype, tensors: 2, n: 30_000, seed: 7}
		base, next := w.file(0, 0), w.file(1, 1e-3)
		delta, moved := mustEncode(t, base, next, Options{})
		mustDecode(t, base, delta, next)
		pack, cold := mustEncode(t, nil, next, Options{})
		mustDecode(t, nil, pack, next)
		t.Logf("%s: moved %.4f, cold %.4f", tc.dtype, moved.Ratio(), cold.Ratio())
		if moved.Ratio() > tc.moved || cold.Ratio() > tc.cold {
			t.Errorf("%s: moved %.4f, cold %.4f, want at most %.2f and %.2f", tc.dtype, moved.Ratio(), cold.Ratio(), tc.moved, tc.cold)
		}
	}
}

func TestADeltaIsNeverMuchWorseThanTheColdPack(t *testing.T) {
	for _, dtype := range []string{"F32", "F16", "BF16", "I8"} {
		a := weights{dtype: dtype, tensors: 2, n: 60_000, seed: 1}.file(0, 0)
		b := weights{dtype: dtype, tensors: 2, n: 60_000, seed: 2}.file(0, 0)
		_, delta := mustEncode(t, a, b, Options{})
		_, cold := mustEncode(t, nil, b, Options{})
		if float64(delta.WireBytes) > 1.001*float64(cold.WireBytes) {
			t.Errorf("%s: a delta of %d bytes, a cold pack of %d", dtype, delta.WireBytes, cold.WireBytes)
		}
		if Worth(delta.WireBytes, cold.WireBytes) {
			t.Errorf("%s: a delta that saves nothing is called worth its while", dtype)
		}
	}
	if !Worth(80, 100) || Worth(81, 100) {
		t.Error("the bound is not 0.8")
	}
}

func TestAPartThatWasTrainedAnewIsCodedByItself(t *testing.T) {
	w := weights{dtype: "F16", tensors: 1, n: 1 << 20, seed: 17}
	base, target := w.file(0, 0), w.file(1, 1e-3)
	other := weights{dtype: "F16", tensors: 1, n: 1 << 19, seed: 18}.file(0, 0)
	copy(target[len(target)-FrameBytes:], other[len(other)-FrameBytes:])
	delta, stats := mustEncode(t, base, target, Options{})
	mustDecode(t, base, delta, target)
	if moved := stats.Methods["ctx"].Target + stats.Methods["local"].Target; moved < FrameBytes*9/10 || moved > FrameBytes*11/10 {
		t.Errorf("of 2 MiB, %d bytes were coded as moves, want 1 MiB: %+v", moved, stats.Methods)
	}
}

func TestRenamedAndReorderedTensorsAreFound(t *testing.T) {
	w := weights{dtype: "F32", tensors: 6, n: 50_000, seed: 3}
	base := w.file(0, 0)
	n := int64(binary.LittleEndian.Uint64(base))
	data := base[8+n:]
	cut := 4 * (50_000 + 50_001)
	// The same tensors in another order under other names.
	var file []byte
	var b strings.Builder
	b.WriteByte('{')
	moved := append(bytes.Clone(data[cut:]), data[:cut]...)
	at := 0
	for _, i := range []int{2, 3, 4, 5, 0, 1} {
		k := 4 * (50_000 + i)
		fmt.Fprintf(&b, `"x%d":{"dtype":"F32","shape":[%d],"data_offsets":[%d,%d]},`, i, k/4, at, at+k)
		at += k
	}
	head := []byte(b.String() + `"__metadata__":{}}`)
	file = append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...), moved...)
	delta, stats := mustEncode(t, base, file, Options{})
	mustDecode(t, base, delta, file)
	if stats.Same != 6 || stats.Ratio() > 0.002 {
		t.Errorf("ratio %.4f, %+v", stats.Ratio(), stats)
	}
}

func TestDamageIsNamedAndNeverBecomesAWrongFile(t *testing.T) {
	w := weights{dtype: "F16", tensors: 2, n: 40_000, seed: 5}
	base, target := w.file(0, 0), w.file(1, 1e-3)
	delta, _ := mustEncode(t, base, target, Options{})
	seed := assets.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	for range 60 {
		at, bit := rng.IntN(len(delta)), rng.IntN(8)
		if rng.IntN(2) == 0 {
			at = rng.IntN(300)
		}
		bad := bytes.Clone(delta)
		bad[at] ^= 1 << bit
		if _, err := decode(base, bad); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
			t.Fatalf("seed %d: bit %d of byte %d of %d flipped: %v", seed, bit, at, len(delta), err)
		}
	}
	for _, n := range []int{0, 1, 8, 50, 95, 99, 120, headerBytes + 100, len(delta) / 2, len(delta) - headBytes, len(delta) - 1} {
		if _, err := decode(base, delta[:n]); !errors.Is(err, ErrTruncated) && !(n < len(magic) && errors.Is(err, ErrFormat)) {
			t.Errorf("cut to %d of %d bytes: %v", n, len(delta), err)
		}
	}
}

func TestAWrongBaseIsNamed(t *testing.T) {
	w := weights{dtype: "F32", tensors: 3, n: 100_000, seed: 6}
	base, target := w.file(0, 0), w.file(1, 1e-3)
	delta, _ := mustEncode(t, base, target, Options{})
	other := bytes.Clone(base)
	other[len(other)/2] ^= 1
	for name, b := range map[string][]byte{"another": other, "shorter": base[:len(base)-1], "none": nil} {
		if _, err := decode(b, delta); !errors.Is(err, ErrBase) {
			t.Errorf("%s base: %v", name, err)
		}
	}
}

// memory is a Part in memory.
type memory struct{ b []byte }

func (m *memory) ReadAt(b []byte, off int64) (int, error) {
	if off >= int64(len(m.b)) {
		return 0, io.EOF
	}
	return copy(b, m.b[off:]), nil
}

func (m *memory) WriteAt(b []byte, off int64) (int, error) {
	if n := off + int64(len(b)); n > int64(len(m.b)) {
		m.b = append(m.b, make([]byte, n-int64(len(m.b)))...)
	}
	return copy(m.b[off:], b), nil
}

func TestApplyGoesOnWhereItWasStopped(t *testing.T) {
	target := random(9, 5<<20)
	delta, stats := mustEncode(t, nil, target, Options{Coder: Fast})
	if stats.Frames < 5 {
		t.Fatalf("%d frames are too few for this test", stats.Frames)
	}
	part := &memory{}
	apply := func(d []byte) (Applied, error) {
		return Apply(t.Context(), nil, bytes.NewReader(d), part)
	}
	if _, err := apply(delta[:len(delta)*2/3]); !errors.Is(err, ErrTruncated) {
		t.Fatalf("the first part of it: %v", err)
	}
	had := int64(len(part.b))
	part.b[len(part.b)/3] ^= 4 // power was lost: a page is not what it was
	a, err := apply(delta)
	if err != nil || !bytes.Equal(part.b, target) {
		t.Fatalf("%+v, %v", a, err)
	}
	if want := had - FrameBytes; a.KeptBytes != want || a.KeptBytes+a.MadeBytes != int64(len(target)) {
		t.Errorf("kept %d and made %d, want %d kept", a.KeptBytes, a.MadeBytes, want)
	}
	if a, err = apply(delta); err != nil || a.MadeBytes != 0 {
		t.Errorf("all there: %+v, %v", a, err)
	}
}

func TestFramesDecodeInAnyOrderByTheIndex(t *testing.T) {
	w := weights{dtype: "F16", tensors: 2, n: 600_000, seed: 9}
	base, target := w.file(0, 0), w.file(1, 1e-3)
	delta, _ := mustEncode(t, base, target, Options{Coder: Fast})
	var buf bytes.Buffer
	made, err := WriteIndex(bytes.NewReader(delta), &buf)
	if err != nil {
		t.Fatal(err)
	}
	ix, err := ReadIndex(bytes.NewReader(buf.Bytes()))
	if err != nil || ix.Digest != made.Digest || ix.Header.Target != blob.Sum(target) {
		t.Fatalf("%v, digest %s, want %s", err, ix.Digest, made.Digest)
	}
	d, err := NewDecoder(ix.Header, source(base))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	part := &memory{}
	for i := len(ix.Frames) - 1; i >= 0; i-- {
		f := ix.Frames[i]
		out, err := d.Frame(f, delta[f.WireOff:][:f.WireLen])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = part.WriteAt(out, f.Off) // memory
	}
	if !bytes.Equal(part.b, target) {
		t.Error("the result is not the target")
	}
	if _, err := d.Frame(ix.Frames[0], delta[ix.Frames[1].WireOff:][:ix.Frames[1].WireLen]); !errors.Is(err, ErrCorrupt) {
		t.Errorf("the payload of another frame: %v", err)
	}
}

func TestACancelledContextEndsTheWork(t *testing.T) {
	w := weights{dtype: "F32", tensors: 2, n: 1000}
	base, target := w.file(0, 0), w.file(1, 1e-3)
	delta, _ := mustEncode(t, base, target, Options{Coder: Fast})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Encode(ctx, source(base), bytes.NewReader(target), io.Discard, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("encode: %v", err)
	}
	if _, err := Decode(ctx, source(base), bytes.NewReader(delta), io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("decode: %v", err)
	}
}

func TestProgressReachesTheWhole(t *testing.T) {
	target := random(1, 2_500_000)
	var seen []int64
	mustEncode(t, nil, target, Options{Workers: 2, Progress: func(done, total int64) { seen = append(seen, done, total) }})
	if n := len(seen); n != 6 || seen[n-2] != int64(len(target)) || seen[n-1] != int64(len(target)) {
		t.Errorf("got %v", seen)
	}
}

func TestQuantisedWeightsCostAFraction(t *testing.T) {
	for _, tc := range []struct {
		dtype          string
		most, mistaken float64
	}{{"F32", 0.13, 0.1}, {"F16", 0.22, 0.1}, {"BF16", 0.09, 0.1}} {
		w := weights{dtype: tc.dtype, tensors: 2, n: 50_000, seed: 14}
		base, trained := w.file(0, 0), w.file(1, 1e-3)
		var out bytes.Buffer
		q, err := Quantise(t.Context(), bytes.NewReader(base), bytes.NewReader(trained), &out, QuantiseOptions{})
		if err != nil {
			t.Fatal(err)
		}
		published := out.Bytes()
		if len(q) != 2 || q[0].Weights != 50_000 || q[0].Bits > 8 || q[0].RelativeError > tc.mistaken {
			t.Errorf("%s: %+v", tc.dtype, q)
		}
		delta, stats := mustEncode(t, base, published, Options{})
		mustDecode(t, base, delta, published)
		_, whole := mustEncode(t, base, trained, Options{})
		t.Logf("%s: %.4f instead of %.4f, error %.3f", tc.dtype, stats.Ratio(), whole.Ratio(), q[0].RelativeError)
		if stats.Ratio() > tc.most {
			t.Errorf("%s: ratio %.4f, want at most %.2f: %+v", tc.dtype, stats.Ratio(), tc.most, stats)
		}
	}
}

func TestQuantiseLeavesAloneWhatItCannotMove(t *testing.T) {
	w := weights{dtype: "F32", tensors: 2, n: 1000, seed: 15}
	base := w.file(0, 0)
	odd := bytes.Clone(w.file(1, 1e-3))
	binary.LittleEndian.PutUint32(odd[len(odd)-4:], 0x7fc00001) // no number
	for name, target := range map[string][]byte{"the same": base, "no number": odd, "integers": weights{dtype: "I8", tensors: 1, n: 100}.file(0, 0)} {
		var out bytes.Buffer
		from := base
		if name == "integers" {
			from = weights{dtype: "I8", tensors: 1, n: 100}.file(1, 1)
		}
		q, err := Quantise(t.Context(), bytes.NewReader(from), bytes.NewReader(target), &out, QuantiseOptions{Levels: 4})
		if err != nil || out.Len() != len(target) {
			t.Fatalf("%s: %v, %d bytes", name, err, out.Len())
		}
		if got, want := len(q), map[string]int{"no number": 1}[name]; got != want {
			t.Errorf("%s: %d tensors were moved, want %d", name, got, want)
		}
	}
	for _, levels := range []float64{-1, 0.1, 5000, math.NaN(), math.Inf(1)} {
		if _, err := Quantise(t.Context(), bytes.NewReader(base), bytes.NewReader(base), io.Discard, QuantiseOptions{Levels: levels}); err == nil {
			t.Errorf("%v levels are taken", levels)
		}
	}
}

func TestHalvesRoundToNearest(t *testing.T) {
	for h := range 1 << 16 {
		b := binary.LittleEndian.AppendUint16(nil, uint16(h))
		v := elemF16.get(b)
		if elemF16.put(b, v); binary.LittleEndian.Uint16(b) != uint16(h) && v == v {
			t.Fatalf("%#x comes back as %#x", h, binary.LittleEndian.Uint16(b))
		}
	}
	for _, tc := range []struct {
		v    float32
		want uint16
	}{{65519.9, 0x7bff}, {65520, 0x7c00}, {1e30, 0x7c00}, {-1e30, 0xfc00}, {1 + 1.0/2048, 0x3c00}, {1 + 3.0/2048, 0x3c02}, {0x1p-25, 0}, {0x1.8p-25, 1}, {0x1.ff8p-15, 0x3ff}, {0x1.ffcp-15, 0x400}} {
		if got := halfOf(tc.v, false); got != tc.want {
			t.Errorf("%g is %#x, want %#x", tc.v, got, tc.want)
		}
	}
}

// onnxOf is an ONNX file whose tensors lie in a second file called data.
func onnxOf(dtype uint64, names []string, each int) []byte {
	msg := func(num protowire.Number, content ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), bytes.Join(content, nil))
	}
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	entry := func(key, value string) []byte { return msg(13, msg(1, []byte(key)), msg(2, []byte(value))) }
	var graph []byte
	for i, name := range names {
		graph = append(graph, msg(5, num(1, uint64(each/4)), num(2, dtype), msg(8, []byte(name)), num(14, 1),
			entry("location", "data"), entry("offset", fmt.Sprint(i*each)), entry("length", fmt.Sprint(each)))...)
	}
	return append(num(1, 8), msg(7, graph)...)
}

func TestExternalDataIsPairedByItsModel(t *testing.T) {
	w := weights{dtype: "F32", tensors: 1, n: 100_000, seed: 16}
	data := func(b []byte) []byte { return b[len(b)-400_000:] }
	base, next := data(w.file(0, 0)), data(w.file(1, 1e-3))
	// The halves change places: only names tell where they went.
	target := append(bytes.Clone(next[200_000:]), next[:200_000]...)
	layout := func(names ...string) []container.Tensor {
		file := onnxOf(1, names, 200_000)
		l, err := container.Read(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			t.Fatal(err)
		}
		return l.Spans("data")
	}
	delta, stats := mustEncode(t, base, target, Options{BaseTensors: layout("a", "b"), TargetTensors: layout("b", "a")})
	mustDecode(t, base, delta, target)
	if stats.Named != 2 || stats.Ratio() > 0.56 {
		t.Errorf("ratio %.4f, %+v", stats.Ratio(), stats)
	}
	if _, err := Encode(t.Context(), source(base[:1000]), bytes.NewReader(target), io.Discard, Options{BaseTensors: layout("a")}); err == nil {
		t.Error("tensors outside of the file are taken")
	}
}

// Whatever the two files are, the delta makes the second from the first.
func FuzzEncode(f *testing.F) {
	for _, v := range vectors() {
		f.Add(v.base, v.target)
	}
	model := onnxOf(1, []string{"a", "b"}, 64)
	f.Add(model, append(bytes.Clone(model), 1, 2, 3))
	f.Add(random(1, 9000), random(1, 9000)[100:])
	f.Fuzz(func(t *testing.T, base, target []byte) {
		delta, _ := mustEncode(t, base, target, Options{})
		mustDecode(t, base, delta, target)
	})
}
