package boxconfig

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// value checks one text against a field and returns what stands in content:
// a string, an int64, a float64 or a bool. text is as it was written.
func (f Field) value(text string) (any, error) {
	if len(text) > maxText {
		return nil, fmt.Errorf("%d bytes are too long; at most %d", len(text), maxText)
	}
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return nil, fmt.Errorf("%.80q has a line end or another control character", text)
	}
	switch f.Type {
	case Duration:
		return f.duration(text)
	case Whole:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%.80q is no whole number; want %s", text, f.Range())
		}
		if float64(n) < f.Low || float64(n) > f.High {
			return nil, fmt.Errorf("%d is out of range; want %s", n, f.Range())
		}
		return n, nil
	case Share:
		n, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(n) || n < f.Low || n > f.High {
			return nil, fmt.Errorf("%.80q is no number from %g to %g", text, f.Low, f.High)
		}
		return n, nil
	case Flag:
		if text != "true" && text != "false" {
			return nil, fmt.Errorf("%.80q is neither true nor false", text)
		}
		return text == "true", nil
	}
	if len(f.OneOf) > 0 && !slices.Contains(f.OneOf, text) {
		return nil, fmt.Errorf("%.80q: want one of %s", text, strings.Join(f.OneOf, ", "))
	}
	if name, ok := strings.CutPrefix(text, "secret:"); f.Secret && text != "" {
		if !ok {
			return nil, fmt.Errorf("%.80q is no secret:NAME: a fleet's document names secrets, never files or values", text)
		}
		if err := wire.CheckSecretName(name); err != nil {
			return nil, err
		}
	}
	return text, nil
}

func (f Field) duration(text string) (any, error) {
	d, err := time.ParseDuration(text)
	if err != nil {
		if _, number := strconv.ParseFloat(text, 64); number == nil && text != "0" {
			return nil, fmt.Errorf("%.80q has no unit; want a time such as %ss or %sm", text, text, text)
		}
		return nil, fmt.Errorf("%.80q is no time; want a number with its unit, such as 500ms, 10s, 5m or 1h", text)
	}
	if s := d.Seconds(); s < f.Low || s > f.High {
		return nil, fmt.Errorf("%s is out of range; want %s", text, f.Range())
	}
	return short(d), nil
}

// short writes a time as people do: 1m and not 1m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// Range is what a field takes, for people.
func (f Field) Range() string {
	seconds := func(s float64) string { return short(time.Duration(s * float64(time.Second))) }
	number := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
	switch {
	case len(f.OneOf) > 0:
		return strings.Join(f.OneOf, ", ")
	case f.Secret:
		return "secret:NAME"
	case f.Type == Duration:
		return seconds(f.Low) + " to " + seconds(f.High)
	case f.Type == Whole || f.Type == Share:
		out := number(f.Low) + " to " + number(f.High)
		if f.Unit != "" {
			out += " " + f.Unit
		}
		return out
	}
	return ""
}
