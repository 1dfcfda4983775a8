package wire

import (
	"crypto/sha256"
	"fmt"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Seal fills in CRC and Key.H64 of a block whose other fields are final. H64 is
// the first 8 bytes of the SHA-256 of the block's deterministic CBOR with CRC
// zero and Key.H64 eight zero bytes.
func Seal(b *Block) error {
	b.CRC, b.Key.H64 = 0, H64{}
	h, err := b.hash()
	if err != nil {
		return fmt.Errorf("seal block %s: %w", b.Key, err)
	}
	b.CRC, b.Key.H64 = crc32.Checksum(b.Payload, castagnoli), h
	return nil
}

// Verify says whether the block is as it was sealed.
func (b Block) Verify() error {
	if crc := crc32.Checksum(b.Payload, castagnoli); crc != b.CRC {
		return fmt.Errorf("block %s: CRC-32C %08x, sealed with %08x", b.Key, crc, b.CRC)
	}
	h, err := b.hash()
	if err != nil {
		return fmt.Errorf("block %s: %w", b.Key, err)
	}
	if h != b.Key.H64 {
		return fmt.Errorf("block %s: content hashes to %s", b.Key, h)
	}
	return nil
}

func (b Block) hash() (H64, error) {
	b.CRC, b.Key.H64 = 0, H64{}
	data, err := Encode(b)
	if err != nil {
		return H64{}, err
	}
	sum := sha256.Sum256(data)
	return H64(sum[:8]), nil
}

// SchemaIDOf names a schema by its content.
func SchemaIDOf(s Schema) SchemaID {
	data, err := encoding.Marshal(s)
	if err != nil {
		panic("wire: strings and integers always have an encoding: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return SchemaID(sum[:8])
}
