package wdelta

// Byte planes: all first bytes, then all second bytes, and so on. A float is
// first turned by one bit so that its exponent fills a byte of its own; only
// that plane and a few more bits have any order for zstd to find.

// rotate moves the sign below the mantissa.
func (s *shape) rotate(u uint64) uint64 {
	mask := uint64(1)<<(s.bits-1)<<1 - 1
	return (u<<1 | u>>(s.bits-1)) & mask
}

func (s *shape) unrotate(u uint64) uint64 {
	mask := uint64(1)<<(s.bits-1)<<1 - 1
	return (u>>1 | u<<(s.bits-1)) & mask
}

// zigzag puts the sign of a difference into the lowest bit.
func (s *shape) zigzag(d uint64) uint64 {
	v := s.signed(d)
	return uint64(v<<1^v>>63) & (1<<(s.bits-1)<<1 - 1)
}

func (s *shape) unzigzag(u uint64) uint64 { return u>>1 ^ -(u & 1) }

// toPlanes writes the planes of src into dst, which is as long. With a base,
// the planes are those of the differences.
func (e elem) toPlanes(dst, src, base []byte) {
	s, size := shapes[e], e.size()
	n := len(src) / size
	var v, b [block]uint64
	for at := 0; at < n; at += block {
		k := e.load(&v, src[at*size:])
		if base != nil {
			e.load(&b, base[at*size:])
			for i := range k {
				v[i] = s.zigzag(s.ordered(v[i]) - s.ordered(b[i]))
			}
		} else if s.mantissa > 0 {
			for i := range k {
				v[i] = s.rotate(v[i])
			}
		}
		for p := range size {
			plane := dst[p*n+at:]
			for i := range k {
				plane[i] = byte(v[i] >> (8 * p))
			}
		}
	}
}

// fromPlanes undoes toPlanes.
func (e elem) fromPlanes(dst, src, base []byte) {
	s, size := shapes[e], e.size()
	n := len(src) / size
	mask := uint64(1)<<(s.bits-1)<<1 - 1
	var v, b [block]uint64
	for at := 0; at < n; at += block {
		k := min(block, n-at)
		clear(v[:k])
		for p := range size {
			plane := src[p*n+at:]
			for i := range k {
				v[i] |= uint64(plane[i]) << (8 * p)
			}
		}
		if base != nil {
			e.load(&b, base[at*size:])
			for i := range k {
				v[i] = s.unordered((s.ordered(b[i]) + s.unzigzag(v[i])) & mask)
			}
		} else if s.mantissa > 0 {
			for i := range k {
				v[i] = s.unrotate(v[i])
			}
		}
		e.store(dst[at*size:], &v, k)
	}
}
