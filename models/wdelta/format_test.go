package wdelta

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"hash/crc32"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
)

var update = flag.Bool("update", false, "write the test vectors anew")

// vector is a pair of files and how its delta in testdata was made. They are
// small and use every kind and method. Those deltas stay decodable for ever;
// what an encoder makes of the same files may change.
type vector struct {
	base, target []byte
	options      Options
}

func vectors() map[string]vector {
	w := weights{dtype: "F32", tensors: 3, n: 40, seed: 11}
	h := weights{dtype: "BF16", tensors: 2, n: 300, seed: 12}
	q := weights{dtype: "I8", tensors: 2, n: 1000, row: 25, seed: 13}
	f := weights{dtype: "F16", tensors: 2, n: 400, seed: 14}
	m := weights{dtype: "BF16", tensors: 1, n: 1200, row: 40, seed: 15}
	const step = 0x1p-16
	return map[string]vector{
		"fp32":     {w.file(0, 0), w.file(1, 1e-3), Options{}},
		"bf16":     {h.file(0, 0), h.file(1, 1e-3), Options{}},
		"rows":     {m.file(0, 0), m.file(1, 3e-2), Options{}},
		"local":    {f.file(0, 0), shrunk(f.file(0, 0)), Options{}},
		"int8":     {q.file(0, 0), q.file(1, 1e-2), Options{}},
		"step":     {w.file(0, 0), quantised(w.file(0, 0), w.file(1, 1e-3), step), Options{}},
		"subplane": {f.file(0, 0), f.file(1, 1e-3), Options{Coder: Fast}},
		"cold":     {nil, h.file(0, 0), Options{}},
		"plane":    {nil, h.file(0, 0), Options{Coder: Fast}},
		"raw":      {random(1, 100), random(2, 100), Options{}},
		"copy":     {h.file(0, 0), h.file(1, 0), Options{}},
	}
}

// quantised moves every fp32 of target to a whole number of steps from base.
func quantised(base, target []byte, step float32) []byte {
	out := bytes.Clone(target)
	for i := 8 + int(binary.LittleEndian.Uint64(base)); i < len(out); i += 4 {
		from := elemF32.get(base[i:])
		elemF32.put(out[i:], elemF32.plus(from, step, steps(elemF32.get(target[i:]), from, step)))
	}
	return out
}

// shrunk takes from every fp16 of base a part of its own size.
func shrunk(base []byte) []byte {
	out, rng := bytes.Clone(base), rand.New(rand.NewPCG(16, 0))
	for i := 8 + int(binary.LittleEndian.Uint64(base)); i < len(out); i += 2 {
		elemF16.put(out[i:], elemF16.get(base[i:])*rng.Float32())
	}
	return out
}

func TestDeltasOfReleasedVersionsDecode(t *testing.T) {
	used := map[string]bool{}
	for name, v := range vectors() {
		stored := func(kind string, made []byte) []byte {
			path := filepath.Join("testdata", name+kind)
			if *update {
				if err := os.WriteFile(path, made, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		delta, stats := mustEncode(t, v.base, v.target, v.options)
		for m := range stats.Methods {
			used[m] = true
		}
		var base []byte
		if v.base != nil {
			base = stored(".base", v.base)
		}
		mustDecode(t, base, stored(".wdelta", delta), stored(".target", v.target))
	}
	for m := range methodEnd {
		if !used[m.String()] {
			t.Errorf("no vector uses %s", m)
		}
	}
}

// build makes a delta around a payload, with every checksum right, so that
// only what the payload says is wrong.
func build(base, target, payload []byte) []byte {
	h := Header{Target: blob.Sum(target), TargetSize: int64(len(target))}
	if base != nil {
		h.Base, h.BaseSize = blob.Sum(base), int64(len(base))
		h.dict = []span{{0, int64(len(base))}}
	}
	b, err := h.marshal()
	if err != nil {
		panic(err)
	}
	index := bytes.Clone(b)
	head := Frame{Len: len(target), WireLen: len(payload), Sum: blob.Sum(target), WireSum: blob.Sum(payload)}.appendTo(nil)
	index = append(index, head...)
	b = append(append(b, head...), payload...)
	return append(b, Frame{Sum: h.Target, WireSum: blob.Sum(index)}.appendTo(nil)...)
}

func payload(segments []byte, streams ...[]byte) []byte {
	table := bytes.Clone(segments)
	for _, s := range streams {
		table = append(table, s...)
	}
	b := binary.AppendUvarint(nil, uint64(len(table)))
	return append(binary.AppendUvarint(b, uint64(len(table))), table...)
}

func TestPayloadsThatLieAreRefused(t *testing.T) {
	base, target := random(1, 64), random(2, 16)
	raw := func(p []byte) []byte { return append(p, target...) }
	uv := func(v ...uint64) (b []byte) {
		for _, x := range v {
			b = binary.AppendUvarint(b, x)
		}
		return b
	}
	bomb := bytes.NewBuffer(nil)
	z, err := newZstd()
	if err != nil {
		t.Fatal(err)
	}
	bomb.Write(z.EncodeAll(make([]byte, 64<<20), nil))
	for _, tc := range []struct {
		name    string
		payload []byte
		ok      bool
	}{
		{"right", raw(payload(uv(1, 0, 16), uv(1, 0, 0, 16))), true},
		{"empty", nil, false},
		{"table longer than the payload", uv(100, 100), false},
		{"table of 4 GiB", uv(1<<32, 1), false},
		{"table that is no zstd", append(uv(100, 4), 1, 2, 3, 4), false},
		{"too many segments", payload(uv(1 << 40)), false},
		{"segment of nothing", raw(payload(uv(2, 0, 0, 0, 16), uv(1, 0, 0, 16))), false},
		{"segment beyond the frame", raw(payload(uv(1, 0, 17), uv(1, 0, 0, 16))), false},
		{"segment of 2^63", raw(payload(uv(1, 0, 1<<63), uv(1, 0, 0, 16))), false},
		{"segments that leave a rest", raw(payload(uv(1, 0, 15), uv(1, 0, 0, 16))), false},
		{"unknown kind", raw(payload(uv(1, 9, 16), uv(1, 9, 0, 16))), false},
		{"unknown element", raw(payload(uv(1, 0xf2, 1, 16), uv(1, 0, 0, 16))), false},
		{"steps of integers", append(payload(append(uv(1, byte2(kindSteps, elemI32), 16, 0), 0, 0, 0x80, 0x3f), uv(1, byte2(kindSteps, elemI32), uint64(methodCtx), 1)), 0), false},
		{"a step of nothing", append(payload(append(uv(1, byte2(kindSteps, elemF32), 16, 0), 0, 0, 0, 0), uv(1, byte2(kindSteps, elemF32), uint64(methodCtx), 1)), 0), false},
		{"a step that is no number", append(payload(append(uv(1, byte2(kindSteps, elemF32), 16, 0), 0, 0, 0xc0, 0x7f), uv(1, byte2(kindSteps, elemF32), uint64(methodCtx), 1)), 0), false},
		{"text with an element", raw(payload(uv(1, 0x60, 16), uv(1, 0x60, 0, 16))), false},
		{"numbers cut in half", raw(payload(uv(2, byte2(kindPlain, elemF32), 14, 0, 2), uv(1, 0, 0, 16))), false},
		{"copy before the base", payload(uv(1, uint64(kindCopy), 16, zigzag(-1)), uv(0)), false},
		{"copy beyond the base", payload(uv(1, uint64(kindCopy), 16, zigzag(49)), uv(0)), false},
		{"copy from 2^62", payload(uv(1, uint64(kindCopy), 16, zigzag(1<<62)), uv(0)), false},
		{"copy of other bytes", payload(uv(1, uint64(kindCopy), 16, zigzag(0)), uv(0)), false},
		{"a stream that is not there", payload(uv(1, 0, 16), uv(1, 0, 0, 16)), false},
		{"a segment without a stream", payload(uv(1, 0, 16), uv(0)), false},
		{"a stream twice", raw(payload(uv(1, 0, 16), uv(2, 0, 0, 8, 0, 0, 8))), false},
		{"a stream of no segment", raw(payload(uv(1, 0, 16), uv(1, 1, 0, 16))), false},
		{"unknown method", raw(payload(uv(1, 0, 16), uv(1, 0, 9, 16))), false},
		{"method that does not fit", raw(payload(uv(1, 0, 16), uv(1, 0, uint64(methodCtx), 16))), false},
		{"planes of text", append(payload(uv(1, 0, 16), uv(1, 0, uint64(methodPlane), 1)), 0), false},
		{"differences of plain numbers", append(payload(uv(1, byte2(kindPlain, elemF32), 16), uv(1, byte2(kindPlain, elemF32), uint64(methodCtx), 1)), 0), false},
		{"raw of another length", append(payload(uv(1, 0, 16), uv(1, 0, 0, 15)), target[:15]...), false},
		{"bytes left over", append(raw(payload(uv(1, 0, 16), uv(1, 0, 0, 16))), 0), false},
		{"a zstd bomb", append(payload(uv(1, 0, 16), uv(1, 0, 1, uint64(bomb.Len()))), bomb.Bytes()...), false},
		{"a window beyond the dictionary", append(payload(uv(1, 0, 16), uv(1, 0, 2, 4, 60, 60)), 1, 2, 3, 4), false},
		{"a window of 2^62", append(payload(uv(1, 0, 16), uv(1, 0, 2, 4, 0, 1<<62)), 1, 2, 3, 4), false},
		{"rows longer than the segment", append(payload(uv(1, byte2(kindMoved, elemF32), 16, 0, 5, 0), uv(1, byte2(kindMoved, elemF32), uint64(methodCtx), 1)), 0), false},
		{"rows of 64-bit numbers", append(payload(uv(1, byte2(kindMoved, elemF64), 16, 0, 1, 0), uv(1, byte2(kindMoved, elemF64), uint64(methodCtx), 1)), 0), false},
		{"a segment that begins beyond its row", append(payload(uv(1, byte2(kindMoved, elemF32), 16, 0, 2, 2), uv(1, byte2(kindMoved, elemF32), uint64(methodCtx), 1)), 0), false},
		{"a scale beyond any float", append(payload(uv(1, byte2(kindMoved, elemF32), 16, 0, 0), uv(1, byte2(kindMoved, elemF32), uint64(methodCtx), 3)), 0xff, 0x7f, 0), false},
		{"a coder's length beyond its stream", append(payload(uv(1, byte2(kindMoved, elemF32), 16, 0, 0), uv(1, byte2(kindMoved, elemF32), uint64(methodCtx), 3)), 0, 0xff, 1), false},
	} {
		out, err := decode(base, build(base, target, tc.payload))
		if tc.ok {
			if err != nil || !bytes.Equal(out, target) {
				t.Errorf("%s: %v", tc.name, err)
			}
			continue
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrBase) || len(out) > 0 {
			t.Errorf("%s: %v, %d bytes came out", tc.name, err, len(out))
		}
	}
}

func TestAnIndexThatLeavesPartsOutIsRefused(t *testing.T) {
	target := random(1, 100)
	h := Header{Target: blob.Sum(target), TargetSize: 100}
	b, err := h.marshal()
	if err != nil {
		t.Fatal(err)
	}
	end := Frame{Sum: h.Target, WireSum: blob.Sum(b)}.appendTo(nil)
	if _, err := ReadIndex(bytes.NewReader(append(b, end...))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no frames for 100 bytes: %v", err)
	}
}

func byte2(k kind, e elem) uint64 { return uint64(segment{kind: k, elem: e}.key()) }

func TestHeadersThatLieAreRefused(t *testing.T) {
	target := random(1, 100)
	delta, _ := mustEncode(t, target[:50], target, Options{})
	end := headerBytes + int(binary.LittleEndian.Uint32(delta[92:])) + 4
	sign := func(b []byte, n int) { binary.LittleEndian.PutUint32(b[n:], crc32.Checksum(b[:n], castagnoli)) }
	for _, tc := range []struct {
		name string
		edit func(b []byte)
	}{
		{"negative target", func(b []byte) { binary.LittleEndian.PutUint64(b[8:], 1<<63) }},
		{"target of 2 GiB - 1", func(b []byte) { binary.LittleEndian.PutUint64(b[8:], math.MaxInt32) }},
		{"target of 2 GiB + 1", func(b []byte) { binary.LittleEndian.PutUint64(b[8:], math.MaxInt32+2) }},
		{"target of 4 GiB + 1", func(b []byte) { binary.LittleEndian.PutUint64(b[8:], 1<<32+1) }},
		{"target of 8 EiB", func(b []byte) { binary.LittleEndian.PutUint64(b[8:], math.MaxInt64) }},
		{"base without a digest", func(b []byte) { clear(b[56:88]) }},
		{"ranges of 4 GiB", func(b []byte) { binary.LittleEndian.PutUint32(b[88:], math.MaxUint32) }},
		{"frame of 4 GiB - 1", func(b []byte) { binary.LittleEndian.PutUint32(b[end:], math.MaxUint32) }},
		{"payload of 4 GiB - 1", func(b []byte) { binary.LittleEndian.PutUint32(b[end+4:], math.MaxUint32) }},
		{"frame beyond the target", func(b []byte) { binary.LittleEndian.PutUint32(b[end:], 101) }},
		{"frame that ends the delta", func(b []byte) { binary.LittleEndian.PutUint32(b[end:], 0) }},
		{"unknown flags", func(b []byte) { b[end+72] = 1 }},
	} {
		bad := bytes.Clone(delta)
		tc.edit(bad)
		sign(bad, end-4)
		sign(bad[end:], 76)
		if _, err := decode(target[:50], bad); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrBase) {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
	if _, err := decode(nil, []byte("wdelta2\n and more of it than a header has bytes, which is ninety-six: one hundred and more of them")); !errors.Is(err, ErrFormat) {
		t.Errorf("another version: %v", err)
	}
}

func TestCodersGiveBackWhatTheyGot(t *testing.T) {
	seed := assets.Seed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	small := newByteModel()
	for e := elemI8; e < elemEnd; e++ {
		m, m0, local := newCtxModel(e), newCtx0Model(e), newLocalModel(e)
		for _, n := range []int{0, 1, 2, 255, 256, 257, 3000} {
			base, target := random(rng.Uint64(), n*e.size()), random(rng.Uint64(), n*e.size())
			runs := []run{{n: n / 3}, {n: n / 3, width: 7, col: 3}, {n: n - n/3*2, width: 40}}
			switch rng.IntN(3) { // all bits, few bits, special values
			case 0:
				copy(target, base)
				for i := range target {
					if i%e.size() == 0 {
						target[i] += byte(rng.IntN(3))
					}
				}
			case 1:
				for i := range base {
					base[i] = byte(-rng.IntN(2))
				}
			}
			got := make([]byte, len(target))
			if err := m.decode(e, runs, base, m.encode(e, runs, base, target, nil), got); err != nil || !bytes.Equal(got, target) {
				t.Fatalf("seed %d: element %d, %d of them, context coder: %v", seed, e, n, err)
			}
			clear(got)
			if err := local.decode(e, base, local.encode(e, base, target, nil), got); err != nil || !bytes.Equal(got, target) {
				t.Fatalf("seed %d: element %d, %d of them, context coder without rows: %v", seed, e, n, err)
			}
			if e == elemI8 {
				clear(got)
				if small.decode(runs, base, small.encode(runs, base, target, nil), got); !bytes.Equal(got, target) {
					t.Fatalf("seed %d: %d bytes, context coder of 8-bit numbers", seed, n)
				}
			}
			clear(got)
			if err := m0.decode(e, m0.encode(e, target, nil), got); err != nil || !bytes.Equal(got, target) {
				t.Fatalf("seed %d: element %d, %d of them, context coder without a base: %v", seed, e, n, err)
			}
			for _, b := range [][]byte{nil, base} {
				planes := make([]byte, len(target))
				e.toPlanes(planes, target, b)
				clear(got)
				e.fromPlanes(got, planes, b)
				if !bytes.Equal(got, target) {
					t.Fatalf("seed %d: element %d, %d of them, planes", seed, e, n)
				}
			}
		}
	}
}

// Neighbouring floats differ by one, also around zero.
func TestOrderedFloatsAreNeighbours(t *testing.T) {
	s := shapes[elemF32]
	row := []uint64{0x80000002, 0x80000001, 0x80000000, 0, 1, 2} // -0 and 0 both have a place
	for i := range row[1:] {
		if d := s.ordered(row[i+1]) - s.ordered(row[i]); d != 1 {
			t.Errorf("from %#x to %#x it is %d", row[i], row[i+1], int64(d))
		}
	}
	for _, u := range []uint64{0, 1, 0x80000000, 0xffffffff, 0x7f800000} {
		if s.unordered(s.ordered(u)) != u {
			t.Errorf("%#x does not come back", u)
		}
	}
}

// What decodes has the digest that the header promised; anything else is an
// error, whatever the bytes are.
func FuzzDecode(f *testing.F) {
	base := random(1, 300)
	for _, v := range vectors() {
		delta, _ := mustEncode(f, v.base, v.target, v.options)
		f.Add(delta, v.base)
	}
	f.Add(build(base, base[:50], append(payload([]byte{1, 0, 50, 1, 0, 0, 50}), base[:50]...)), base)
	f.Fuzz(func(t *testing.T, delta, base []byte) {
		var out bytes.Buffer
		h, err := Decode(context.Background(), bytes.NewReader(base), bytes.NewReader(delta), &out)
		if err == nil && blob.Sum(out.Bytes()) != h.Target {
			t.Fatal("a wrong file came out without an error")
		}
	})
}

// The payload behind right checksums: nothing but the target comes out.
func FuzzFrame(f *testing.F) {
	base, target := random(1, 300), random(2, 48)
	f.Add(append(payload([]byte{1, 0, 48, 1, 0, 0, 48}), target...))
	for _, m := range []method{methodPlane, methodCtx0} {
		k := byte(byte2(kindPlain, elemF32))
		f.Add(append(payload([]byte{1, k, 48, 1, k, byte(m), 8}), random(3, 8)...))
	}
	for _, m := range []method{methodSubPlane, methodCtx, methodLocal} {
		k := byte(byte2(kindMoved, elemBF16))
		f.Add(append(payload([]byte{1, k, 48, 0, 1, k, byte(m), 8}), random(3, 8)...))
	}
	k := byte(byte2(kindMoved, elemI8))
	f.Add(append(payload([]byte{1, k, 48, 0, 12, 3, 1, k, byte(methodBytes), 8}), random(3, 8)...))
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > MaxPayloadBytes {
			return
		}
		out, err := decode(base, build(base, target, payload))
		if err == nil && !bytes.Equal(out, target) {
			t.Fatal("a wrong file came out without an error")
		}
	})
}
