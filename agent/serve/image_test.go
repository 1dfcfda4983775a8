package serve

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/serve/oip"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// picture is w x h, with a red that grows to the right, a green that grows
// downwards and a fixed blue.
func picture(w, h int) *image.RGBA {
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			img.SetRGBA(x, y, color.RGBA{uint8(10 * x), uint8(20 * y), 7, 255})
		}
	}
	return img
}

func asPNG(img image.Image) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func asJPEG(img image.Image) []byte {
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, nil); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func elements(images ...[]byte) []byte {
	var b []byte
	for _, img := range images {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(img))), img...)
	}
	return b
}

func free(int64) error { return nil }

// TestImagesBecomeTensorsOfTheModel checks layout, size, channels and values.
func TestImagesBecomeTensorsOfTheModel(t *testing.T) {
	small := asPNG(picture(3, 2))
	for _, tc := range []struct {
		name  string
		want  models.TensorSpec
		data  []byte
		p     pixels
		shape string
		at    int     // an element of the result
		value float64 // and what it is
	}{
		{"planes", models.TensorSpec{DType: models.FP32, Shape: []int64{-1, 3, -1, -1}}, elements(small, small), pixels{scale: 1}, "[2 3 2 3]", 6 + 3, 20},
		{"second of a batch", models.TensorSpec{DType: models.FP32, Shape: []int64{-1, 3, -1, -1}}, elements(small, small), pixels{scale: 1}, "[2 3 2 3]", 18 + 2, 20},
		{"interleaved", models.TensorSpec{DType: models.UINT8, Shape: []int64{1, 2, 3, 3}}, elements(small), pixels{scale: 1}, "[1 2 3 3]", 3*5 + 1, 20},
		{"without a batch", models.TensorSpec{DType: models.UINT8, Shape: []int64{3, 2, 3}}, elements(small), pixels{scale: 1}, "[3 2 3]", 2, 20},
		{"mean and scale", models.TensorSpec{DType: models.FP32, Shape: []int64{1, 3, 2, 3}}, elements(small), pixels{mean: 10, scale: 0.5}, "[1 3 2 3]", 2, 5},
		{"grey", models.TensorSpec{DType: models.FP32, Shape: []int64{1, 1, 2, 3}}, elements(asPNG(image.NewGray(image.Rect(0, 0, 3, 2)))), pixels{scale: 1}, "[1 1 2 3]", 5, 0},
		{"scaled", models.TensorSpec{DType: models.FP32, Shape: []int64{1, 3, 4, 4}}, elements(asPNG(picture(8, 8))), pixels{scale: 1}, "[1 3 4 4]", 32, 7},
		{"JPEG", models.TensorSpec{DType: models.FP32, Shape: []int64{-1, 3, 16, 16}}, elements(asJPEG(plain(16, 128))), pixels{scale: 1}, "[1 3 16 16]", 300, 128},
	} {
		in := worker.Tensor{Name: "x", DType: models.BYTES, Shape: []int64{1}, Data: tc.data}
		if err := decodeImage(&in, tc.want, tc.p, free); err != nil {
			t.Errorf("%s: %v", tc.name, err)
			continue
		}
		values, err := numbers(&in)
		if err != nil || fmt.Sprint(in.Shape) != tc.shape || in.DType != tc.want.DType {
			t.Errorf("%s: %s %v, %v, want %s", tc.name, in.DType, in.Shape, err, tc.shape)
			continue
		}
		if d := values[tc.at] - tc.value; d > 1 || d < -1 {
			t.Errorf("%s: element %d is %v, want %v", tc.name, tc.at, values[tc.at], tc.value)
		}
	}
}

func TestBadImagesAreNamed(t *testing.T) {
	good := models.TensorSpec{DType: models.FP32, Shape: []int64{-1, 3, -1, -1}}
	huge := asPNG(image.NewGray(image.Rect(0, 0, 1, 1)))
	binary.BigEndian.PutUint32(huge[16:], 1<<30) // width in IHDR
	for _, tc := range []struct {
		name string
		want models.TensorSpec
		data []byte
		text string
	}{
		{"none", good, nil, "0 images"},
		{"cut short", good, elements(asPNG(picture(3, 2)))[:20], "ends inside image 0"},
		{"no image", good, elements([]byte("hello")), "neither JPEG nor PNG"},
		{"a broken one", good, elements(asJPEG(picture(3, 2))[:40]), "image 0"},
		{"a huge one", good, elements(huge), "image 0"},
		{"two for one", models.TensorSpec{DType: models.FP32, Shape: []int64{3, 2, 2}}, elements(asPNG(picture(2, 2)), asPNG(picture(2, 2))), "takes one"},
		{"no channels", models.TensorSpec{DType: models.FP32, Shape: []int64{1, 9, 9, 9}}, elements(asPNG(picture(2, 2))), "no dimension of 1 or 3"},
		{"no image input", models.TensorSpec{DType: models.FP32, Shape: []int64{-1, 512}}, elements(asPNG(picture(2, 2))), "no shape of an image"},
		{"another type", models.TensorSpec{DType: models.INT64, Shape: []int64{-1, 3, -1, -1}}, elements(asPNG(picture(2, 2))), "INT64"},
	} {
		in := worker.Tensor{Name: "x", DType: models.BYTES, Data: tc.data}
		if err := decodeImage(&in, tc.want, pixels{scale: 1}, free); err == nil || !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.text)
		}
	}
	in := worker.Tensor{DType: models.BYTES, Data: elements(asPNG(picture(100, 100)))}
	if err := decodeImage(&in, good, pixels{scale: 1}, func(int64) error { return overload() }); statusOf(err) != http.StatusServiceUnavailable {
		t.Errorf("without memory: %v", err)
	}
}

// TestImagesReachTheModel in a BYTES tensor, as a raw body, and over gRPC.
func TestImagesReachTheModel(t *testing.T) {
	b := newBox(t, nil)
	b.ready(b.demo("ocr-cls-2.0.0", "cls", "2"))
	img := asPNG(picture(192, 48))
	in := worker.Tensor{Name: "x", DType: models.BYTES, Shape: []int64{1}, Data: elements(img)}
	body, header := binaryRequest([]worker.Tensor{in})
	want := b.post("/v2/models/cls/infer", body, HeaderLength, header)
	if want.status != http.StatusOK || fmt.Sprint(want.Outputs[0].Shape) != "[1 2]" {
		t.Fatalf("%d %s: %+v", want.status, want.Error, want.Outputs)
	}
	pixel := in
	if err := decodeImage(&pixel, models.TensorSpec{DType: models.FP32, Shape: []int64{-1, 3, -1, -1}}, pixels{scale: 1}, free); err != nil {
		t.Fatal(err)
	}
	whole, wholeHeader := binaryRequest([]worker.Tensor{pixel})
	for name, got := range map[string]reply{
		"pixels":   b.post("/v2/models/cls/infer", whole, HeaderLength, wholeHeader),
		"raw body": b.post("/v2/models/cls/infer", img, HeaderLength, "0"),
	} {
		if got.status != http.StatusOK || !bytes.Equal(got.Outputs[0].raw, want.Outputs[0].raw) {
			t.Errorf("%s: %d %s differs from the image", name, got.status, got.Error)
		}
	}
	got, err := b.overGRPC().ModelInfer(t.Context(), grpcRequest("cls", []worker.Tensor{in}, nil))
	if err != nil || !bytes.Equal(got.RawOutputContents[0], want.Outputs[0].raw) {
		t.Errorf("gRPC: %v differs", err)
	}
	if r := b.post("/v2/models/cls/infer", []byte("no image at all"), HeaderLength, "0"); r.status != http.StatusBadRequest {
		t.Errorf("a raw body that fits nothing: %d %s", r.status, r.Error)
	}
}

// FuzzImage: an image that is taken fills the tensor that its shape promises,
// and asks for its memory first.
func FuzzImage(f *testing.F) {
	f.Add(asPNG(picture(3, 2)), uint8(0))
	f.Add(asJPEG(picture(8, 8)), uint8(1))
	f.Add([]byte("\x89PNG"), uint8(2))
	f.Fuzz(func(t *testing.T, data []byte, kind uint8) {
		want := []models.TensorSpec{
			{DType: models.FP32, Shape: []int64{-1, 3, -1, -1}}, {DType: models.UINT8, Shape: []int64{4, 4, 1}}, {DType: models.UINT8, Shape: []int64{1, 5, 5, 3}},
		}[kind%3]
		var held int64
		in := worker.Tensor{Name: "x", DType: models.BYTES, Data: elements(data)}
		err := decodeImage(&in, want, pixels{scale: 1}, func(n int64) error {
			if held += n; held > 4<<20 {
				return overload()
			}
			return nil
		})
		if err != nil {
			if in.DType != models.BYTES {
				t.Error("an error with a value")
			}
			return
		}
		spec := models.TensorSpec{Shape: in.Shape}
		if n, err := spec.Elements(); err != nil || n*int64(in.DType.Size()) != int64(len(in.Data)) || int64(len(in.Data)) > held {
			t.Errorf("%s %v has %d bytes, %d were asked for", in.DType, in.Shape, len(in.Data), held)
		}
	})
}

// FuzzGRPCRequest: what we read is what generated code reads, and nothing else
// is taken; an error is the client's.
func FuzzGRPCRequest(f *testing.F) {
	seed := func(r *oip.ModelInferRequest) {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	r := grpcRequest("vad", voice(), []string{"output"})
	r.Parameters = map[string]*oip.InferParameter{"priority": {ParameterChoice: &oip.InferParameter_Uint64Param{Uint64Param: 2}}}
	seed(r)
	seed(&oip.ModelInferRequest{ModelName: "m", Inputs: []*oip.ModelInferRequest_InferInputTensor{
		{Name: "a", Datatype: "INT8", Shape: []int64{2}, Contents: &oip.InferTensorContents{IntContents: []int32{-1, 127}}},
		{Name: "b", Datatype: "BYTES", Shape: []int64{1}, Contents: &oip.InferTensorContents{BytesContents: [][]byte{[]byte("x")}}},
	}})
	f.Add(replyPieces(models.Ref{Name: "m", Version: "1"}, &call{}, voice()).Materialize())
	f.Fuzz(func(t *testing.T, b []byte) {
		foreignAnswer(t, backend.Answer{Body: b}, true)
		cutAnywhere(t, b)
		d := grpcDecoder{reserve: free}
		if err := d.decode(b); err != nil {
			if statusOf(err) != http.StatusBadRequest {
				t.Fatalf("status %d: %v", statusOf(err), err)
			}
			return
		}
		var want oip.ModelInferRequest
		if err := proto.Unmarshal(b, &want); err != nil {
			return // generated code checks UTF-8 and field numbers we do not use
		}
		if d.call.model != want.ModelName || d.call.id != want.Id || len(d.call.inputs) != len(want.Inputs) || len(d.call.outputs) != len(want.Outputs) {
			t.Fatalf("read %+v, want %v", d.call, &want)
		}
		for i, in := range d.call.inputs {
			w := want.Inputs[i]
			if in.Name != w.Name || string(in.DType) != w.Datatype || fmt.Sprint(in.Shape) != fmt.Sprint(append([]int64{}, w.Shape...)) {
				t.Fatalf("input %d is %s %s %v, want %v", i, in.Name, in.DType, in.Shape, w)
			}
			if len(want.RawInputContents) > 0 && !bytes.Equal(in.Data, want.RawInputContents[i]) {
				t.Fatalf("input %d has other data", i)
			}
		}
	})
}

// plain is a square of one grey.
func plain(size int, v uint8) image.Image {
	img := image.NewGray(image.Rect(0, 0, size, size))
	for i := range img.Pix {
		img.Pix[i] = v
	}
	return img
}
