package serve

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

func decodeAll(text, tail []byte) (call, error) {
	d := decoder{reserve: func(int64) error { return nil }}
	err := d.decode(text, tail)
	return d.call, err
}

func TestEveryTypeHasItsJSONForm(t *testing.T) {
	for _, tc := range []struct {
		dtype models.DType
		data  string
		shape []int64
		want  []byte
	}{
		{models.BOOL, `[true, false]`, []int64{2}, []byte{1, 0}},
		{models.UINT8, `[0,255]`, []int64{2}, []byte{0, 255}},
		{models.INT8, `[-128,127]`, []int64{2}, []byte{128, 127}},
		{models.UINT16, `[65535]`, []int64{1}, []byte{255, 255}},
		{models.INT16, `[-2]`, []int64{1}, []byte{254, 255}},
		{models.UINT32, `[4294967295]`, []int64{1}, []byte{255, 255, 255, 255}},
		{models.INT32, `[-1]`, []int64{1}, []byte{255, 255, 255, 255}},
		{models.UINT64, `[18446744073709551615]`, []int64{1}, bytes.Repeat([]byte{255}, 8)},
		{models.INT64, `[-9223372036854775808]`, []int64{1}, []byte{0, 0, 0, 0, 0, 0, 0, 128}},
		{models.FP32, `[[1.5],[-0]]`, []int64{2, 1}, []byte{0, 0, 0xc0, 0x3f, 0, 0, 0, 0x80}},
		{models.FP64, `[1]`, []int64{}, []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x3f}},
		{models.BYTES, `["a\n","ü",""]`, []int64{3}, []byte("\x02\x00\x00\x00a\n\x02\x00\x00\x00ü\x00\x00\x00\x00")},
		{models.FP32, `[]`, []int64{0, 4}, nil},
	} {
		shape, _ := json.Marshal(tc.shape)
		// Keys in either order: the type in front of the data, and behind it.
		for _, form := range []string{`{"inputs":[{"name":"x","datatype":%[1]q,"shape":%[2]s,"data":%[3]s}]}`, `{"inputs":[{"data":%[3]s,"shape":%[2]s,"datatype":%[1]q,"name":"x"}]}`} {
			text := fmt.Sprintf(form, tc.dtype, shape, tc.data)
			c, err := decodeAll([]byte(text), nil)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			in := c.inputs[0]
			if in.Name != "x" || in.DType != tc.dtype || fmt.Sprint(in.Shape) != fmt.Sprint(tc.shape) || !bytes.Equal(in.Data, tc.want) {
				t.Errorf("%s: %+v, want data %v", text, in, tc.want)
			}
			back, _, err := appendAnswer(nil, models.Ref{}, &call{}, c.inputs)
			if err != nil {
				t.Errorf("%s: write: %v", text, err)
			}
			again, err := decodeAll(bytes.Replace(back, []byte(`"outputs"`), []byte(`"inputs"`), 1), nil)
			if err != nil || !bytes.Equal(again.inputs[0].Data, tc.want) {
				t.Errorf("%s: written as %s, read as %+v, %v", text, back, again.inputs, err)
			}
		}
	}
}

func TestBadRequestsNameWhatIsWrong(t *testing.T) {
	input := func(s string) string { return `{"inputs":[{"name":"x",` + s + `}]}` }
	for _, tc := range []struct{ text, want string }{
		{input(`"datatype":"UINT8","shape":[1],"data":[256]`), `input "x": element 0: 256 is no UINT8`},
		{input(`"datatype":"INT64","shape":[1],"data":[1.0]`), "1.0 is no INT64"},
		{input(`"datatype":"FP32","shape":[1],"data":[1e39]`), "beyond FP32"},
		{input(`"datatype":"FP32","shape":[1],"data":[NaN]`), "number"},
		{input(`"datatype":"FP32","shape":[1],"data":["1"]`), "number"},
		{input(`"datatype":"FP32","shape":[1],"data":1`), `want '['`},
		{input(`"datatype":"BOOL","shape":[1],"data":[1]`), "true or false"},
		{input(`"datatype":"BYTES","shape":[1],"data":["` + "\xff" + `"]`), "UTF-8"},
		{input(`"datatype":"FP32","shape":[3],"data":[1,2]`), "data has 2 elements, shape [3] needs 3"},
		{input(`"datatype":"FP32","shape":[-1],"data":[]`), "-1 is not an integer"},
		{input(`"datatype":"FP99","shape":[1],"data":[1]`), `"FP99"`},
		{input(`"shape":[1],"data":[1]`), "no datatype"},
		{input(`"datatype":"FP32","data":[1]`), "no shape"},
		{input(`"datatype":"FP32","shape":[1]`), "neither data"},
		{input(`"datatype":"FP32","shape":[1],"data":[1],"parameters":{"binary_data_size":0}`), "both data"},
		{input(`"datatype":"FP32","shape":[1],"data":[1],"data":[2]`), "twice"},
		{input(`"datatype":"FP32","shape":[1],"parameters":{"shared_memory_region":"r"}`), "shared_memory_region"},
		{`{"inputs":[],"inputs":[]}`, "twice"},
		{`{"inputs":[]} x`, "after the end"},
		{`{"inputs":[{}]}`, "without a name"},
		{`{"inputs":[],"outputs":[{}]}`, "without a name"},
		{`{}`, `no "inputs"`},
		{`[]`, `want '{'`},
		{`{"inputs":[`, "ends early"},
		{`{"a":tru}`, "true or false"},
		{`{"a":"` + "\n" + `"}`, "control"},
	} {
		_, err := decodeAll([]byte(tc.text), nil)
		var f *fault
		if err == nil || !strings.Contains(err.Error(), tc.want) || !errors.As(err, &f) || f.status != http.StatusBadRequest {
			t.Errorf("%s: %v, want 400 with %q", tc.text, err, tc.want)
		}
	}
}

// TestAnswersThatJSONCannotHoldAreRefused: the client is told to ask for binary.
func TestAnswersThatJSONCannotHoldAreRefused(t *testing.T) {
	for _, out := range []worker.Tensor{
		{Name: "y", DType: models.FP32, Data: []byte{0, 0, 0xc0, 0x7f}},
		{Name: "y", DType: models.FP64, Data: []byte{0, 0, 0, 0, 0, 0, 0xf0, 0x7f}},
		{Name: "y", DType: models.FP16, Data: []byte{0, 0}},
		{Name: "y", DType: models.BYTES, Data: []byte("\x01\x00\x00\x00\xff")},
	} {
		_, _, err := appendAnswer(nil, models.Ref{}, &call{}, []worker.Tensor{out})
		if err == nil || statusOf(err) != http.StatusBadRequest || !strings.Contains(err.Error(), `"y"`) {
			t.Errorf("%s: %v", out.DType, err)
		}
		if _, tail, err := appendAnswer(nil, models.Ref{}, &call{binary: true}, []worker.Tensor{out}); err != nil || len(tail) != 1 {
			t.Errorf("%s in binary: %v", out.DType, err)
		}
	}
}

func TestTensorMemoryIsReservedAsItGrows(t *testing.T) {
	text := []byte(`{"inputs":[{"name":"x","datatype":"INT64","shape":[100000],"data":[` + strings.Repeat("0,", 99999) + `0]}]}`)
	var held int64
	d := decoder{reserve: func(n int64) error { held += n; return nil }}
	if err := d.decode(text, nil); err != nil || held < 800_000 || held > 800_000+arenaStep {
		t.Errorf("reserved %d bytes for 800000: %v", held, err)
	}
	d = decoder{reserve: func(int64) error { return overload() }}
	if err := d.decode(text, nil); statusOf(err) != http.StatusServiceUnavailable {
		t.Errorf("without memory: %v", err)
	}
}

// FuzzRequest: what decodes is JSON, and says the same when it is written
// again; an error of the decoder is the client's.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"id":"a","parameters":{"binary_data_output":true,"timeout":5},"inputs":[{"name":"x","datatype":"FP32","shape":[2,1],"data":[[1],[-2.5e3]]},{"name":"y","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}],"outputs":[{"name":"z","parameters":{"binary_data":false}}]}`), []byte("\x01\x00\x00\x00a"))
	f.Add(jsonRequest(voice()), []byte(nil))
	f.Add([]byte(`{"inputs":[{"data":["\ud83d\ude00",""],"shape":[2],"datatype":"BYTES","name":"\u0000"}]}`), []byte(nil))
	f.Add([]byte(strings.Repeat("[", 100)), []byte(nil))
	f.Add([]byte(`{"model_name":"m","model_version":"2","outputs":[{"name":"z","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}`), []byte("\x01\x00\x00\x00a"))
	f.Fuzz(func(t *testing.T, text, tail []byte) {
		foreignAnswer(t, backend.Answer{Body: slices.Concat(text, tail), Head: strconv.Itoa(len(text))}, false)
		c, err := decodeAll(text, tail)
		if err != nil {
			if statusOf(err) != http.StatusBadRequest {
				t.Fatalf("status %d: %v", statusOf(err), err)
			}
			return
		}
		if !json.Valid(text) {
			t.Fatalf("accepted what is no JSON: %q", text)
		}
		body, header := binaryRequest(c.inputs)
		head, rest, err := splitBody(body, header)
		if err != nil {
			t.Fatal(err)
		}
		again, err := decodeAll(head, rest)
		if err != nil {
			t.Fatalf("written again as %q: %v", head, err)
		}
		if len(again.inputs) != len(c.inputs) {
			t.Fatalf("%d inputs became %d", len(c.inputs), len(again.inputs))
		}
		for i := range c.inputs {
			a, b := c.inputs[i], again.inputs[i]
			if !bytes.Equal(a.Data, b.Data) || a.Name != b.Name || a.DType != b.DType || !reflect.DeepEqual(a.Shape, b.Shape) {
				t.Fatalf("%+v became %+v", a, b)
			}
		}
	})
}

// FuzzSplitBody: the two parts are the body, or the error is the client's.
func FuzzSplitBody(f *testing.F) {
	f.Add([]byte("{}abc"), "2")
	f.Add([]byte("{}"), "18446744073709551615")
	f.Add([]byte("{}"), "-1")
	f.Add([]byte("{}"), "")
	f.Fuzz(func(t *testing.T, body []byte, header string) {
		text, tail, err := splitBody(body, header)
		if err != nil {
			if text != nil || tail != nil || statusOf(err) != http.StatusBadRequest {
				t.Fatalf("error with a value or another status: %v", err)
			}
			return
		}
		if !bytes.Equal(append(bytes.Clone(text), tail...), body) || header != "" && fmt.Sprint(len(text)) != strings.TrimLeft(header, "0") && len(text) != 0 {
			t.Fatalf("%q at %q became %q and %q", body, header, text, tail)
		}
	})
}
