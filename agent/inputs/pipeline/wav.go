package pipeline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// sampleRate is the only one that pipelines take, in hertz.
const sampleRate = 16000

var errNotWAV = errors.New("not a WAV file")

// ParseWAV returns the samples of a 16 kHz mono 16-bit PCM file, −1 to 1.
func ParseWAV(data []byte) ([]float32, error) {
	if len(data) < 12 || string(data[:4]) != "RIFF" || string(data[8:12]) != "WAVE" {
		return nil, errNotWAV
	}
	format := false
	for rest := data[12:]; len(rest) >= 8; {
		id, size := string(rest[:4]), uint64(binary.LittleEndian.Uint32(rest[4:]))
		rest = rest[8:]
		if id == "data" && size == math.MaxUint32 {
			size = uint64(len(rest)) // written to a pipe: the length was not known
		}
		if size > uint64(len(rest)) {
			return nil, fmt.Errorf("WAV file is cut off: its %q part has %d of %d bytes", id, len(rest), size)
		}
		body := rest[:size]
		switch id {
		case "fmt ":
			if err := checkFormat(body); err != nil {
				return nil, err
			}
			format = true
		case "data":
			if !format {
				return nil, errors.New("WAV file has data before its format")
			}
			return samples(body), nil
		}
		rest = rest[min(size+size%2, uint64(len(rest))):] // parts start at even places
	}
	return nil, errors.New("WAV file has no data")
}

func checkFormat(b []byte) error {
	const pcm, extensible = 1, 0xFFFE
	if len(b) < 16 {
		return fmt.Errorf("WAV format has %d bytes", len(b))
	}
	le := binary.LittleEndian
	code := le.Uint16(b)
	if code == extensible && len(b) >= 26 {
		code = le.Uint16(b[24:]) // the sub-format starts with the old code
	}
	channels, rate, bits := le.Uint16(b[2:]), le.Uint32(b[4:]), le.Uint16(b[14:])
	if code != pcm || channels != 1 || rate != sampleRate || bits != 16 {
		return fmt.Errorf("WAV file has format %d, %d channels, %d Hz, %d bits; convert it with `sox in.wav -r 16000 -c 1 -b 16 out.wav`",
			code, channels, rate, bits)
	}
	return nil
}

func samples(b []byte) []float32 {
	out := make([]float32, len(b)/2)
	for i := range out {
		out[i] = float32(int16(binary.LittleEndian.Uint16(b[2*i:]))) / 32768
	}
	return out
}
