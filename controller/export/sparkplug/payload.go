package sparkplug

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// The wire format is org.eclipse.tahu.protobuf.Payload of sparkplug_b.proto, as
// far as it is used here:
//
//	Payload { uint64 timestamp = 1; repeated Metric metrics = 2; uint64 seq = 3 }
//	Metric  { string name = 1; uint64 alias = 2; uint64 timestamp = 3;
//	          uint32 datatype = 4; bool is_historical = 5; bool is_null = 7;
//	          oneof value { uint32 int_value = 10; uint64 long_value = 11;
//	          double double_value = 13; bool boolean_value = 14;
//	          string string_value = 15 } }

// The data types that are used, by their numbers in the specification.
const (
	typeInt32   = 3
	typeInt64   = 4
	typeDouble  = 10
	typeBoolean = 11
	typeString  = 12
)

// metric is one value of a message.
type metric struct {
	name       string // empty where the alias stands for it
	alias      uint64 // 0: none
	ms         int64  // Unix milliseconds
	datatype   uint32
	bare       bool // the datatype is not written: the birth told it
	historical bool
	null       bool
	integer    int64   // of typeInt32 and typeInt64
	double     float64 // of typeDouble
	boolean    bool    // of typeBoolean
	text       string  // of typeString
}

// noSeq marks the payload of a death, which has no sequence number.
const noSeq = -1

// encodePayload writes a message of the time ms.
func encodePayload(ms int64, seq int, metrics []metric) []byte {
	out := appendUint(nil, 1, uint64(ms))
	var one []byte
	for _, m := range metrics {
		one = m.append(one[:0])
		out = protowire.AppendTag(out, 2, protowire.BytesType)
		out = protowire.AppendBytes(out, one)
	}
	if seq != noSeq {
		out = appendUint(out, 3, uint64(seq))
	}
	return out
}

func appendUint(out []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(out, field, protowire.VarintType), v)
}

func appendString(out []byte, field protowire.Number, v string) []byte {
	return protowire.AppendString(protowire.AppendTag(out, field, protowire.BytesType), v)
}

func (m *metric) append(out []byte) []byte {
	if m.name != "" {
		out = appendString(out, 1, m.name)
	}
	if m.alias != 0 {
		out = appendUint(out, 2, m.alias)
	}
	out = appendUint(out, 3, uint64(m.ms))
	if !m.bare {
		out = appendUint(out, 4, uint64(m.datatype))
	}
	if m.historical {
		out = appendUint(out, 5, 1)
	}
	if m.null {
		return appendUint(out, 7, 1)
	}
	switch m.datatype {
	case typeInt32:
		return appendUint(out, 10, uint64(uint32(m.integer)))
	case typeInt64:
		return appendUint(out, 11, uint64(m.integer))
	case typeDouble:
		return protowire.AppendFixed64(protowire.AppendTag(out, 13, protowire.Fixed64Type), math.Float64bits(m.double))
	case typeBoolean:
		return appendUint(out, 14, protowire.EncodeBool(m.boolean))
	default:
		return appendString(out, 15, m.text)
	}
}

// command is one metric of an NCMD.
type command struct {
	name string
	on   bool // its boolean value
}

// Bounds of a command: what we know fits many times.
const (
	maxCommandBytes = 64 << 10
	maxCommands     = 256
)

// decodeCommand reads the metrics of an NCMD that have a name. Fields that it
// does not know it passes over, as protobuf wants it.
func decodeCommand(data []byte) ([]command, error) {
	if len(data) > maxCommandBytes {
		return nil, fmt.Errorf("command of %d bytes", len(data))
	}
	var out []command
	err := eachField(data, func(field protowire.Number, typ protowire.Type, raw []byte, _ uint64) error {
		if field != 2 || typ != protowire.BytesType {
			return nil
		}
		if len(out) == maxCommands {
			return errors.New("too many metrics in one command")
		}
		var c command
		err := eachField(raw, func(field protowire.Number, typ protowire.Type, raw []byte, v uint64) error {
			switch {
			case field == 1 && typ == protowire.BytesType:
				c.name = string(raw)
			case field == 14 && typ == protowire.VarintType:
				c.on = v != 0
			}
			return nil
		})
		out = append(out, c)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("decode command: %w", err)
	}
	return out, nil
}

func eachField(b []byte, each func(field protowire.Number, typ protowire.Type, raw []byte, v uint64) error) error {
	for len(b) > 0 {
		field, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var raw []byte
		var v uint64
		switch typ {
		case protowire.BytesType:
			raw, n = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(b)
		default:
			n = protowire.ConsumeFieldValue(field, typ, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := each(field, typ, raw, v); err != nil {
			return err
		}
	}
	return nil
}
