// Package air reads dust and pressure sensors that a box may carry: Plantower
// PMS5003 and PMS7003, Nova SDS011 and Sensirion SPS30 on serial lines, and
// Sensirion SPS30 and SDP8xx on I²C.
//
// Vocabulary: dust is mass in the air by size, in µg/m³ (PM2.5: particles up
// to 2.5 µm); a frame is one message of a sensor. A frame whose checksum is
// wrong is skipped; a sensor whose fan stands still says nothing.
//
// Dust in the air tells what a filter is exposed to and not how full it is;
// the difference of pressure across it does.
//
// The one rule a caller can break: a Read opens the port for itself alone and
// waits for the sensor's next frame; give it a context with a deadline.
package air

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
)

// Dust is one reading, in µg/m³; NaN for a size that the sensor does not tell.
type Dust struct{ PM1, PM25, PM10 float64 }

// The kinds of serial sensors.
const (
	PMS5003 = "pms5003" // also PMS7003, PMSA003
	SDS011  = "sds011"
	SPS30   = "sps30"
)

// errIdle says that a sensor answers and measures nothing.
var errIdle = errors.New("the sensor's fan stands still or it has not begun to measure")

// maxDust is beyond the range of all three sensors (SPS30: 1000, SDS011: 999.9).
const maxDust = 3000

func (d Dust) plausible() bool {
	for _, v := range []float64{d.PM1, d.PM25, d.PM10} {
		if math.IsInf(v, 0) || v < 0 || v > maxDust {
			return false
		}
	}
	return !math.IsNaN(d.PM25)
}

// pms finds the last whole frame of a PMS5003 in b: 42 4D, length 28, 13 words
// with the high byte first (three of dust under factory conditions, three under
// atmospheric ones, six counts per 0.1 l, version), and the sum of all before.
func pms(b []byte) (d Dust, found bool, err error) {
	const size = 32
	for i := len(b) - size; i >= 0; i-- {
		f := b[i : i+size]
		if f[0] != 0x42 || f[1] != 0x4D || binary.BigEndian.Uint16(f[2:]) != size-4 {
			continue
		}
		var sum uint16
		for _, c := range f[:size-2] {
			sum += uint16(c)
		}
		if sum != binary.BigEndian.Uint16(f[size-2:]) {
			continue
		}
		word := func(n int) float64 { return float64(binary.BigEndian.Uint16(f[4+2*n:])) }
		if d = (Dust{word(3), word(4), word(5)}); word(6) == 0 || !d.plausible() {
			return Dust{}, true, errIdle // no air holds not one particle above 0.3 µm
		}
		return d, true, nil
	}
	return Dust{}, false, nil
}

// sds finds the last whole frame of an SDS011: AA C0, PM2.5 and PM10 in tenths
// with the low byte first, two bytes of identity, the sum of these six, AB.
func sds(b []byte) (d Dust, found bool, err error) {
	const size = 10
	for i := len(b) - size; i >= 0; i-- {
		f := b[i : i+size]
		if f[0] != 0xAA || f[1] != 0xC0 || f[9] != 0xAB {
			continue
		}
		var sum byte
		for _, c := range f[2:8] {
			sum += c
		}
		if sum != f[8] {
			continue
		}
		tenths := func(n int) float64 { return float64(binary.LittleEndian.Uint16(f[n:])) / 10 }
		if d = (Dust{math.NaN(), tenths(2), tenths(4)}); d.PM25 == 0 && d.PM10 == 0 || !d.plausible() {
			return Dust{}, true, errIdle
		}
		return d, true, nil
	}
	return Dust{}, false, nil
}

// sdsPeriod makes an SDS011 measure for half a minute every minutes minutes
// (0: always): its laser lasts 8,000 hours. Command 8 of its protocol.
func sdsPeriod(minutes byte) []byte {
	f := make([]byte, 19)
	copy(f, []byte{0xAA, 0xB4, 8, 1, minutes})
	f[15], f[16], f[18] = 0xFF, 0xFF, 0xAB
	for _, c := range f[2:17] {
		f[17] += c
	}
	return f
}

// The commands of an SPS30 that are used.
const (
	spsStart = 0x00
	spsRead  = 0x03
	// And on I²C.
	spsBegin  = "\x00\x10\x03\x00\xAC" // with floats, and the checksum of that word
	spsReady  = "\x02\x02"
	spsValues = "\x03\x00"
)

// shdlc frames a command: 7E, address 0, command, length, data, complement of
// the sum, 7E; bytes that mean something on the line are stuffed.
func shdlc(command byte, data ...byte) []byte {
	body := append([]byte{0, command, byte(len(data))}, data...)
	var sum byte
	for _, c := range body {
		sum += c
	}
	out := []byte{0x7E}
	for _, c := range append(body, ^sum) {
		switch c {
		case 0x7E, 0x7D, 0x11, 0x13:
			out = append(out, 0x7D, c^0x20)
		default:
			out = append(out, c)
		}
	}
	return append(out, 0x7E)
}

// unshdlc finds the first whole answer to a command in b and what follows it:
// address, command, state, length, data, complement of the sum.
func unshdlc(b []byte, command byte) (data, rest []byte, found bool) {
	for {
		begin := bytes.IndexByte(b, 0x7E)
		if begin < 0 {
			return nil, nil, false
		}
		end := bytes.IndexByte(b[begin+1:], 0x7E)
		if end < 0 {
			return nil, b[begin:], false
		}
		raw := b[begin+1 : begin+1+end]
		b = b[begin+1+end:] // the closing mark may be the next one's opening
		var f []byte
		for i := 0; i < len(raw); i++ {
			if raw[i] == 0x7D && i+1 < len(raw) {
				i++
				f = append(f, raw[i]^0x20)
				continue
			}
			f = append(f, raw[i])
		}
		if len(f) < 5 || f[1] != command || int(f[3]) != len(f)-5 {
			continue
		}
		var sum byte
		for _, c := range f[:len(f)-1] {
			sum += c
		}
		if ^sum == f[len(f)-1] {
			return f[4 : len(f)-1], b[1:], true
		}
	}
}

// spsDust decodes the ten floats of a reading: mass of PM1, 2.5, 4 and 10, five
// counts, typical size. No data is an answer too: nothing new was measured.
func spsDust(data []byte) (Dust, error) {
	if len(data) != 40 {
		return Dust{}, errIdle
	}
	v := func(n int) float64 { return float64(math.Float32frombits(binary.BigEndian.Uint32(data[4*n:]))) }
	d := Dust{v(0), v(1), v(3)}
	if count := v(8); !d.plausible() || math.IsNaN(d.PM1) || math.IsNaN(d.PM10) || !(count > 0) {
		return Dust{}, errIdle
	}
	return d, nil
}

// Pressure is what an SDP8xx says.
type Pressure struct{ Pascals, Celsius float64 }

var errCRC = errors.New("checksum of the sensor is wrong")

// sdp decodes three words: pressure, temperature in 1/200 °C, and counts per Pa.
func sdp(b []byte) (Pressure, error) {
	data, err := sensirionWords(b, 3)
	if err != nil {
		return Pressure{}, err
	}
	var w [3]int16
	for i := range w {
		w[i] = int16(binary.BigEndian.Uint16(data[2*i:]))
	}
	p := Pressure{Celsius: float64(w[1]) / 200}
	if w[2] <= 0 || p.Celsius <= -40 || p.Celsius > 85 {
		return Pressure{}, errIdle
	}
	p.Pascals = float64(w[0]) / float64(w[2])
	return p, nil
}

// sensirionWords takes the checksums out of words on I²C: two bytes, the higher
// first, and their checksum.
func sensirionWords(b []byte, words int) ([]byte, error) {
	if len(b) != 3*words {
		return nil, errCRC
	}
	data := make([]byte, 0, 2*words)
	for ; len(b) > 0; b = b[3:] {
		if crc8(b[:2]) != b[2] {
			return nil, errCRC
		}
		data = append(data, b[0], b[1])
	}
	return data, nil
}

// crc8 is Sensirion's: polynomial 0x31, first value 0xFF.
func crc8(b []byte) byte {
	crc := byte(0xFF)
	for _, c := range b {
		crc ^= c
		for range 8 {
			if crc&0x80 != 0 {
				crc = crc<<1 ^ 0x31
			} else {
				crc <<= 1
			}
		}
	}
	return crc
}
