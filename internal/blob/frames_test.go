package blob

import (
	"bytes"
	"reflect"
	"testing"
)

func TestFramesTellOfEveryByte(t *testing.T) {
	for _, size := range []int{0, 1, FrameBytes - 1, FrameBytes, FrameBytes + 1, 3*FrameBytes + 7} {
		content := bytes.Repeat([]byte{1, 2, 3, 5, 7, 11, 13}, size/7+1)[:size]
		f, whole, err := FramesOf(bytes.NewReader(content))
		if err != nil || whole != Sum(content) || f.Size != int64(size) {
			t.Fatalf("%d bytes: %v, %s of %d bytes", size, err, whole, f.Size)
		}
		at := 0
		for i, sum := range f.Sums {
			off, n := f.Span(i)
			if int(off) != at || sum != Sum(content[off:off+int64(n)]) {
				t.Errorf("%d bytes: frame %d is at %d with %d bytes, want it at %d", size, i, off, n, at)
			}
			at += n
		}
		if at != size {
			t.Errorf("%d bytes: frames end at %d", size, at)
		}
		back, err := DecodeFrames(f.Encode())
		if err != nil || !reflect.DeepEqual(back, f) || int64(len(f.Encode())) != EncodedBytes(f.Size) {
			t.Errorf("%d bytes: read back %v, %v", size, back, err)
		}
	}
}

// TestFramesBeyond32Bits is arithmetic alone: no file is made.
func TestFramesBeyond32Bits(t *testing.T) {
	for _, size := range []int64{1<<31 - 1, 1 << 31, 1<<31 + 1, 1<<32 + 1} {
		f := Frames{Size: size, Sums: make([]Digest, count(size))}
		off, n := f.Span(len(f.Sums) - 1)
		if off+int64(n) != size || n <= 0 || n > FrameBytes {
			t.Errorf("%d bytes: the last frame is at %d with %d bytes", size, off, n)
		}
		if back, err := DecodeFrames(f.Encode()); err != nil || back.Size != size {
			t.Errorf("%d bytes: read back %d, %v", size, back.Size, err)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte(framesMagic))
	f.Add(Frames{Size: FrameBytes + 1, Sums: make([]Digest, 2)}.Encode())
	f.Add(Frames{Size: 1 << 62}.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := DecodeFrames(data)
		if err == nil && !bytes.Equal(got.Encode(), data) {
			t.Errorf("%x is read as %v and written as %x", data, got, got.Encode())
		}
	})
}
