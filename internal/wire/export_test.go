package wire

import "errors"

// What tests of forged packs need.

// Reseal gives a pack that was changed a CRC that fits.
func Reseal(p Pack) Pack {
	crc, err := p.checksum()
	if err != nil {
		panic(err)
	}
	p.CRC = crc
	return p
}

type tb interface{ Fatal(...any) }

// RawOf is the payload of a pack before compression.
func RawOf(t tb, p Pack) []byte {
	raw, err := expand(p.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// WithRaw gives a pack another payload, if it can be one.
func WithRaw(p Pack, raw []byte) (Pack, bool) {
	if len(raw) == 0 {
		return p, false
	}
	p, err := p.finish(raw)
	return p, err == nil
}

// EncodeRaw decodes the payload of a pack and encodes it again.
func EncodeRaw(p Pack, schema Schema) ([]byte, error) {
	if p.Grain == GrainExact {
		s, err := p.Samples(schema)
		if err != nil {
			return nil, err
		}
		return appendSamples(nil, s)
	}
	c, err := p.coarse(schema)
	if err != nil {
		return nil, err
	}
	if rows, err := p.Rows(schema); err != nil || len(rows) != c.rows(p.Grain.members()) {
		return nil, errors.Join(errors.New("rows of a payload that decodes"), err)
	}
	return c.encode(), nil
}

// ByteString is the content of a CBOR byte string.
func ByteString(t tb, data []byte) []byte {
	var raw []byte
	if err := decoding.Unmarshal(data, &raw); err != nil {
		t.Fatal(err)
	}
	return raw
}
