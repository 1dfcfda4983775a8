// Package blob names bytes by what they are and keeps them in a directory.
//
// A Digest is the SHA-256 of a byte string, written "sha256:" and 64 lower
// case hexadecimal digits. A Store is a directory of files named by digest:
//
//	DIR/sha256/<hex>     verified content, mode 0444
//	DIR/stage/<hex>.part content on its way in
//	DIR/stage/<hex>.frames the list of its frames meanwhile
//
// The one rule a caller can break: a file gets its final name only after its
// digest has been checked and its bytes are synced; use Put or Adopt, never
// write into the directory.
package blob

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strings"
)

// Digest is the SHA-256 of some bytes. The zero Digest means "none".
type Digest [sha256.Size]byte

const prefix = "sha256:"

// Sum returns the digest of data.
func Sum(data []byte) Digest { return sha256.Sum256(data) }

// SumReader reads r to its end and returns digest and length.
func SumReader(r io.Reader) (Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return Digest{}, n, err
	}
	return Digest(h.Sum(nil)), n, nil
}

// ParseDigest reads the text form. Upper case digits are refused, so that one
// digest has one text.
func ParseDigest(s string) (Digest, error) {
	var d Digest
	h, ok := strings.CutPrefix(s, prefix)
	if !ok || len(h) != hex.EncodedLen(len(d)) || strings.ToLower(h) != h {
		return Digest{}, fmt.Errorf("digest %q is not sha256: and 64 lower case hexadecimal digits", s)
	}
	if _, err := hex.Decode(d[:], []byte(h)); err != nil {
		return Digest{}, fmt.Errorf("digest %q: %w", s, err)
	}
	return d, nil
}

// String returns the text form; the zero Digest is the empty string.
func (d Digest) String() string {
	if d.IsZero() {
		return ""
	}
	return prefix + hex.EncodeToString(d[:])
}

// Hex returns the digits without the prefix, for file names and URLs.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// Short returns the first twelve digits, for people.
func (d Digest) Short() string {
	if d.IsZero() {
		return "none"
	}
	return d.Hex()[:12]
}

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; empty text is the zero Digest.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = Digest{}
		return nil
	}
	v, err := ParseDigest(string(text))
	if err != nil {
		return err
	}
	*d = v
	return nil
}

// A Summer hashes what is read through it.
type Summer struct {
	r io.Reader
	h hash.Hash
}

// NewSummer returns a Summer of r.
func NewSummer(r io.Reader) *Summer { return &Summer{r, sha256.New()} }

func (s *Summer) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	_, _ = s.h.Write(p[:n]) // never fails
	return n, err
}

// Digest is that of the bytes so far.
func (s *Summer) Digest() Digest { return Digest(s.h.Sum(nil)) }
