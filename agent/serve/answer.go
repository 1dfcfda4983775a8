package serve

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// appendAnswer writes the JSON of an inference response and returns the
// tensors that follow it in binary.
func appendAnswer(b []byte, ref models.Ref, c *call, outs []worker.Tensor) (text []byte, tail []worker.Tensor, err error) {
	b = append(b, `{"model_name":`...)
	b = appendText(b, ref.Name)
	b = append(b, `,"model_version":`...)
	b = appendText(b, ref.Version)
	if c.id != "" {
		b = append(b, `,"id":`...)
		b = appendText(b, c.id)
	}
	b = appendSaid(b, c)
	b = append(b, `,"outputs":[`...)
	for i := range outs {
		t := &outs[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendTensor(b, t)
		if c.wantsBinary(i) {
			b = appendSize(b, t)
			tail = append(tail, *t)
		} else {
			b = append(b, `,"data":[`...)
			if b, err = appendData(b, t); err != nil {
				return nil, nil, faultf(http.StatusBadRequest, "output %q: %w", t.Name, err)
			}
			b = append(b, ']')
		}
		b = append(b, '}')
	}
	return append(b, "]}"...), tail, nil
}

// appendTensor begins the object of a tensor: name, type and shape.
func appendTensor(b []byte, t *worker.Tensor) []byte {
	b = appendText(append(b, `{"name":`...), t.Name)
	b = append(append(append(b, `,"datatype":"`...), t.DType...), `","shape":[`...)
	for i, n := range t.Shape {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, n, 10)
	}
	return append(b, ']')
}

// appendSize says that the data of a tensor follow in binary.
func appendSize(b []byte, t *worker.Tensor) []byte {
	b = append(b, `,"parameters":{"binary_data_size":`...)
	return append(strconv.AppendInt(b, int64(len(t.Data)), 10), '}')
}

// appendSaid writes the parameters of an answer, if there are any.
func appendSaid(b []byte, c *call) []byte {
	lead := `,"parameters":{`
	for _, p := range [...]struct{ key, text string }{{"variant", c.variant}, {"served_by", c.served}} {
		if p.text != "" {
			b = append(append(append(append(b, lead...), '"'), p.key...), `":`...)
			b, lead = appendText(b, p.text), ","
		}
	}
	if lead == "," {
		b = append(b, '}')
	}
	return b
}

// wantsBinary tells the form of output i: outputs come in the order in which
// the request names them.
func (c *call) wantsBinary(i int) bool {
	if len(c.outputs) == 0 {
		return c.binary
	}
	return c.outputs[i].binary
}

func (c *call) outputNames() []string {
	var names []string
	for _, o := range c.outputs {
		names = append(names, o.name)
	}
	return names
}

func appendText(b []byte, s string) []byte {
	plain := true
	for i := range len(s) {
		c := s[i]
		plain = plain && c >= ' ' && c < utf8.RuneSelf && c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	if plain { // as nearly all names are
		return append(append(append(b, '"'), s...), '"')
	}
	text, err := json.Marshal(s)
	if err != nil {
		panic("serve: string that JSON cannot hold: " + err.Error()) // Marshal replaces what is not UTF-8
	}
	return append(b, text...)
}

// appendData writes the elements with commas between.
func appendData(b []byte, t *worker.Tensor) ([]byte, error) {
	switch t.DType {
	case models.FP16, models.BF16:
		return nil, fmt.Errorf("%s has no JSON form, ask for it with binary_data", t.DType)
	case models.BYTES:
		return appendStrings(b, t.Data)
	case models.FP32:
		b = slices.Grow(b, len(t.Data)*3)
		for rest := t.Data; len(rest) >= 4; rest = rest[4:] {
			f := float64(math.Float32frombits(binary.LittleEndian.Uint32(rest)))
			if f-f != 0 {
				return nil, errNotFinite(f)
			}
			b = append(strconv.AppendFloat(b, f, 'g', -1, 32), ',')
		}
	case models.FP64:
		for rest := t.Data; len(rest) >= 8; rest = rest[8:] {
			f := math.Float64frombits(binary.LittleEndian.Uint64(rest))
			if f-f != 0 {
				return nil, errNotFinite(f)
			}
			b = append(strconv.AppendFloat(b, f, 'g', -1, 64), ',')
		}
	case models.BOOL:
		for _, v := range t.Data {
			b = append(strconv.AppendBool(b, v != 0), ',')
		}
	default:
		b = appendIntegers(b, t)
	}
	if len(t.Data) == 0 {
		return b, nil
	}
	return b[:len(b)-1], nil // the last comma
}

func errNotFinite(f float64) error {
	return fmt.Errorf("holds %v, which has no JSON form, ask for it with binary_data", f)
}

func appendIntegers(b []byte, t *worker.Tensor) []byte {
	size := t.DType.Size()
	signed := t.DType[0] == 'I'
	for rest := t.Data; len(rest) >= size; rest = rest[size:] {
		var v uint64
		for i := size - 1; i >= 0; i-- {
			v = v<<8 | uint64(rest[i])
		}
		if signed {
			unused := 64 - 8*size
			b = strconv.AppendInt(b, int64(v<<unused)>>unused, 10)
		} else {
			b = strconv.AppendUint(b, v, 10)
		}
		b = append(b, ',')
	}
	return b
}

func appendStrings(b, data []byte) ([]byte, error) {
	for first := true; len(data) >= 4; first = false {
		n := binary.LittleEndian.Uint32(data)
		text := data[4 : 4+n]
		if !utf8.Valid(text) {
			return nil, fmt.Errorf("holds bytes that are not UTF-8, ask for it with binary_data")
		}
		if !first {
			b = append(b, ',')
		}
		b = appendText(b, string(text))
		data = data[4+n:]
	}
	return b, nil
}
