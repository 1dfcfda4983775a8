package pipeline

import (
	"bytes"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"reflect"
	"strings"
	"testing"
)

// bomb claims 60,000 × 60,000 pixels in the frame header of a JPEG.
func bomb(jpg []byte) []byte {
	b := bytes.Clone(jpg)
	at := bytes.Index(b, []byte{0xff, 0xc0})
	copy(b[at+5:], []byte{0xea, 0x60, 0xea, 0x60})
	return b
}

func TestBombIsRefusedBeforeItIsDecoded(t *testing.T) {
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewGray(image.Rect(0, 0, 8, 8)), nil); err != nil {
		t.Fatal(err)
	}
	if p, err := DecodeFrame(buf.Bytes()); err != nil || p.W != 8 || p.H != 8 {
		t.Errorf("8 × 8: %d × %d, %v", p.W, p.H, err)
	}
	if _, err := DecodeFrame(bomb(buf.Bytes())); err == nil || !strings.Contains(err.Error(), "60000 × 60000") {
		t.Errorf("bomb: %v", err)
	}
}

// TestFormatsShowTheSamePicture: PNG and the raw RGB of ffmpeg are the same to
// the last bit.
func TestFormatsShowTheSamePicture(t *testing.T) {
	img := image.NewRGBA(image.Rect(0, 0, 5, 3))
	raw := []byte("P6\n5 3\n255\n")
	for i := range 15 {
		c := color.RGBA{byte(10 * i), byte(5 * i), byte(255 - i), 255}
		img.SetRGBA(i%5, i/5, c)
		raw = append(raw, c.R, c.G, c.B)
	}
	var buf bytes.Buffer
	if err := png.Encode(&buf, img); err != nil {
		t.Fatal(err)
	}
	want := FrameOf(img)
	for _, data := range [][]byte{buf.Bytes(), raw} {
		if got, err := DecodeFrame(data); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%.4q: %v, %v; want %v", data, got, err, want)
		}
	}
	for _, bad := range []string{"P6\n5 3\n255\n", "P6\n5 3\n65535\n" + strings.Repeat("x", 90), "P6 60000 60000 255 ", "P6\n-5 3\n255\n", "GIF89a", ""} {
		if _, err := DecodeFrame([]byte(bad)); err == nil {
			t.Errorf("%.20q: accepted", bad)
		}
	}
}

// FuzzFrame: whatever the bytes, decoding ends with planes of the picture's size
// or with an error.
func FuzzFrame(f *testing.F) {
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewGray(image.Rect(0, 0, 16, 8)), nil); err != nil {
		f.Fatal(err)
	}
	f.Add(buf.Bytes())
	f.Add(bomb(buf.Bytes()))
	f.Add([]byte("\xff\xd8\xff\xe0"))
	f.Add([]byte("P6\n2 1\n255\nabcdef"))
	f.Add([]byte("\x89PNG\r\n\x1a\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := DecodeFrame(data)
		if err != nil {
			if p.c[0] != nil {
				t.Fatalf("a picture with %v", err)
			}
			return
		}
		if p.W <= 0 || p.H <= 0 || p.W*p.H > maxPixels || len(p.c[0]) != p.W*p.H {
			t.Fatalf("%d × %d with %d pixels", p.W, p.H, len(p.c[0]))
		}
	})
}
