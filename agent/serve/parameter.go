package serve

import (
	"fmt"
	"math"
	"net/http"
	"time"
)

// The kinds of a parameter's value.
const (
	isOther = iota // null, an array or an object
	isBool
	isNumber
	isText
)

// value is that of a parameter, in JSON or protobuf.
type value struct {
	kind   int
	flag   bool
	number float64
	text   string
}

// whole returns a number from 0 to max.
func (v value) whole(key string, max float64) (uint64, error) {
	if v.kind != isNumber || v.number < 0 || v.number > max || v.number != math.Trunc(v.number) {
		return 0, fmt.Errorf("parameter %q is not an integer from 0 to %.0f", key, max)
	}
	return uint64(v.number), nil
}

func (v value) boolean(key string) (bool, error) {
	if v.kind != isBool {
		return false, fmt.Errorf("parameter %q is not true or false", key)
	}
	return v.flag, nil
}

// maxTimeout bounds the parameter timeout, which is in microseconds.
const maxTimeout = math.MaxInt64 / int64(time.Microsecond)

// minVariant is the parameter by which a caller insists on a variant, or a
// better one, of the model.
const minVariant = "min_variant"

// requestParameter takes a parameter of the whole request.
func (c *call) requestParameter(key string, v value) (err error) {
	var n uint64
	switch key {
	case "binary_data_output":
		c.binary, err = v.boolean(key)
	case "timeout": // microseconds, Triton's schedule policy extension
		n, err = v.whole(key, float64(maxTimeout/2))
		c.timeout = time.Duration(n) * time.Microsecond
	case "priority": // 1 is the highest, 0 the default
		c.priority, err = v.whole(key, math.MaxUint32)
	case minVariant:
		if v.kind != isText {
			return fmt.Errorf("parameter %q is not the name of a variant", key)
		}
		c.least = v.text
	case "sequence_id", "sequence_start", "sequence_end":
		if v.kind == isNumber && v.number == 0 || v.kind == isBool && !v.flag || v.kind == isText && v.text == "" {
			return nil // clients send these when they mean none
		}
		return faultf(http.StatusBadRequest, "parameter %q: no model here keeps state between requests; send the state with each", key)
	}
	return err
}

// inputParameter takes a parameter of input number i.
func (c *call) inputParameter(i int, key string, v value) error {
	switch key {
	case "shared_memory_region":
		return errSharedMemory
	case "mean", "scale":
		if v.kind != isNumber {
			return fmt.Errorf("parameter %q is no number", key)
		}
		p := c.pixelsOf(i)
		if key == "mean" {
			p.mean = v.number
		} else {
			p.scale = v.number
		}
		if c.pixels == nil {
			c.pixels = map[int]pixels{}
		}
		c.pixels[i] = p
	}
	return nil
}

// parameter takes a parameter of a requested output.
func (o *wanted) parameter(key string, v value) (err error) {
	switch key {
	case "binary_data":
		o.binary, err = v.boolean(key)
		o.form = true
	case "shared_memory_region":
		err = errSharedMemory
	case "classification":
		var n uint64
		n, err = v.whole(key, math.MaxInt32)
		o.classes = int(n)
	}
	return err
}

var errSharedMemory = faultf(http.StatusBadRequest, "shared memory regions (shared_memory_region) are not supported: send the tensors, over the unix socket from a process on the same machine")
