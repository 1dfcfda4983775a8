package container

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/models"
)

// The messages of onnx.proto3 that the tests need.
func msg(num protowire.Number, content ...[]byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, num, protowire.BytesType), bytes.Join(content, nil))
}

func num(n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
}

func text(n protowire.Number, s string) []byte { return msg(n, []byte(s)) }

func onnxFile(graph ...[]byte) []byte {
	return bytes.Join([][]byte{num(1, 8), text(2, "maker"), msg(7, graph...)}, nil)
}

// tensorOf is a TensorProto of fp32 with raw data.
func tensorOf(field protowire.Number, name string, data []byte, dims ...uint64) []byte {
	var b []byte
	for _, d := range dims {
		b = append(b, num(1, d)...)
	}
	return msg(field, b, num(2, 1), text(8, name), msg(9, data))
}

func external(name string, entries ...string) []byte {
	b := append(num(1, 4), num(2, 1)...)
	b = append(b, text(8, name)...)
	for i := 0; i+1 < len(entries); i += 2 {
		b = append(b, msg(13, text(1, entries[i]), text(2, entries[i+1]))...)
	}
	return msg(5, b, num(14, 1))
}

func safetensorsFile(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

// read also proves that each range holds the bytes that the test put there.
func read(t *testing.T, file []byte) Layout {
	t.Helper()
	l, err := Read(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func names(l Layout) (out []string) {
	for _, t := range l.Tensors {
		out = append(out, fmt.Sprintf("%s %s%v", t.Name, t.DType, t.Shape))
	}
	return out
}

func TestONNXTensorsAreFoundWhereverTheyAre(t *testing.T) {
	w, c, s := bytes.Repeat([]byte{1}, 16), bytes.Repeat([]byte{2}, 8), bytes.Repeat([]byte{3}, 12)
	constant := msg(1, text(2, "k"), text(4, "Constant"), msg(5, text(1, "value"), msg(5, num(1, 2), num(2, 1), msg(9, c))))
	sub := msg(1, text(2, "out"), text(4, "If"), msg(5, text(1, "then_branch"), msg(6, tensorOf(5, "s", s, 3))))
	floats := msg(5, msg(1, binary.AppendUvarint(nil, 2)), num(2, 1), text(8, "packed"), msg(4, c))
	file := onnxFile(tensorOf(5, "w", w, 2, 2), constant, sub, floats, msg(5, text(8, "varints"), msg(7, []byte{1, 2})))
	l := read(t, file)
	want := []string{"w FP32[2 2]", "k FP32[2]", "then_branch/s FP32[3]", "packed FP32[2]"}
	if l.Format != ONNX || !reflect.DeepEqual(names(l), want) {
		t.Fatalf("%s %q\nwant %q", l.Format, names(l), want)
	}
	for i, data := range [][]byte{w, c, s, c} {
		if got := file[l.Tensors[i].Off:][:l.Tensors[i].Len]; !bytes.Equal(got, data) {
			t.Errorf("%s lies at %v", l.Tensors[i].Name, got)
		}
	}
}

func TestONNXExternalDataHasItsFile(t *testing.T) {
	file := onnxFile(external("a", "location", "model.data", "offset", "4096", "length", "16"), external("b", "location", "model.data"))
	l := read(t, file)
	if want := (Tensor{"a", models.FP32, []int64{4}, "model.data", 4096, 16}); !reflect.DeepEqual(l.Tensors[0], want) {
		t.Errorf("got %+v, want %+v", l.Tensors[0], want)
	}
	if got := l.Tensors[1]; got.Off != 0 || got.Len != 16 {
		t.Errorf("without offset and length: %+v, want 16 bytes at 0", got)
	}
	if len(l.Spans("")) != 0 || len(l.Spans("model.data")) != 2 {
		t.Errorf("spans of the container %v, of the data %v", l.Spans(""), l.Spans("model.data"))
	}
}

func TestSafetensorsAreFound(t *testing.T) {
	file := safetensorsFile(`{"__metadata__":{"a":["b",{"c":1}]},"w":{"dtype":"BF16","shape":[2,3],"data_offsets":[4,16]},"q":{"dtype":"F8_E4M3","shape":[4],"data_offsets":[0,4],"x":null}}`, 16)
	l := read(t, file)
	if want := []string{"w BF16[2 3]", "q [4]"}; l.Format != Safetensors || !reflect.DeepEqual(names(l), want) {
		t.Errorf("%s %q, want %q", l.Format, names(l), want)
	}
	if end := l.Tensors[0].Off + l.Tensors[0].Len; end != int64(len(file)) {
		t.Errorf("w ends at %d of %d", end, len(file))
	}
}

// tfliteFile has one tensor "w" of int8 with the given data.
func tfliteFile(data []byte) []byte {
	le := binary.LittleEndian
	var b []byte
	u32 := func(v ...int) {
		for _, x := range v {
			b = le.AppendUint32(b, uint32(int32(x)))
		}
	}
	u16 := func(v ...int) {
		for _, x := range v {
			b = le.AppendUint16(b, uint16(x))
		}
	}
	patch := func(at int) { le.PutUint32(b[at:], uint32(len(b)-at)) }
	u32(0)
	b = append(b, "TFL3"...)
	u16(14, 24, 0, 0, 4, 0, 8, 0) // vtable of Model: subgraphs, buffers
	patch(0)
	at := len(b)
	u32(at-8, 0, 0, 0, 0, 0)
	patch(at + 8) // buffers: two
	u32(2, 0, 0)
	buffers := len(b) - 8
	patch(at + 4) // subgraphs: one
	u32(1, 0)
	graph := len(b) - 4
	u16(6, 8)
	u16(4, 0)
	patch(graph)
	u32(8, 0)
	patch(len(b) - 4) // tensors: one
	u32(1, 0)
	tensor := len(b) - 4
	u16(12, 20, 4, 16, 8, 12) // shape, type, buffer, name
	patch(tensor)
	at = len(b)
	u32(12, 0, 1, 0)
	b = append(b, 9, 0, 0, 0) // INT8
	patch(at + 4)
	u32(1, len(data))
	patch(at + 12)
	u32(1)
	b = append(b, 'w', 0, 0, 0)
	for i := range 2 {
		u16(6, 8, 4, 0)
		patch(buffers + 4*i)
		u32(8, 0)
		if i == 0 {
			le.PutUint16(b[len(b)-12:], 0) // buffer 0 has no data
			continue
		}
		patch(len(b) - 4)
		u32(len(data))
		b = append(b, data...)
	}
	return b
}

func TestTFLiteTensorsAreFound(t *testing.T) {
	data := []byte{7, 8, 9, 10, 11}
	file := tfliteFile(data)
	l := read(t, file)
	if want := []string{"w INT8[5]"}; l.Format != TFLite || !reflect.DeepEqual(names(l), want) {
		t.Fatalf("%s %q, want %q", l.Format, names(l), want)
	}
	if got := file[l.Tensors[0].Off:][:l.Tensors[0].Len]; !bytes.Equal(got, data) {
		t.Errorf("data %v, want %v", got, data)
	}
}

// sparse is a large file of zeros with something at its beginning.
type sparse struct {
	head []byte
	size int64
}

func (s sparse) ReadAt(b []byte, off int64) (int, error) {
	clear(b)
	if off < int64(len(s.head)) {
		copy(b, s.head[off:])
	}
	if off+int64(len(b)) > s.size {
		return int(s.size - off), io.EOF
	}
	return len(b), nil
}

func TestHostileFilesAreRefusedInWords(t *testing.T) {
	deep := tensorOf(5, "w", make([]byte, 16), 4)
	for range maxDepth {
		deep = msg(1, msg(5, text(1, "b"), msg(6, deep)))
	}
	const gib = int64(1) << 30
	claim := func(n int64) []byte { // a graph with a tensor whose data claim n bytes
		body := append(append(num(1, uint64(n/4)), num(2, 1)...), protowire.AppendVarint(protowire.AppendTag(nil, 9, protowire.BytesType), uint64(n))...)
		head := protowire.AppendVarint(protowire.AppendTag(nil, 5, protowire.BytesType), uint64(int64(len(body))+n))
		graph := protowire.AppendVarint(protowire.AppendTag(nil, 7, protowire.BytesType), uint64(int64(len(head)+len(body))+n))
		return bytes.Join([][]byte{num(1, 8), graph, head, body}, nil)
	}
	st := func(entry string) []byte {
		return safetensorsFile(`{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"v":`+entry+`}`, 32)
	}
	tflite := tfliteFile(make([]byte, 64))
	broken := bytes.Clone(tflite)
	binary.LittleEndian.PutUint32(broken[len(broken)-68:], 1<<31+1)
	for _, tc := range []struct {
		name string
		file []byte
		size int64 // 0: as long as file
		want string
	}{
		{"nothing", nil, 0, "not an ONNX"},
		{"text", []byte("hello, this is no model"), 0, "not an ONNX"},
		{"no graph", append(num(1, 8), text(2, "maker")...), 0, "0 graphs"},
		{"two graphs", append(onnxFile(), msg(7)...), 0, "2 graphs"},
		{"truncated", onnxFile(deep)[:200], 0, "truncated or damaged"},
		{"nested too deep", onnxFile(deep), 0, "nested deeper than 64"},
		{"claims 2 GiB - 1 in a short file", claim(2*gib - 1), 0, "truncated or damaged"},
		{"claims 4 GiB + 1", claim(4*gib + 1), 0, "truncated or damaged"},
		{"ONNX of 2 GiB", claim(2 * gib), 2*gib + 100, "more than 2147483647"},
		{"ONNX of 4 GiB + 1", claim(4*gib + 1), 4*gib + 100, "more than 2147483647"},
		{"negative dimension", onnxFile(tensorOf(5, "w", nil, 1<<63)), 0, "negative"},
		{"shape beyond 64 bits", onnxFile(tensorOf(5, "w", nil, 1<<40, 1<<40)), 0, "more bytes than a file can have"},
		{"shape and data differ", onnxFile(tensorOf(5, "w", make([]byte, 12), 4)), 0, "needs 16"},
		{"too many dimensions", onnxFile(tensorOf(5, "w", nil, make([]uint64, 65)...)), 0, "more than 64 dimensions"},
		{"long name", onnxFile(tensorOf(5, strings.Repeat("n", 5000), nil)), 0, "longer than 4096"},
		{"data outside the folder", onnxFile(external("a", "location", "../../etc/passwd")), 0, "outside the model's folder"},
		{"data at an absolute path", onnxFile(external("a", "location", "/etc/passwd")), 0, "outside the model's folder"},
		{"data on a drive", onnxFile(external("a", "location", `C:\x`)), 0, "outside the model's folder"},
		{"negative external offset", onnxFile(external("a", "location", "d", "offset", "-1")), 0, `offset "-1"`},
		{"external end beyond 64 bits", onnxFile(external("a", "location", "d", "offset", "9223372036854775807")), 0, "beyond what a file can have"},
		{"header beyond the file", append([]byte{0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}, '{'), 0, "header claims 4294967295 bytes"},
		{"header of 2 GiB", append([]byte{1, 0, 0, 0x80, 0, 0, 0, 0}, '{'), 4 * gib, "longer than 16777216"},
		{"overlap", st(`{"dtype":"F32","shape":[4],"data_offsets":[8,24]}`), 0, "overlaps"},
		{"hole", st(`{"dtype":"F32","shape":[2],"data_offsets":[24,32]}`), 0, "8 bytes before"},
		{"unused end", st(`{"dtype":"F32","shape":[2],"data_offsets":[16,24]}`), 0, "8 bytes at its end"},
		{"backwards", st(`{"dtype":"F32","shape":[4],"data_offsets":[32,16]}`), 0, "outside the 32 bytes"},
		{"beyond its data", st(`{"dtype":"F32","shape":[5],"data_offsets":[16,36]}`), 0, "outside the 32 bytes"},
		{"negative offset", st(`{"dtype":"F32","shape":[4],"data_offsets":[-16,0]}`), 0, "not a size"},
		{"fraction", st(`{"dtype":"F32","shape":[1.5],"data_offsets":[16,32]}`), 0, "not a size"},
		{"nested header", safetensorsFile(`{"__metadata__":`+strings.Repeat("[", 100), 0), 0, "nested deeper"},
		{"broken JSON", safetensorsFile(`{"w":{"dtype":`, 0), 0, "tensor \"w\""},
		{"TFLite buffer of 2 GiB + 1", broken, 0, "claims 2147483649 elements"},
		{"TFLite cut", tflite[:len(tflite)-80], 0, "beyond its"},
	} {
		size := tc.size
		if size == 0 {
			size = int64(len(tc.file))
		}
		l, err := Read(sparse{tc.file, size}, size)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
		if l.Tensors != nil {
			t.Errorf("%s: an error came with %d tensors", tc.name, len(l.Tensors))
		}
	}
}

func TestHugeFilesCostTheirHeadersOnly(t *testing.T) {
	const n = int64(4)<<30 + 1
	header := fmt.Sprintf(`{"w":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}`, n, n)
	file := sparse{safetensorsFile(header, 0), int64(8+len(header)) + n}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	l, err := Read(file, file.size)
	runtime.ReadMemStats(&after)
	if err != nil || len(l.Tensors) != 1 || l.Tensors[0].Len != n {
		t.Fatalf("%+v, %v", l, err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
		t.Errorf("a file of 4 GiB took %d bytes of memory", took)
	}
}

func TestSharedAndOverlappingRangesAppearOnceInSpans(t *testing.T) {
	l := Layout{Tensors: []Tensor{{Name: "inside", Off: 12, Len: 4}, {Name: "b", Off: 32, Len: 8}, {Name: "a", Off: 8, Len: 16}, {Name: "again", Off: 8, Len: 16}, {Name: "empty", Off: 24}}}
	var got []string
	for _, s := range l.Spans("") {
		got = append(got, s.Name)
	}
	if want := []string{"a", "b"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestRealModelsAreCovered(t *testing.T) {
	dir := assets.Dir(t)
	files, err := filepath.Glob(filepath.Join(dir, "models", "*", "model.onnx"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no models in %s: %v", dir, err)
	}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		l, err := Read(f, info.Size())
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		covered := int64(0)
		for _, s := range l.Spans("") {
			covered += s.Len
		}
		if covered*10 < info.Size()*8 {
			t.Errorf("%s: tensors cover %d of %d bytes", path, covered, info.Size())
		}
	}
}

// A layout's ranges lie in the file, and an error returns no layout.
func FuzzRead(f *testing.F) {
	f.Add(onnxFile(tensorOf(5, "w", make([]byte, 16), 4), external("a", "location", "d")))
	f.Add(safetensorsFile(`{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}`, 16))
	f.Add(tfliteFile(make([]byte, 64)))
	f.Fuzz(func(t *testing.T, file []byte) {
		l, err := Read(bytes.NewReader(file), int64(len(file)))
		if err != nil {
			if l.Tensors != nil {
				t.Fatal("an error came with a layout")
			}
			if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("a bare end of file: %v", err)
			}
			return
		}
		end := int64(0)
		for _, s := range l.Spans("") {
			if s.Off < end || s.Len < 1 || s.Off+s.Len > int64(len(file)) {
				t.Fatalf("span %+v after %d in %d bytes", s, end, len(file))
			}
			end = s.Off + s.Len
		}
	})
}
