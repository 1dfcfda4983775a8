package wdelta

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"hash/maphash"
	"io"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models/container"
)

// Coder says how much work a delta may be.
type Coder string

// The coders.
const (
	// Smallest keeps of all methods what is smallest: decoding costs a box
	// 40 to 80 ns a number.
	Smallest Coder = ""
	// Fast leaves out the context coder, for sites with a fast line: a delta
	// is a sixth (fp32) to three quarters (bf16) larger and decodes several times as fast.
	Fast Coder = "fast"
)

// Options of an encoding. The zero value is the smallest delta.
type Options struct {
	Coder Coder
	// Workers is how many frames are encoded at once, each with about 16 MiB.
	// 0 is 1.
	Workers int
	// BaseTensors and TargetTensors are the tensors of files that do not list
	// their own, such as the second file of an ONNX model (external data).
	// Nil: they are read from the files.
	BaseTensors, TargetTensors []container.Tensor
	// Progress, when set, is told how many bytes of the target are done.
	Progress func(done, total int64)
}

// Stats says what an encoding did.
type Stats struct {
	TargetBytes int64  `json:"target_bytes"`
	WireBytes   int64  `json:"wire_bytes"`
	Frames      int    `json:"frames"`
	Format      string `json:"format,omitempty"` // of the target: its container
	Unread      string `json:"unread,omitempty"` // why the target's container was not understood
	// How the tensors of the target were paired.
	Same    int `json:"tensors_same"`
	Named   int `json:"tensors_named"`
	Similar int `json:"tensors_similar"`
	New     int `json:"tensors_new"`
	Matches int `json:"matches"` // ranges found outside of tensors
	// Methods counts bytes of the target and on the wire by method.
	Methods map[string]MethodBytes `json:"methods"`
}

// MethodBytes are the bytes that one method made and cost.
type MethodBytes struct {
	Target int64 `json:"target_bytes"`
	Wire   int64 `json:"wire_bytes"`
}

// Ratio is shipped to full: 0.25 means that a quarter is sent.
func (s Stats) Ratio() float64 {
	if s.TargetBytes == 0 {
		return 1
	}
	return float64(s.WireBytes) / float64(s.TargetBytes)
}

// Encode writes the delta that makes target from base, or with a nil base the
// cold pack of target. Both files must stay as they are while it runs.
func Encode(ctx context.Context, base, target Source, w io.Writer, o Options) (Stats, error) {
	stats, err := encode(ctx, base, target, w, o)
	if err != nil {
		return stats, fmt.Errorf("encode delta: %w", err)
	}
	return stats, nil
}

func encode(ctx context.Context, base, target Source, w io.Writer, o Options) (stats Stats, err error) {
	stats = Stats{TargetBytes: target.Size(), Methods: map[string]MethodBytes{}}
	h := Header{TargetSize: target.Size()}
	if h.Target, err = sum(ctx, target, target.Size()); err != nil {
		return stats, err
	}
	if base != nil {
		h.BaseSize = base.Size()
		if h.Base, err = sum(ctx, base, base.Size()); err != nil {
			return stats, err
		}
	}
	p := planner{base: base, target: target, options: o, seed: maphash.MakeSeed(), stats: &stats}
	pieces, dict, err := p.plan(ctx)
	if err != nil {
		return stats, err
	}
	h.dict = dict
	head, err := h.marshal()
	if err != nil {
		return stats, err
	}
	out := &sink{w: w, stats: &stats, sum: sha256.New()}
	_, _ = out.sum.Write(head) // never fails
	if err := out.write(head); err != nil {
		return stats, err
	}
	if err := encodeFrames(ctx, job{base: base, target: target, header: h, options: o}, cutFrames(pieces), out); err != nil {
		return stats, err
	}
	return stats, out.write(Frame{Sum: h.Target, WireSum: blob.Digest(out.sum.Sum(nil))}.appendTo(nil))
}

func newZstd(opts ...zstd.EOption) (*zstd.Encoder, error) {
	z, err := zstd.NewWriter(nil, append([]zstd.EOption{
		zstd.WithEncoderLevel(zstd.SpeedBetterCompression), zstd.WithEncoderConcurrency(1),
		zstd.WithEncoderCRC(false), zstd.WithWindowSize(FrameBytes), zstd.WithLowerEncoderMem(true),
	}, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("start zstd: %w", err)
	}
	return z, nil
}

// cutFrames groups pieces into frames of at most FrameBytes; long ones are cut
// between elements. The result is a list of frames to draw from, not a slice:
// its pieces are cut when they are asked for.
func cutFrames(pieces []piece) func() []piece {
	return func() (frame []piece) {
		for room := int64(FrameBytes); len(pieces) > 0 && room > 0; {
			pc := pieces[0]
			if pc.n > room {
				pc.n = room
				if pc.kind.numbers() {
					pc.n -= room % int64(pc.elem.size())
				}
				if pc.n == 0 {
					break
				}
				if pc.width > 0 {
					pieces[0].col = (pc.col + int(pc.n)/pc.elem.size()) % pc.width
				}
				pieces[0].off += pc.n
				pieces[0].base += pc.n
				pieces[0].n -= pc.n
			} else {
				pieces = pieces[1:]
			}
			frame = append(frame, pc)
			room -= pc.n
		}
		return frame
	}
}

// encodeFrames encodes as many frames side by side as there are workers and
// writes them in order.
func encodeFrames(ctx context.Context, j job, next func() []piece, out *sink) error {
	workers := make([]*encoder, max(j.options.Workers, 1))
	for i := range workers {
		e, err := newEncoder(j)
		if err != nil {
			return err
		}
		defer e.close()
		workers[i] = e
	}
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		var g errgroup.Group
		n := 0
		for _, e := range workers {
			pieces := next()
			if pieces == nil {
				break
			}
			g.Go(func() error { return e.frame(pieces) })
			n++
		}
		if err := g.Wait(); err != nil || n == 0 {
			return err
		}
		for _, e := range workers[:n] {
			if err := out.frame(e); err != nil {
				return err
			}
			if j.options.Progress != nil {
				j.options.Progress(e.head.Off+int64(e.head.Len), j.target.Size())
			}
		}
	}
}

// sink writes a delta and keeps count.
type sink struct {
	w     io.Writer
	stats *Stats
	sum   hash.Hash // of the header and the heads
}

func (s *sink) write(b []byte) error {
	s.stats.WireBytes += int64(len(b))
	if _, err := s.w.Write(b); err != nil {
		return fmt.Errorf("write delta: %w", err)
	}
	return nil
}

func (s *sink) frame(e *encoder) error {
	head := e.head.appendTo(nil)
	_, _ = s.sum.Write(head) // never fails
	s.stats.Frames++
	for name, m := range e.methods {
		sum := s.stats.Methods[name]
		s.stats.Methods[name] = MethodBytes{sum.Target + m.Target, sum.Wire + m.Wire}
	}
	if err := s.write(head); err != nil {
		return err
	}
	return s.write(e.payload)
}
