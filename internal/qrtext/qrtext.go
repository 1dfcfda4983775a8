// Package qrtext encodes QR codes, and draws them with characters, for terminals:
// two modules a character, light on dark, as most terminals are.
//
// The one rule a caller can break: draw only where a person looks, for a log has
// no use for the picture and may be kept by those who should not scan it.
package qrtext

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"

	"github.com/boombuler/barcode/qr"
)

// quiet is the white margin that readers want (ISO/IEC 18004), in modules.
const quiet = 4

// Code is a QR code of Size by Size modules, without its margin.
type Code struct {
	Size int
	img  image.Image // a module is a pixel
}

// Level is how much of a code may be unreadable: M is 15 %, Q 25 %.
type Level = qr.ErrorCorrectionLevel

// The levels that are used here.
const (
	M = qr.M
	Q = qr.Q
)

// Encode makes the code of a text, in the smallest version that holds it and with
// the mask that readers stumble over least.
func Encode(text string, level Level) (Code, error) {
	img, err := qr.Encode(text, level, qr.Auto)
	if err != nil {
		return Code{}, fmt.Errorf("draw the QR code: %w", err)
	}
	return Code{Size: img.Bounds().Dx(), img: img}, nil
}

// Black reports whether a module is dark; those outside are not.
func (c Code) Black(x, y int) bool {
	return x >= 0 && y >= 0 && x < c.Size && y < c.Size && color.GrayModel.Convert(c.img.At(x, y)).(color.Gray).Y < 128
}

// PNG is the code with its margin, a module being scale by scale pixels.
func (c Code) PNG(scale int) ([]byte, error) {
	side := (c.Size + 2*quiet) * scale
	img := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for i := range img.Pix {
		if c.Black(i%side/scale-quiet, i/side/scale-quiet) {
			img.Pix[i] = 1
		}
	}
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		return nil, fmt.Errorf("draw the QR code: %w", err)
	}
	return out.Bytes(), nil
}

// Of draws a text. It fits into a terminal of 80 columns up to about 150 letters
// of the alphanumeric set.
func Of(text string) (string, error) {
	code, err := Encode(text, M)
	if err != nil {
		return "", err
	}
	return code.Draw(), nil
}

// Draw draws a code that is there.
func (c Code) Draw() string {
	var b strings.Builder
	for y := -quiet; y < c.Size+quiet; y += 2 {
		for x := -quiet; x < c.Size+quiet; x++ {
			b.WriteString(map[[2]bool]string{{false, false}: "█", {false, true}: "▀", {true, false}: "▄", {true, true}: " "}[[2]bool{c.Black(x, y), c.Black(x, y+1)}])
		}
		b.WriteByte('\n')
	}
	return b.String()
}
