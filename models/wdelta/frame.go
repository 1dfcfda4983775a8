package wdelta

import (
	"bytes"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// job is what all encoders of one delta share.
type job struct {
	base, target Source
	header       Header
	options      Options
}

// encoder makes frames, one at a time.
type encoder struct {
	job
	zstd    *zstd.Encoder
	window  span // of the dictionary that withDic knows
	withDic *zstd.Encoder
	ctx     [elemEnd]*ctxModel
	ctx0    [elemEnd]*ctx0Model
	local   [elemEnd]*localModel
	small   *byteModel
	// Of the frame at work.
	bytes    []byte // of the target
	steps    []byte // of one piece
	segments []segment
	text     map[key]*numbers
	free     [][]byte // room for coded streams
	room     room     // of the context coders
	// The result.
	head    Frame
	payload []byte
	methods map[string]MethodBytes
}

// numbers are the bytes of all segments of a key, and what the base has there.
type numbers struct{ target, base []byte }

func newEncoder(j job) (*encoder, error) {
	z, err := newZstd()
	if err != nil {
		return nil, err
	}
	return &encoder{job: j, zstd: z, text: map[key]*numbers{}}, nil
}

// take and give keep room from frame to frame: a frame needs several MiB, and
// as garbage they would be many times that.
func (e *encoder) take() []byte {
	n := len(e.free)
	if n == 0 {
		return make([]byte, 0, FrameBytes)
	}
	b := e.free[n-1]
	e.free = e.free[:n-1]
	return b
}

func (e *encoder) give(b []byte) {
	if cap(b) > 0 {
		e.free = append(e.free, b[:0])
	}
}

func (e *encoder) close() {
	_ = e.zstd.Close() // it holds nothing that is not encoded
	if e.withDic != nil {
		_ = e.withDic.Close()
	}
}

// frame encodes the pieces, which follow one another.
func (e *encoder) frame(pieces []piece) error {
	n := 0
	for _, p := range pieces {
		n += int(p.n)
	}
	off := pieces[0].off
	e.head.Off = off
	e.bytes = grow(e.bytes, n)
	if err := readFull(e.target, e.bytes, off); err != nil {
		return err
	}
	if err := e.collect(pieces, off); err != nil {
		return err
	}
	e.methods = map[string]MethodBytes{}
	streams, err := e.streams()
	if err != nil {
		return err
	}
	e.payload = table{e.segments, streams}.appendTo(e.payload[:0], off, e.zstd)
	e.head = Frame{Off: off, Len: n, WireLen: len(e.payload), Sum: blob.Sum(e.bytes), WireSum: blob.Sum(e.payload)}
	used := 0
	for _, s := range streams {
		used += len(s.wire)
		if s.method != methodRaw {
			e.give(s.wire)
		}
	}
	e.count("frame", 0, headBytes+len(e.payload)-used)
	return nil
}

func (e *encoder) count(method string, target, wire int) {
	m := e.methods[method]
	e.methods[method] = MethodBytes{m.Target + int64(target), m.Wire + int64(wire)}
}

// collect turns pieces into segments and gathers the bytes of each key.
func (e *encoder) collect(pieces []piece, off int64) error {
	e.segments = e.segments[:0]
	for k, v := range e.text {
		e.give(v.target)
		e.give(v.base)
		delete(e.text, k)
	}
	room := e.take() // for what the base has
	for _, p := range pieces {
		own := e.bytes[p.off-off:][:p.n]
		s := segment{kind: p.kind, elem: p.elem, n: int(p.n), base: p.base}
		if p.kind.rows() && e.options.Coder == Smallest && p.elem.size() < 8 && p.width*2 <= s.n/p.elem.size() {
			s.width, s.col = p.width, p.col
		}
		var from []byte
		if s.kind.based() {
			room = grow(room, int(p.n))
			from = room
			if err := readFull(e.base, from, p.base); err != nil {
				return err
			}
			if s.kind == kindMoved && bytes.Equal(from, own) {
				s.kind, s.elem, s.width, s.col = kindCopy, elemNone, 0, 0
			}
			if s.kind == kindMoved && p.step > 0 {
				e.steps = grow(e.steps, len(own)/p.elem.size()*4)
				if p.elem.toSteps(e.steps, own, from, p.step) && p.elem.fewer(e.steps, own, from) {
					s.kind, s.step = kindSteps, p.step
					own = e.steps
				}
			}
			// Two tensors with one fingerprint: as good as never, and harmless.
			if s.kind == kindCopy && !bytes.Equal(from, own) {
				s.kind = kindText
			}
		}
		if s.kind == kindPlain && e.repeats(s.elem, own) {
			s.kind, s.elem = kindText, elemNone
		}
		e.add(s)
		if s.kind == kindCopy {
			continue
		}
		k := s.key()
		if e.text[k] == nil {
			e.text[k] = &numbers{target: e.take()}
			if s.kind.based() {
				e.text[k].base = e.take()
			}
		}
		e.text[k].target = append(e.text[k].target, own...)
		switch s.kind {
		case kindMoved:
			e.text[k].base = append(e.text[k].base, from...)
		case kindSteps: // whole numbers, as differences to zero
			e.text[k].base = append(e.text[k].base, make([]byte, len(own))...)
		}
	}
	e.give(room)
	return nil
}

// repeats reports whether numbers are smaller by what they repeat, such as a table
// of sines, than by how they are spread. Planes and contexts do not see that.
func (e *encoder) repeats(el elem, b []byte) bool {
	wire := e.zstd.EncodeAll(b, e.take())
	e.give(wire)
	return float64(len(wire)*8) < 0.9*el.plainBits(b)*float64(len(b)/el.size())
}

// add appends a segment, or makes the last one longer.
func (e *encoder) add(s segment) {
	if last := len(e.segments) - 1; last >= 0 {
		l := &e.segments[last]
		if l.key() == s.key() && l.step == s.step && l.width+s.width == 0 && (!s.kind.based() || l.base+int64(l.n) == s.base) {
			l.n += s.n
			return
		}
	}
	e.segments = append(e.segments, s)
}

// streams codes every key by its smallest method. Numbers that hardly gain
// from the base are coded without it when that is smaller.
func (e *encoder) streams() ([]stream, error) {
	var out []stream
	coded := map[key]stream{}
	for k := range e.text {
		if k.kind().based() {
			if err := e.moved(k, coded); err != nil {
				return nil, err
			}
		}
	}
	for k, v := range e.text {
		if _, done := coded[k]; done {
			continue
		}
		s, err := e.plain(k, v.target)
		if err != nil {
			return nil, err
		}
		coded[k] = s
	}
	for k := range 256 {
		if s, ok := coded[key(k)]; ok {
			out = append(out, s)
			e.count(s.method.String(), len(e.text[s.key].target), len(s.wire))
		}
	}
	copied := 0
	all := e.segments
	e.segments = all[:0]
	for _, s := range all {
		if s.kind.rows() && !coded[s.key()].method.rows() {
			s.width, s.col = 0, 0
		}
		e.add(s)
		if s.kind == kindCopy {
			copied += s.n
		}
	}
	if copied > 0 {
		e.count("copy", copied, 0)
	}
	return out, nil
}

// unclear is the ratio from which on a delta may be no better than no base.
const unclear = 4

// moved codes differences, or gives the bytes over to the plain numbers.
func (e *encoder) moved(k key, coded map[key]stream) error {
	v, el := e.text[k], k.elem()
	if k.kind() == kindSteps {
		el = elemI32
	}
	s := stream{key: k, method: methodSubPlane, wire: e.planed(el, v.target, v.base)}
	if e.options.Coder == Smallest {
		e.contexts(&s, el, v)
	}
	coded[k] = s
	if k.kind() == kindSteps || len(s.wire)*unclear < len(v.target) {
		return nil
	}
	plain := key(kindPlain) | key(k.elem())<<4
	alone, err := e.plain(plain, v.target)
	if err != nil {
		return err
	}
	if alone.method != methodRaw {
		e.give(alone.wire)
	}
	if len(alone.wire) >= len(s.wire) {
		return nil
	}
	e.give(s.wire)
	e.give(v.base)
	delete(coded, k)
	delete(e.text, k)
	merged := &numbers{target: e.take()}
	at := map[key]int{}
	for i := range e.segments {
		seg := &e.segments[i]
		if seg.key() == k {
			merged.target = append(merged.target, v.target[at[k]:][:seg.n]...)
			at[k] += seg.n
			seg.kind, seg.base, seg.width, seg.col = kindPlain, 0, 0, 0
		} else if seg.key() == plain {
			merged.target = append(merged.target, e.text[plain].target[at[plain]:][:seg.n]...)
			at[plain] += seg.n
		}
	}
	e.give(v.target)
	if old := e.text[plain]; old != nil {
		e.give(old.target)
	}
	e.text[plain] = merged
	return nil
}

// contexts codes differences by the context coders and keeps what is smallest:
// rows only help where they moved together.
func (e *encoder) contexts(best *stream, el elem, v *numbers) {
	l := &e.local[el]
	if *l == nil {
		*l = newLocalModel(el)
		(*l).room = &e.room
	}
	e.keep(best, methodLocal, (*l).encode(el, v.base, v.target, e.take()))
	m := &e.ctx[el]
	if *m == nil {
		*m = newCtxModel(el)
		(*m).room = &e.room
	}
	runs := e.runs(best.key)
	e.keep(best, methodCtx, (*m).encode(el, runs, v.base, v.target, e.take()))
	if el != elemI8 {
		return
	}
	if e.small == nil {
		e.small = newByteModel()
		e.small.room = &e.room
	}
	e.keep(best, methodBytes, e.small.encode(runs, v.base, v.target, e.take()))
}

// runs are the segments of a key as the decoder will find them.
func (e *encoder) runs(k key) (out []run) {
	for _, s := range e.segments {
		if s.key() == k {
			out = append(out, s.run())
		}
	}
	return out
}

// keep takes wire for best if it is smaller.
func (e *encoder) keep(best *stream, m method, wire []byte) bool {
	if len(wire) >= len(best.wire) {
		e.give(wire)
		return false
	}
	if best.method != methodRaw {
		e.give(best.wire)
	}
	best.method, best.wire = m, wire
	return true
}

// planed are the packed byte planes of b, of the differences with a base.
func (e *encoder) planed(el elem, b, base []byte) []byte {
	planes := grow(e.take(), len(b))
	defer e.give(planes)
	el.toPlanes(planes, b, base)
	return e.zstd.EncodeAll(planes, e.take())
}

// plain codes bytes without the base, save the dictionary for text.
func (e *encoder) plain(k key, b []byte) (stream, error) {
	best := stream{key: k, method: methodRaw, wire: b}
	if k.kind() == kindText {
		e.keep(&best, methodZstd, e.zstd.EncodeAll(b, e.take()))
		w := e.windowFor()
		z, err := e.dictionary(w)
		if z != nil && e.keep(&best, methodDict, z.EncodeAll(b, e.take())) {
			best.dict = w
		}
		return best, err
	}
	el := k.elem()
	e.keep(&best, methodPlane, e.planed(el, b, nil))
	// Of bytes the context coder has to decode every bit, which is slower than
	// 20 MB/s on a core, and saves 3 %.
	if e.options.Coder == Smallest && el.size() > 1 {
		m := &e.ctx0[el]
		if *m == nil {
			*m = newCtx0Model(el)
			(*m).room = &e.room
		}
		e.keep(&best, methodCtx0, (*m).encode(el, b, e.take()))
	}
	if el.size() == 1 || len(best.wire)*2 < len(b) { // repeats, which planes tear apart
		e.keep(&best, methodZstd, e.zstd.EncodeAll(b, e.take()))
	}
	return best, nil
}

// windowFor is the part of the dictionary that lies where the frame does, for
// the text of a model has the order of its tensors.
func (e *encoder) windowFor() span {
	total, before := int64(0), int64(0)
	place := float64(e.place()) / float64(max(e.target.Size(), 1)) * float64(max(e.header.BaseSize, 1))
	for _, r := range e.header.dict {
		total += r.n
		if float64(r.off+r.n) <= place {
			before += r.n
		}
	}
	n := min(total, maxDictBytes)
	const step = 64 << 10 // so that frames in a row share a window
	off := (before - n/2) / step * step
	return span{max(0, min(off, total-n)), n}
}

// place is the middle of the frame at work.
func (e *encoder) place() int64 { return e.head.Off + int64(len(e.bytes)/2) }

// dictionary is an encoder that knows the window, nil when there is none.
func (e *encoder) dictionary(w span) (*zstd.Encoder, error) {
	if w.n < 64 {
		return nil, nil
	}
	if e.withDic != nil && e.window == w {
		return e.withDic, nil
	}
	content, err := readDict(e.base, e.header.dict, w)
	if err != nil {
		return nil, err
	}
	if e.withDic != nil {
		_ = e.withDic.Close() // it holds nothing that is not encoded
		e.withDic = nil
	}
	z, err := newZstd(zstd.WithEncoderDictRaw(dictID, content))
	if err != nil {
		return nil, fmt.Errorf("dictionary: %w", err)
	}
	e.withDic, e.window = z, w
	return z, nil
}

func (m method) String() string {
	return [methodEnd]string{"raw", "zstd", "dict", "plane", "subplane", "ctx", "ctx0", "local", "bytes"}[m]
}
