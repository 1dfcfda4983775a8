package health

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// hourVersion is the first byte of a stored hour. 1: the layout below.
const hourVersion = 1

// hourHead is version, start in hours, samples, period, stopped and the bits
// of the figures that are there. A figure follows as a float32.
const hourHead = 1 + 4 + 2 + 2 + Fans + 4

// AppendBinary appends the stored form of an hour: 17 bytes and 4 for each
// figure that is there, so at most 133.
func (h Hour) AppendBinary(b []byte) ([]byte, error) {
	hours := h.Start / hourSeconds
	if h.Start%hourSeconds != 0 || hours < 0 || hours > math.MaxUint32 {
		return b, fmt.Errorf("hour starts at %d, which is no whole hour of Unix time", h.Start)
	}
	b = append(b, hourVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(hours))
	b = binary.BigEndian.AppendUint16(b, h.Samples)
	b = binary.BigEndian.AppendUint16(b, h.Period)
	b = append(b, h.Stopped[:]...)
	var bits uint32
	for f, v := range h.V {
		if v.OK() {
			bits |= 1 << f
		}
	}
	b = binary.BigEndian.AppendUint32(b, bits)
	for _, v := range h.V {
		if v.OK() {
			b = binary.BigEndian.AppendUint32(b, math.Float32bits(float32(v)))
		}
	}
	return b, nil
}

// MarshalText is the stored form in base64, so that JSON holds hours.
func (h Hour) MarshalText() ([]byte, error) {
	b, err := h.AppendBinary(nil)
	return base64.StdEncoding.AppendEncode(nil, b), err
}

// UnmarshalText reads what MarshalText wrote.
func (h *Hour) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return fmt.Errorf("hour: %w", err)
	}
	return h.UnmarshalBinary(b)
}

// UnmarshalBinary reads what AppendBinary wrote. After an error h is as it was.
func (h *Hour) UnmarshalBinary(b []byte) error {
	if len(b) == 0 || b[0] != hourVersion {
		return errors.New("hour: not of a version that this program knows; update it")
	}
	if len(b) < hourHead {
		return fmt.Errorf("hour: %d bytes, want at least %d", len(b), hourHead)
	}
	out := Hour{
		Start:   int64(binary.BigEndian.Uint32(b[1:])) * hourSeconds,
		V:       Blank(),
		Samples: binary.BigEndian.Uint16(b[5:]),
		Period:  binary.BigEndian.Uint16(b[7:]),
	}
	copy(out.Stopped[:], b[9:])
	bits := binary.BigEndian.Uint32(b[9+Fans:])
	rest := b[hourHead:]
	if bits>>fields != 0 {
		return errors.New("hour: has figures that this program does not know; update it")
	}
	for f := range out.V {
		if bits&(1<<f) == 0 {
			continue
		}
		if len(rest) < 4 {
			return fmt.Errorf("hour: cut off before figure %d", f)
		}
		v := Value(math.Float32frombits(binary.BigEndian.Uint32(rest)))
		if !v.OK() || math.IsInf(float64(v), 0) {
			return fmt.Errorf("hour: figure %d is there and is not a number", f)
		}
		out.V[f], rest = v, rest[4:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("hour: %d bytes too many", len(rest))
	}
	*h = out
	return nil
}
