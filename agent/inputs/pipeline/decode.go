package pipeline

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"strconv"

	"github.com/edgeherd/edgeherd/models"
)

// maxPixels bounds a frame. More is refused before it is decoded, since a small
// file can hold a huge picture.
const maxPixels = models.MaxPixels

// maxScans bounds the passes of a progressive JPEG, which has about ten. Each
// goes over the whole picture and takes a dozen bytes: a file of 16 MB could
// keep a processor busy for many minutes.
const maxScans = 100

// startOfScan never occurs inside of coded data.
var startOfScan = []byte{0xff, 0xda}

// DecodeFrame decodes JPEG, PNG and binary PPM (the raw RGB that ffmpeg hands
// over: "P6", width, height, 255).
func DecodeFrame(data []byte) (Frame, error) {
	var config func() (image.Config, error)
	var decode func() (image.Image, error)
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8")):
		config = func() (image.Config, error) { return jpeg.DecodeConfig(bytes.NewReader(data)) }
		decode = func() (image.Image, error) { return jpeg.Decode(bytes.NewReader(data)) }
	case bytes.HasPrefix(data, []byte("\x89PNG")):
		config = func() (image.Config, error) { return png.DecodeConfig(bytes.NewReader(data)) }
		decode = func() (image.Image, error) { return png.Decode(bytes.NewReader(data)) }
	case bytes.HasPrefix(data, []byte("P6")):
		return decodePPM(data)
	default:
		return Frame{}, errors.New("frame is neither JPEG nor PNG nor PPM")
	}
	cfg, err := config()
	if err != nil {
		return Frame{}, fmt.Errorf("read header of frame: %w", err)
	}
	if err := checkPixels(cfg.Width, cfg.Height); err != nil {
		return Frame{}, err
	}
	if n := bytes.Count(data, startOfScan); n > maxScans && data[0] == 0xff {
		return Frame{}, fmt.Errorf("JPEG frame has %d scans, at most %d are read", n, maxScans)
	}
	img, err := decode()
	if err != nil {
		return Frame{}, fmt.Errorf("decode frame: %w", err)
	}
	return FrameOf(img), nil
}

func checkPixels(w, h int) error {
	if w <= 0 || h <= 0 || w > maxPixels/h {
		return fmt.Errorf("frame has %d × %d pixels, at most %d are read", w, h, maxPixels)
	}
	return nil
}

// PPMSize reads the header of a binary PPM picture: its size in pixels and the
// length of the header. It is ErrShort when data ends in the header.
func PPMSize(data []byte) (w, h, header int, err error) {
	fields := [4]string{}
	at := 0
	for i := range fields {
		start := at
		for at < len(data) && !isSpace(data[at]) {
			at++
		}
		if at-start > 8 {
			return 0, 0, 0, errors.New("header of PPM frame is damaged")
		}
		if at == len(data) {
			return 0, 0, 0, ErrShort
		}
		fields[i] = string(data[start:at])
		at++ // one white space
	}
	w, err = strconv.Atoi(fields[1])
	h, err2 := strconv.Atoi(fields[2])
	if err := errors.Join(err, err2); err != nil || fields[0] != "P6" || fields[3] != "255" {
		return 0, 0, 0, fmt.Errorf("header of PPM frame is %q, want P6, width, height, 255", fields)
	}
	return w, h, at, checkPixels(w, h)
}

// ErrShort says that more bytes are needed to tell.
var ErrShort = errors.New("header of PPM frame is cut off")

func isSpace(b byte) bool { return b == ' ' || b == '\n' || b == '\t' || b == '\r' }

func decodePPM(data []byte) (Frame, error) {
	w, h, header, err := PPMSize(data)
	if err != nil {
		return Frame{}, err
	}
	body := data[header:]
	if len(body) != 3*w*h {
		return Frame{}, fmt.Errorf("PPM frame of %d × %d has %d bytes of pixels, want %d", w, h, len(body), 3*w*h)
	}
	p := newFrame(w, h)
	for y := range h {
		p.fillRow(y, body[3*w*y:], 3)
	}
	return p, nil
}
