package wire

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"
)

// Limits of the protocol. A message beyond one of them is refused whole.
const (
	// MaxPayloadBytes bounds the payload of a block. With MaxSchemaBytes it
	// leaves room for one block and its schema in any Data message.
	MaxPayloadBytes    = 80 << 10
	MaxSchemaBytes     = 32 << 10
	MaxMetrics         = 1024 // columns of a schema
	MaxRows            = 4096 // records of a samples block
	MaxCells           = 1 << 18
	MaxBlocks          = 256  // of one Data
	MaxPacks           = 64   // of one Data
	MaxSchemas         = 16   // of one Data
	MaxKeys            = 2048 // of one Ack
	MaxStreams         = 512  // of one Hello
	MaxRuns            = 1024 // of one Hello and one Welcome
	MaxKnownSchemas    = 512  // of one Welcome
	MaxQuiet           = 64   // of one Welcome
	MaxLiveSamples     = 1024
	MaxModels          = 64 // of Running
	MaxConfigDocuments = 16 // of Running
	MaxLocalSettings   = 64 // of Running
	MaxRecords         = 4096
	MaxGapRanges       = 1024
	maxName            = 128
	maxText            = 1024
	maxBody            = 16 << 10
)

// ErrVersion is wrapped by the error for a message of another protocol version.
var ErrVersion = errors.New("unknown protocol version")

// Deterministic encoding (RFC 8949 section 4.2.1); nil slices are empty ones.
var encoding = must(cbor.EncOptions{
	Sort:          cbor.SortCoreDeterministic,
	ShortestFloat: cbor.ShortestFloat16,
	NaNConvert:    cbor.NaNConvert7e00,
	InfConvert:    cbor.InfConvertFloat16,
	IndefLength:   cbor.IndefLengthForbidden,
	TagsMd:        cbor.TagsForbidden,
	NilContainers: cbor.NilContainerAsEmpty,
}.EncMode())

// Unknown map keys are ignored, so that a box that was not updated for years
// still understands the welcome that brings its update.
var decoding = must(cbor.DecOptions{
	DupMapKey:        cbor.DupMapKeyEnforcedAPF,
	IndefLength:      cbor.IndefLengthForbidden,
	TagsMd:           cbor.TagsForbidden,
	MaxNestedLevels:  8,
	MaxArrayElements: 4096,
	MaxMapPairs:      64,
}.DecMode())

func must[T any](v T, err error) T {
	if err != nil {
		panic("wire: CBOR options: " + err.Error())
	}
	return v
}

// checker is a message with limits of its own.
type checker interface{ check() error }

// Encode returns the deterministic CBOR of a message, or an error if it breaks
// a limit of the protocol.
func Encode(v any) ([]byte, error) {
	if c, ok := v.(checker); ok {
		if err := c.check(); err != nil {
			return nil, fmt.Errorf("encode %s: %w", nameOf(v), err)
		}
	}
	data, err := encoding.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", nameOf(v), err)
	}
	if len(data) > MaxMessageBytes {
		return nil, fmt.Errorf("encode %s: %d bytes, the limit is %d", nameOf(v), len(data), MaxMessageBytes)
	}
	return data, nil
}

// Decode reads one message. It returns the zero value with every error.
func Decode[T any](data []byte) (T, error) {
	var v, zero T
	if len(data) > MaxMessageBytes {
		return zero, fmt.Errorf("decode %s: %d bytes, the limit is %d", nameOf(v), len(data), MaxMessageBytes)
	}
	if err := decoding.Unmarshal(data, &v); err != nil {
		return zero, fmt.Errorf("decode %s: %w", nameOf(v), err)
	}
	if c, ok := any(v).(checker); ok {
		if err := c.check(); err != nil {
			return zero, fmt.Errorf("decode %s: %w", nameOf(v), err)
		}
	}
	return v, nil
}

func nameOf(v any) string {
	return strings.ToLower(strings.TrimPrefix(strings.TrimLeft(reflect.TypeOf(v).String(), "*[]"), "wire."))
}

// octets reads a CBOR byte string of exactly 8 bytes. The library would pad a
// shorter one and cut a longer one.
func octets(dst *[8]byte, data []byte) error {
	if len(data) != 9 || data[0] != 0x48 {
		return errors.New("not a byte string of 8")
	}
	copy(dst[:], data[1:])
	return nil
}

// UnmarshalCBOR accepts exactly 8 bytes.
func (v *SID) UnmarshalCBOR(data []byte) error { return octets((*[8]byte)(v), data) }

// UnmarshalCBOR accepts exactly 8 bytes.
func (v *BootID) UnmarshalCBOR(data []byte) error { return octets((*[8]byte)(v), data) }

// UnmarshalCBOR accepts exactly 8 bytes.
func (v *H64) UnmarshalCBOR(data []byte) error { return octets((*[8]byte)(v), data) }

// UnmarshalCBOR accepts exactly 8 bytes.
func (v *SchemaID) UnmarshalCBOR(data []byte) error { return octets((*[8]byte)(v), data) }

// UnmarshalCBOR accepts exactly 8 bytes.
func (v *RunID) UnmarshalCBOR(data []byte) error { return octets((*[8]byte)(v), data) }

// UnmarshalCBOR accepts exactly 8 bytes.
func (v *Nonce) UnmarshalCBOR(data []byte) error { return octets((*[8]byte)(v), data) }

func version(v uint) error {
	if v != Version {
		return fmt.Errorf("version %d, this program speaks %d: %w", v, Version, ErrVersion)
	}
	return nil
}

func atMost(what string, n, limit int) error {
	if n > limit {
		return fmt.Errorf("%d %s, the limit is %d", n, what, limit)
	}
	return nil
}

func text(what, s string, limit int) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("%s is not UTF-8", what)
	}
	if len(s) > limit { // spares the allocation of a text that nobody reads
		return atMost("bytes of "+what, len(s), limit)
	}
	return nil
}

// clean makes s valid UTF-8 of at most limit bytes.
func clean(s string, limit int) string {
	s = strings.ToValidUTF8(s, "�")
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
