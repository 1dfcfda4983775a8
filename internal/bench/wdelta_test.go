package bench

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models/container"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// weightPair is a model and its next version. most bounds shipped/full of the
// delta; 0 is a version that was trained from scratch, which must not cost more
// than its cold pack.
type weightPair struct {
	name         string
	base, target []byte
	most         float64
}

// weightDeltas ships every pair by wdelta and, beside it, by what is used for
// the purpose elsewhere, and prints how many bytes each sends for one of the
// target. EDGEHERD_PAIRS may name a folder with pairs of real fine-tunes, files
// NAME_base_TYPE.onnx and NAME_VERSION_TYPE.onnx.
func weightDeltas(t *testing.T) []Figure {
	pairs := slices.Concat(modelPairs(t), noisePairs(t), realPairs(t))
	var figures []Figure
	rates := map[string][]float64{}
	fmt.Printf("%-28s %8s %8s %8s %8s %8s %8s %8s %8s\n", "pair", "MB", "wdelta", "fast", "cold", "zstd-19", "patch", "cdc", "xdelta3")
	for _, p := range pairs {
		delta, rate := encodeDelta(t, p.base, p.target, wdelta.Options{})
		fast, _ := encodeDelta(t, p.base, p.target, wdelta.Options{Coder: wdelta.Fast})
		cold, coldRate := encodeDelta(t, nil, p.target, wdelta.Options{})
		rates["delta"], rates["cold"] = append(rates["delta"], rate), append(rates["cold"], coldRate)
		fmt.Printf("%-28s %8.1f %8.4f %8.4f %8.4f", p.name, float64(len(p.target))/1e6, delta, fast, cold)
		for _, r := range otherDeltas(t, p) {
			if r < 0 {
				fmt.Printf(" %8s", "absent")
				continue
			}
			fmt.Printf(" %8.4f", r)
		}
		fmt.Println()
		f := Figure{Name: p.name, Value: delta, Unit: "of full", Goal: Goal{AtMost: p.most}}
		if p.most == 0 {
			f = f.Against("its cold pack", cold)
			f.Goal = Goal{AtMost: 1.001}
		}
		figures = append(figures, f)
		if typeOf(p.name) == "fp32" && p.most > 0.1 {
			figures = append(figures, quantised(t, p))
		}
		if most, ok := map[string]float64{"fp32": 0.85, "fp16": 0.89}[typeOf(p.name)]; ok {
			figures = append(figures, Figure{Name: p.name + "/cold", Value: cold, Unit: "of full", Goal: Goal{AtMost: most}})
		}
	}
	for _, kind := range []string{"delta", "cold"} {
		figures = append(figures, Figure{Name: "decode-" + kind, Value: slices.Min(rates[kind]), Unit: "MB/s", Goal: Goal{AtLeast: 20}})
	}
	return append(figures, deltaMemory(t)...)
}

// quantised is what the pair costs when the target is published as the base and
// whole steps (docs/wdelta.md §9).
func quantised(t *testing.T, p weightPair) Figure {
	t.Helper()
	var out bytes.Buffer
	_, err := wdelta.Quantise(t.Context(), bytes.NewReader(p.base), bytes.NewReader(p.target), &out, wdelta.QuantiseOptions{})
	check(t, err)
	ratio, _ := encodeDelta(t, p.base, out.Bytes(), wdelta.Options{})
	fmt.Printf("%-28s %8.1f %8.4f\n", p.name+"/quantised", float64(out.Len())/1e6, ratio)
	most := 0.12
	if strings.HasPrefix(p.name, "noise-") {
		most = 0.13 // with 4 levels, moves that are nothing but noise have 0.1281 of entropy
	}
	return Figure{Name: p.name + "/quantised", Value: ratio, Unit: "of full", Goal: Goal{AtMost: most}}
}

func typeOf(name string) string { return name[strings.LastIndexAny(name, "-_")+1:] }

// encodeDelta returns shipped/full and the bytes of the target that a core
// decodes in a second, by its own time.
func encodeDelta(t *testing.T, base, target []byte, o wdelta.Options) (ratio, rate float64) {
	t.Helper()
	var from wdelta.Source
	if base != nil {
		from = bytes.NewReader(base)
	}
	var delta bytes.Buffer
	stats, err := wdelta.Encode(t.Context(), from, bytes.NewReader(target), &delta, o)
	check(t, err)
	var got bytes.Buffer
	_, err = wdelta.Decode(t.Context(), from, bytes.NewReader(delta.Bytes()), &got)
	check(t, err)
	if !bytes.Equal(got.Bytes(), target) {
		t.Fatal("the delta makes another file")
	}
	began, n := cpuSeconds(t), 0
	for ; cpuSeconds(t)-began < 0.3; n += len(target) {
		_, err := wdelta.Decode(t.Context(), from, bytes.NewReader(delta.Bytes()), io.Discard)
		check(t, err)
	}
	return stats.Ratio(), float64(n) / 1e6 / (cpuSeconds(t) - began)
}

func cpuSeconds(t *testing.T) float64 {
	t.Helper()
	var u syscall.Rusage
	check(t, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

func readModel(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	check(t, err)
	return b
}

// modelPairs are made of the models that come with the build.
func modelPairs(t *testing.T) []weightPair {
	rec := readModel(t, filepath.Join(assets.Model(t, "ocr-rec-4.0.0"), "model.onnx"))
	vad := func(version string) []byte {
		return readModel(t, filepath.Join(assets.Model(t, "silero-vad-"+version), "model.onnx"))
	}
	return []weightPair{
		{"reexport-ocr-rec", rec, reexport(t, rec), 0.01},
		{"reexport-silero", vad("6.0.0"), reexport(t, vad("6.0.0")), 0.01},
		{"scratch-silero-5-6", vad("5.0.0"), vad("6.0.0"), 0},
	}
}

// reexport writes an ONNX file as another exporter might: initializers last
// first and before the nodes, nodes with other names, another producer.
func reexport(t *testing.T, file []byte) []byte {
	fields := func(b []byte, visit func(num protowire.Number, typ protowire.Type, whole, content []byte)) {
		for len(b) > 0 {
			num, typ, n := protowire.ConsumeTag(b)
			m := protowire.ConsumeFieldValue(num, typ, b[n:])
			if n < 0 || m < 0 {
				t.Fatal("the model is no protobuf")
			}
			content := b[n : n+m]
			if typ == protowire.BytesType {
				content, _ = protowire.ConsumeBytes(content)
			}
			visit(num, typ, b[:n+m], content)
			b = b[n+m:]
		}
	}
	text := func(num protowire.Number, b []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), b)
	}
	var out, rest []byte
	var tensors [][]byte
	nodes := 0
	fields(file, func(num protowire.Number, _ protowire.Type, whole, content []byte) {
		switch num {
		case 2:
			out = append(out, text(2, []byte("another exporter"))...)
		case 7:
			fields(content, func(num protowire.Number, _ protowire.Type, whole, content []byte) {
				switch num {
				case 5:
					tensors = append(tensors, whole)
				case 1:
					var node []byte
					fields(content, func(num protowire.Number, _ protowire.Type, whole, _ []byte) {
						if num != 3 {
							node = append(node, whole...)
						}
					})
					nodes++
					rest = append(rest, text(1, append(node, text(3, fmt.Appendf(nil, "/exported/node_%d", nodes))...))...)
				default:
					rest = append(rest, whole...)
				}
			})
			slices.Reverse(tensors)
			out = append(out, text(7, append(bytes.Join(tensors, nil), rest...))...)
		default:
			out = append(out, whole...)
		}
	})
	return out
}

// noisePairs are the weights of a real model in each type, and the same with
// noise of a thousandth of a tensor's size: what a fine-tune looks like where
// no real one is at hand. The bounds are those measured of the prototype.
func noisePairs(t *testing.T) []weightPair {
	rec := readModel(t, filepath.Join(assets.Model(t, "ocr-rec-4.0.0"), "model.onnx"))
	l, err := container.Read(bytes.NewReader(rec), int64(len(rec)))
	check(t, err)
	var out []weightPair
	for _, c := range []struct {
		dtype string
		most  float64
	}{{"fp32", 0.546}, {"fp16", 0.276}, {"bf16", 0.136}, {"int8", 0.066}} {
		rng := rand.New(rand.NewPCG(1, 1))
		var a, b weightFile
		for _, s := range l.Spans("") {
			if s.DType != "FP32" || s.Len < 256 {
				continue
			}
			w := make([]float64, s.Len/4)
			sum := 0.0
			for i := range w {
				w[i] = float64(math.Float32frombits(binary.LittleEndian.Uint32(rec[s.Off+4*int64(i):])))
				sum += w[i] * w[i]
			}
			rms := math.Sqrt(sum / float64(len(w)))
			moved := slices.Clone(w)
			for i := range moved {
				moved[i] += rng.NormFloat64() * rms * 1e-3
			}
			a.add(c.dtype, s.Name, w, rms/40)
			b.add(c.dtype, s.Name, moved, rms/40)
		}
		out = append(out, weightPair{"noise-ocr-rec-" + c.dtype, a.file(), b.file(), c.most})
	}
	return out
}

// weightFile is a safetensors file in the making.
type weightFile struct {
	header strings.Builder
	data   []byte
}

func (f *weightFile) add(dtype, name string, w []float64, scale float64) {
	from := len(f.data)
	for _, x := range w {
		bits := math.Float32bits(float32(x))
		switch dtype {
		case "fp32":
			f.data = binary.LittleEndian.AppendUint32(f.data, bits)
		case "bf16":
			f.data = binary.LittleEndian.AppendUint16(f.data, uint16((bits+0x7fff+bits>>16&1)>>16))
		case "fp16":
			f.data = binary.LittleEndian.AppendUint16(f.data, half(bits))
		case "int8":
			f.data = append(f.data, byte(int8(max(-127, min(127, math.Round(x/max(scale, 1e-30)))))))
		}
	}
	kind := map[string]string{"fp32": "F32", "bf16": "BF16", "fp16": "F16", "int8": "I8"}[dtype]
	if f.header.Len() > 0 {
		f.header.WriteByte(',')
	}
	fmt.Fprintf(&f.header, "%q:{\"dtype\":%q,\"shape\":[%d],\"data_offsets\":[%d,%d]}", name, kind, len(w), from, len(f.data))
}

func (f *weightFile) file() []byte {
	head := "{" + f.header.String() + "}"
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(head))), head...), f.data...)
}

// half rounds to IEEE half precision; what is too small becomes zero.
func half(bits uint32) uint16 {
	sign := uint16(bits >> 16 & 0x8000)
	bits = bits&0x7fffffff + 0x1000
	if bits < 113<<23 {
		return sign
	}
	return sign | uint16((bits-112<<23)>>13)
}

// realPairs are those of the folder EDGEHERD_PAIRS, the bounds by type.
func realPairs(t *testing.T) (out []weightPair) {
	dir := os.Getenv("EDGEHERD_PAIRS")
	if dir == "" {
		return nil
	}
	versions := map[string]string{} // family, type and version: file
	name := regexp.MustCompile(`^(.+)_(.+)_(fp32|fp16|bf16|int8)[a-z]*\.onnx$`)
	check(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if m := name.FindStringSubmatch(filepath.Base(path)); err == nil && m != nil {
			versions[m[1]+"_"+m[3]+"_"+m[2]] = path
		}
		return err
	}))
	keys := make([]string, 0, len(versions))
	for k := range versions {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	bounds := map[string]float64{"fp32": 0.45, "fp16": 0.27, "bf16": 0.15, "int8": 0.08}
	for _, k := range keys {
		i := strings.LastIndex(k, "_")
		family, version := k[:i], k[i+1:]
		if version == "base" {
			continue
		}
		kind := typeOf(family)
		p := weightPair{name: family[:len(family)-len(kind)] + version + "_" + kind, most: bounds[kind]}
		from := versions[family+"_base"]
		if strings.HasPrefix(version, "head") { // only the head moved, of the version before
			p.most = 0.05
			if at := slices.IndexFunc(keys, func(o string) bool {
				return strings.HasPrefix(o, family+"_") && o != k && o != family+"_base"
			}); at >= 0 {
				from = versions[keys[at]]
			}
		}
		p.base, p.target = readModel(t, from), readModel(t, versions[k])
		out = append(out, p)
	}
	return out
}

// otherDeltas ships the pair by zstd -19, zstd --patch-from, FastCDC with zstd, and
// xdelta3, and returns shipped/full of each; -1 where a program is absent.
func otherDeltas(t *testing.T, p weightPair) []float64 {
	t.Helper()
	dir := t.TempDir()
	base, target := filepath.Join(dir, "base"), filepath.Join(dir, "target")
	check(t, os.WriteFile(base, p.base, 0o600))
	check(t, os.WriteFile(target, p.target, 0o600))
	size := func(program string, args ...string) float64 {
		if _, err := exec.LookPath(program); err != nil {
			return -1
		}
		out := filepath.Join(dir, "out")
		_ = os.Remove(out) // of the one before
		cmd := exec.CommandContext(context.Background(), program, append(args, out)...)
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd, err, text)
		}
		info, err := os.Stat(out)
		check(t, err)
		return float64(info.Size()) / float64(len(p.target))
	}
	return []float64{
		size("zstd", "-19", "-q", target, "-o"),
		size("zstd", "-19", "-q", "--long=27", "--patch-from="+base, target, "-o"),
		chunked(t, p),
		size("xdelta3", "-9", "-B", "536870912", "-e", "-s", base, target),
	}
}
