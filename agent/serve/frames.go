package serve

import "encoding/binary"

// Frames of HTTP/2 and their flags (RFC 9113, 6) as far as they matter here.
const (
	frameData    = 0x0
	frameHeaders = 0x1
	frameReset   = 0x3

	flagEndStream = 0x1
	flagPadded    = 0x8

	frameHeader = 9
)

// frame is the header of one.
type frame struct {
	kind, flags byte
	stream      uint32
}

func (f frame) ends() bool { return f.flags&flagEndStream != 0 && f.kind <= frameHeaders }

// frames walks the frames of one direction of a connection, however its bytes
// are cut into pieces. It checks nothing: the server behind it does.
type frames struct {
	preface int // bytes of the client's preface that are still to come
	head    [frameHeader]byte
	have    int // bytes of head
	now     frame
	left    int // bytes of the frame's content still to come, padding included
	padded  bool
	pad     int // of them padding, once its length has come
}

// walk calls begin at each header, data for each piece of a DATA frame, which
// may change it, and end when the frame is over.
func (f *frames) walk(b []byte, begin func(frame), data func(frame, []byte), end func(frame)) {
	n := min(f.preface, len(b))
	f.preface -= n
	for b = b[n:]; len(b) > 0; {
		if f.have < frameHeader {
			n := copy(f.head[f.have:], b)
			f.have += n
			b = b[n:]
			if f.have < frameHeader {
				return
			}
			f.left = int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
			f.now = frame{f.head[3], f.head[4], binary.BigEndian.Uint32(f.head[5:]) &^ (1 << 31)}
			f.padded, f.pad = f.now.kind == frameData && f.now.flags&flagPadded != 0, 0
			begin(f.now)
		}
		if f.padded && f.left > 0 && len(b) > 0 {
			f.padded, f.pad = false, int(b[0])
			b, f.left = b[1:], f.left-1
		}
		content := min(max(f.left-f.pad, 0), len(b))
		if content > 0 && f.now.kind == frameData {
			data(f.now, b[:content])
		}
		n := min(f.left, len(b))
		b, f.left = b[n:], f.left-n
		if f.left == 0 {
			f.have = 0
			end(f.now)
		}
	}
}
