package wdelta

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"slices"

	"github.com/edgeherd/edgeherd/models/container"
)

// piece is a run of the target and how it is planned to be made. Unlike a
// segment it may be longer than a frame.
type piece struct {
	kind   kind
	elem   elem
	off, n int64
	base   int64
	step   float32 // above 0: the tensor was quantised by it
	// Elements of a row of the matrix, 0 when it is none, and where in a row the
	// piece begins.
	width, col int
}

// Sizes in bytes.
const (
	leastTensor = 32      // smaller ones are left in the text around them
	leastGap    = 8 << 10 // text from here on is searched for matches
	guessBytes  = 1 << 20 // of what no container describes, in one guess
)

// planner makes the plan of one encoding.
type planner struct {
	base, target Source
	options      Options
	seed         maphash.Seed
	matcher      *matcher // made at its first use
	stats        *Stats
	buf          []byte
}

// plan is the pieces of the whole target in order, and the ranges of the base
// that make the dictionary.
func (p *planner) plan(ctx context.Context) (pieces []piece, dict []span, err error) {
	targetSpans, err := p.spans(p.target, p.options.TargetTensors, "target")
	if err != nil {
		return nil, nil, err
	}
	var baseSpans []container.Tensor
	if p.base != nil {
		if baseSpans, err = p.spans(p.base, p.options.BaseTensors, "base"); err != nil {
			return nil, nil, err
		}
		dict = gaps(baseSpans, p.base.Size())
	}
	tensors, err := p.pair(ctx, targetSpans, baseSpans)
	if err != nil {
		return nil, nil, err
	}
	at := int64(0)
	for _, t := range append(tensors, piece{off: p.target.Size()}) {
		if pieces, err = p.gap(ctx, pieces, at, t.off); err != nil {
			return nil, nil, err
		}
		if t.n > 0 {
			pieces = append(pieces, t)
		}
		at = t.off + t.n
	}
	return pieces, dict, nil
}

// spans are the tensors of a file worth a piece of their own. A file that is
// no container, or a damaged one, has none.
func (p *planner) spans(f Source, given []container.Tensor, what string) ([]container.Tensor, error) {
	l := container.Layout{Tensors: slices.Clone(given)}
	for i := range l.Tensors {
		l.Tensors[i].File = "" // whatever the model calls it, it is the file at hand
	}
	if given == nil {
		var err error
		l, err = container.Read(f, f.Size())
		switch {
		case err == nil && what == "target":
			p.stats.Format = string(l.Format)
		case err != nil && !errors.Is(err, container.ErrUnknown) && what == "target":
			p.stats.Unread = err.Error()
		}
	}
	out := slices.DeleteFunc(l.Spans(""), func(t container.Tensor) bool { return t.Len < leastTensor })
	for _, t := range out {
		if t.Off < 0 || t.Len > f.Size()-t.Off {
			return nil, fmt.Errorf("tensor %q of the %s lies outside of its %d bytes", t.Name, what, f.Size())
		}
	}
	return out, nil
}

// gaps are the ranges between tensors.
func gaps(spans []container.Tensor, size int64) (out []span) {
	at := int64(0)
	add := func(to int64) {
		if to > at && len(out) < maxRanges-1 {
			out = append(out, span{at, to - at})
		}
	}
	for _, t := range spans {
		add(t.Off)
		at = t.Off + t.Len
	}
	add(size)
	// The list has to fit the header, and a file without tensors is no text.
	if len(spans) == 0 || len(out) > maxRangesBytes/20 {
		return nil
	}
	return out
}

// pair finds for each tensor of the target what to make it from: the same
// bytes, else the same name, else the tensor of the same shape that is nearest.
func (p *planner) pair(ctx context.Context, target, base []container.Tensor) ([]piece, error) {
	byHash, byName := map[uint64]container.Tensor{}, map[string]container.Tensor{}
	byShape := map[string][]container.Tensor{}
	for _, b := range base {
		h, err := p.hash(ctx, p.base, b)
		if err != nil {
			return nil, err
		}
		byHash[h] = b
		byName[b.Name+"\x00"+like(b)] = b
		byShape[like(b)] = append(byShape[like(b)], b)
	}
	var out []piece
	for _, t := range target {
		e := elemOf(t.DType)
		pc := piece{kind: kindPlain, elem: e, off: t.Off, n: t.Len, width: rowOf(t.Shape)}
		if t.Len%int64(e.size()) != 0 {
			pc.elem, pc.width = elemI8, 0
		}
		if len(base) == 0 {
			out = append(out, pc)
			continue
		}
		h, err := p.hash(ctx, p.target, t)
		if err != nil {
			return nil, err
		}
		if b, ok := byHash[h]; ok && b.Len == t.Len {
			pc.kind, pc.elem, pc.base, pc.width = kindCopy, elemNone, b.Off, 0
			p.stats.Same++
		} else if err := p.nearest(&pc, t, byName, byShape[like(t)]); err != nil {
			return nil, err
		}
		out = append(out, pc)
	}
	return out, nil
}

// rowOf is how many elements a row of a tensor has, the weights of one output or
// those of one input: all dimensions but the first, or fewer where that would be
// too many.
func rowOf(shape []int64) int {
	for i := 1; i < len(shape); i++ {
		width := int64(1)
		for _, d := range shape[i:] {
			if width *= d; d <= 0 || width > mostWidth {
				width = 0
				break
			}
		}
		if width > 1 {
			return int(width)
		}
	}
	return 0
}

// like tells tensors apart that can never be made from one another.
func like(t container.Tensor) string { return fmt.Sprint(t.DType, t.Shape, t.Len) }

const maxCandidates = 16

// nearest looks for the best base of a changed tensor.
func (p *planner) nearest(pc *piece, t container.Tensor, byName map[string]container.Tensor, others []container.Tensor) error {
	own, err := sample(p.target, pc.elem, pc.off, pc.n)
	if err != nil {
		return err
	}
	least := pc.elem.plainBits(own)
	try := func(b container.Tensor) (bool, error) {
		from, err := sample(p.base, pc.elem, b.Off, b.Len)
		if err != nil {
			return false, err
		}
		bits := pc.elem.movedBits(own, from)
		if bits >= least {
			return false, nil
		}
		pc.kind, pc.base, least = kindMoved, b.Off, bits
		if pc.step = 0; kindSteps.takes(pc.elem) {
			pc.step = pc.elem.stepOf(own, from)
		}
		return true, nil
	}
	if b, ok := byName[t.Name+"\x00"+like(t)]; ok {
		if ok, err := try(b); ok || err != nil {
			p.stats.Named++
			return err
		}
	}
	// Those that lie nearest in the file come first.
	others = slices.Clone(others)
	slices.SortFunc(others, func(a, b container.Tensor) int {
		return cmp.Compare(distance(a.Off, t.Off), distance(b.Off, t.Off))
	})
	found := false
	for _, b := range others[:min(len(others), maxCandidates)] {
		ok, err := try(b)
		if err != nil {
			return err
		}
		found = found || ok
	}
	if found {
		p.stats.Similar++
	} else {
		p.stats.New++
	}
	return nil
}

func distance(a, b int64) int64 { return max(a-b, b-a) }

// hash is a fingerprint of a tensor's bytes, for this run only.
func (p *planner) hash(ctx context.Context, f Source, t container.Tensor) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var h maphash.Hash
	h.SetSeed(p.seed)
	for at := int64(0); at < t.Len; {
		p.buf = grow(p.buf, int(min(256<<10, t.Len-at)))
		if err := readFull(f, p.buf, t.Off+at); err != nil {
			return 0, err
		}
		_, _ = h.Write(p.buf) // never fails
		at += int64(len(p.buf))
	}
	return h.Sum64(), nil
}

// gap plans off..end, where no tensor is.
func (p *planner) gap(ctx context.Context, out []piece, off, end int64) ([]piece, error) {
	if end-off < leastGap {
		return p.text(out, off, end), nil
	}
	var found []match
	if p.base != nil {
		if p.matcher == nil {
			var err error
			if p.matcher, err = newMatcher(ctx, p.base); err != nil {
				return nil, err
			}
		}
		var err error
		if found, err = p.matcher.matches(ctx, p.target, off, end-off); err != nil {
			return nil, err
		}
	}
	shift := int64(0)
	for _, m := range append(found, match{target: end, base: end}) {
		if m.n > 0 {
			shift = m.base - m.target
		}
		var err error
		if out, err = p.unknown(out, off, m.target, shift); err != nil {
			return nil, err
		}
		if m.n > 0 {
			out = append(out, piece{kind: kindCopy, off: m.target, n: m.n, base: m.base})
			p.stats.Matches++
		}
		off = m.target + m.n
	}
	return out, nil
}

func (p *planner) text(out []piece, off, end int64) []piece {
	if end > off {
		out = append(out, piece{kind: kindText, off: off, n: end - off})
	}
	return out
}

// unknown plans off..end, of which nothing is known but that it may have moved
// by shift: text, or numbers whose element has to be guessed.
func (p *planner) unknown(out []piece, off, end, shift int64) ([]piece, error) {
	for off < end {
		n := min(guessBytes, end-off)
		if n < leastGap {
			return p.text(out, off, end), nil
		}
		// Samples start at multiples of 8 from off, so floats keep their step.
		b, err := sample(p.target, elemF64, off, n-n%8)
		if err != nil {
			return nil, err
		}
		e, phase := guess(b)
		pc := piece{kind: kindPlain, elem: e}
		least := e.plainBits(b[phase:]) / float64(e.size())
		if text(b) {
			pc, phase = piece{kind: kindText}, 0
		}
		if p.base != nil && off+shift >= 0 && off+shift+n <= p.base.Size() {
			from, err := sample(p.base, elemF64, off+shift, n-n%8)
			if err != nil {
				return nil, err
			}
			for _, e := range []elem{elemI8, elemI16, elemF16, elemBF16, elemF32} {
				for at := range e.size() {
					if bits := e.movedBits(b[at:], from[at:]) / float64(e.size()); bits < least*0.9 {
						pc, phase, least = piece{kind: kindMoved, elem: e}, at, bits
					}
				}
			}
		}
		out = p.text(out, off, off+int64(phase))
		pc.off, pc.n = off+int64(phase), n-int64(phase)
		if pc.kind.numbers() {
			pc.n -= pc.n % int64(pc.elem.size())
		}
		if pc.kind.based() {
			pc.base = pc.off + shift
		}
		out = append(out, pc)
		off = pc.off + pc.n
	}
	return out, nil
}

// text reports whether b is mostly letters, as JSON and protobuf names are.
func text(b []byte) bool {
	letters := 0
	for _, c := range b {
		if c >= 0x20 && c < 0x7f {
			letters++
		}
	}
	return letters*10 > len(b)*7
}
