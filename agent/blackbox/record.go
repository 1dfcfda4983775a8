package blackbox

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"time"
)

// A record is 512 bytes, little endian:
//
//	0    magic "EHB1"
//	4    head (see recordHead)
//	64   up to 13 samples of 32 bytes, oldest first
//	508  CRC-32C of what comes before
const (
	recordBytes = 512
	headAt      = 4
	samplesAt   = 64
	sampleBytes = 32
	maxSamples  = 13
	crcAt       = recordBytes - 4
	magic       = "EHB1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Flags of a record.
const (
	flagClean     = 1 << iota // the recorder was told to stop
	flagGoingDown             // and the system was on its way down
	flagUrgent                // written at once: heat, throttling or under-voltage
)

type recordHead struct {
	Seq      uint64
	Boot     [8]byte
	WallMs   int64 // 0: nobody vouches for the clock
	MonoMs   int64 // since boot, of the last sample
	Flags    uint16
	Count    uint8 // samples
	_        uint8
	OOMKills uint32 // since boot, as are the other counts
	Throttle uint32
	LowVolts uint32
}

// Record is one entry of the ring.
type Record struct {
	recordHead
	Samples []Sample
}

// Sample is one reading. NaN is a figure that was not read.
type Sample struct {
	Mono              time.Duration // since boot
	Die, Inlet        float64       // °C
	Board, SSD        float64       // °C
	Watts, Volts      float64       // of the box's supply
	RPM               [4]float64
	Duty, Throttled   float64 // 0..1
	Busy, Memory      float64 // 0..1
	ClockHertz, Load1 float64
	LatencySeconds    float64 // the slowest model's 95th percentile
	ThrottleCount     float64 // since boot
}

// packed is a sample in a record. All bits set is a figure that is missing.
type packed struct {
	BeforeDs               uint16 // 0.1 s before the record's MonoMs
	Die, Inlet, Board, SSD uint16 // 0.1 K above −100 °C
	Watts                  uint16 // 0.1 W
	RPM                    [4]uint16
	Duty, Throttled        uint8 // 1/200
	Busy, Memory           uint8
	ClockMHz               uint16
	Volts                  uint16 // 10 mV
	Load1                  uint16 // 0.01
	LatencyMs              uint16
}

func pack16(v, scale, offset float64) uint16 {
	if v != v {
		return math.MaxUint16
	}
	return uint16(min(max(math.Round((v-offset)*scale), 0), math.MaxUint16-1))
}

func unpack16(v uint16, scale, offset float64) float64 {
	if v == math.MaxUint16 {
		return math.NaN()
	}
	return math.Round((float64(v)/scale+offset)*1e3) / 1e3 // 24.1, not 24.0999
}

func pack8(v float64) uint8 {
	if v != v {
		return math.MaxUint8
	}
	return uint8(min(max(math.Round(v*200), 0), math.MaxUint8-1))
}

func unpack8(v uint8) float64 {
	if v == math.MaxUint8 {
		return math.NaN()
	}
	return float64(v) / 200
}

func (s *Sample) pack(monoMs int64) packed {
	p := packed{
		BeforeDs: pack16(float64(monoMs-s.Mono.Milliseconds()), 0.01, 0),
		Die:      pack16(s.Die, 10, -100), Inlet: pack16(s.Inlet, 10, -100), Board: pack16(s.Board, 10, -100), SSD: pack16(s.SSD, 10, -100),
		Watts: pack16(s.Watts, 10, 0), Volts: pack16(s.Volts, 100, 0),
		Duty: pack8(s.Duty), Throttled: pack8(s.Throttled), Busy: pack8(s.Busy), Memory: pack8(s.Memory),
		ClockMHz: pack16(s.ClockHertz, 1e-6, 0), Load1: pack16(s.Load1, 100, 0), LatencyMs: pack16(s.LatencySeconds, 1000, 0),
	}
	for i, v := range s.RPM {
		p.RPM[i] = pack16(v, 1, 0)
	}
	return p
}

func (p *packed) unpack(monoMs int64) Sample {
	s := Sample{
		Mono: time.Duration(monoMs-int64(p.BeforeDs)*100) * time.Millisecond,
		Die:  unpack16(p.Die, 10, -100), Inlet: unpack16(p.Inlet, 10, -100), Board: unpack16(p.Board, 10, -100), SSD: unpack16(p.SSD, 10, -100),
		Watts: unpack16(p.Watts, 10, 0), Volts: unpack16(p.Volts, 100, 0),
		Duty: unpack8(p.Duty), Throttled: unpack8(p.Throttled), Busy: unpack8(p.Busy), Memory: unpack8(p.Memory),
		ClockHertz: unpack16(p.ClockMHz, 1, 0) * 1e6, Load1: unpack16(p.Load1, 100, 0), LatencySeconds: unpack16(p.LatencyMs, 1000, 0),
		ThrottleCount: math.NaN(),
	}
	for i, v := range p.RPM {
		s.RPM[i] = unpack16(v, 1, 0)
	}
	return s
}

// encode returns the 512 bytes of a record with at most maxSamples samples.
func (r *Record) encode() []byte {
	r.Count = uint8(len(r.Samples))
	out := append(make([]byte, 0, recordBytes), magic...)
	out = appendStruct(out, r.recordHead)
	out = append(out, make([]byte, samplesAt-len(out))...)
	for i := range r.Samples {
		out = appendStruct(out, r.Samples[i].pack(r.MonoMs))
	}
	out = append(out, make([]byte, crcAt-len(out))...)
	return binary.LittleEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// appendStruct appends a struct of fixed size, which always has an encoding.
func appendStruct(b []byte, v any) []byte {
	out, err := binary.Append(b, binary.LittleEndian, v)
	if err != nil {
		panic("blackbox: a struct of fixed size has no encoding: " + err.Error())
	}
	return out
}

var errNoRecord = errors.New("no whole record")

// decode reads what encode wrote, and nothing else.
func decode(b []byte) (Record, error) {
	var r Record
	if len(b) != recordBytes || string(b[:headAt]) != magic ||
		binary.LittleEndian.Uint32(b[crcAt:]) != crc32.Checksum(b[:crcAt], castagnoli) {
		return Record{}, errNoRecord
	}
	if _, err := binary.Decode(b[headAt:], binary.LittleEndian, &r.recordHead); err != nil || r.Count > maxSamples {
		return Record{}, errNoRecord
	}
	for i := range int(r.Count) {
		var p packed
		if _, err := binary.Decode(b[samplesAt+i*sampleBytes:], binary.LittleEndian, &p); err != nil {
			return Record{}, errNoRecord
		}
		r.Samples = append(r.Samples, p.unpack(r.MonoMs))
	}
	if !bytes.Equal(r.encode(), b) { // bits that no encoder sets
		return Record{}, errNoRecord
	}
	return r, nil
}

// Last is the newest sample, or one with everything missing.
func (r *Record) Last() Sample {
	if n := len(r.Samples); n > 0 {
		return r.Samples[n-1]
	}
	return Blank()
}

// Blank has every figure missing.
func Blank() Sample {
	nan := math.NaN()
	return Sample{
		Die: nan, Inlet: nan, Board: nan, SSD: nan, Watts: nan, Volts: nan, RPM: [4]float64{nan, nan, nan, nan},
		Duty: nan, Throttled: nan, Busy: nan, Memory: nan, ClockHertz: nan, Load1: nan, LatencySeconds: nan, ThrottleCount: nan,
	}
}
