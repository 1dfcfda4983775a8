package serve

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"net/http"

	"golang.org/x/image/draw"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// Images as inputs: a BYTES tensor for an input that is an array of pixels
// holds one JPEG or PNG an element. It is decoded, scaled to the size that the
// model fixes, and laid out as the model wants it: channels RGB, or grey where
// the model has one, values 0 to 255, or (value - mean) * scale with the
// parameters of these names on the input.

// maxPixels bounds one image: 50 megapixels are 200 MB while it is decoded.
const maxPixels = 50 << 20

// pixels is how values of an image become those of a tensor.
type pixels struct{ mean, scale float64 }

// layout is where a tensor keeps images.
type layout struct {
	batch                   bool // the first dimension counts images
	planar                  bool // channels come before rows
	channels, height, width int64
}

// layoutOf reads the shape of a model's input. Free dimensions are -1.
func layoutOf(shape []int64) (layout, error) {
	l := layout{batch: len(shape) == 4}
	if l.batch {
		shape = shape[1:]
	}
	if len(shape) != 3 {
		return l, errors.New("the model's input has no shape of an image")
	}
	colours := func(d int64) bool { return d == 1 || d == 3 }
	switch {
	case colours(shape[0]):
		l.planar, l.channels, l.height, l.width = true, shape[0], shape[1], shape[2]
	case colours(shape[2]):
		l.height, l.width, l.channels = shape[0], shape[1], shape[2]
	default:
		return l, fmt.Errorf("the model's input of shape %v has no dimension of 1 or 3 channels", shape)
	}
	return l, nil
}

// decodeImages replaces encoded images among the inputs by their pixels.
// reserve is asked for the memory.
func (c *call) decodeImages(sig models.Signature, reserve func(n int64) error) error {
	for i := range c.inputs {
		t := &c.inputs[i]
		if t.DType != models.BYTES {
			continue
		}
		for _, want := range sig.Inputs {
			if want.Name != t.Name || want.DType == models.BYTES {
				continue
			}
			if err := decodeImage(t, want, c.pixelsOf(i), reserve); err != nil {
				return badRequest(named(t.Name, err))
			}
		}
	}
	return nil
}

func (c *call) pixelsOf(i int) pixels {
	if p, ok := c.pixels[i]; ok {
		return p
	}
	return pixels{scale: 1}
}

// decodeImage turns t into a tensor of the wanted type.
func decodeImage(t *worker.Tensor, want models.TensorSpec, p pixels, reserve func(n int64) error) error {
	if want.DType != models.FP32 && want.DType != models.UINT8 {
		return fmt.Errorf("images are turned into FP32 or UINT8, the model wants %s", want.DType)
	}
	l, err := layoutOf(want.Shape)
	if err != nil {
		return err
	}
	var out []byte
	count := int64(0)
	for rest := t.Data; len(rest) > 0; count++ {
		if len(rest) < 4 || uint64(len(rest)-4) < uint64(binary.LittleEndian.Uint32(rest)) {
			return fmt.Errorf("data ends inside image %d", count)
		}
		n := binary.LittleEndian.Uint32(rest)
		img, err := l.open(rest[4:4+n], reserve)
		if err != nil {
			return fmt.Errorf("image %d: %w", count, err)
		}
		if err := reserve(l.channels * l.height * l.width * int64(want.DType.Size())); err != nil {
			return err
		}
		out = l.append(out, img, want.DType, p)
		rest = rest[4+n:]
	}
	if count == 0 || !l.batch && count != 1 {
		return fmt.Errorf("holds %d images, the model takes one", count)
	}
	shape := []int64{l.height, l.width, l.channels}
	if l.planar {
		shape = []int64{l.channels, l.height, l.width}
	}
	if l.batch {
		shape = append([]int64{count}, shape...)
	}
	t.DType, t.Shape, t.Data = want.DType, shape, out
	return nil
}

// open decodes one image and scales it. Free sizes are those of the first.
func (l *layout) open(data []byte, reserve func(n int64) error) (*image.RGBA, error) {
	decode, describe := jpeg.Decode, jpeg.DecodeConfig
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8")):
	case bytes.HasPrefix(data, []byte("\x89PNG")):
		decode, describe = png.Decode, png.DecodeConfig
	default:
		return nil, errors.New("is neither JPEG nor PNG")
	}
	config, err := describe(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if config.Width <= 0 || config.Height <= 0 || int64(config.Width)*int64(config.Height) > maxPixels {
		return nil, fmt.Errorf("has %d x %d pixels; at most %d are decoded", config.Width, config.Height, int64(maxPixels))
	}
	if l.height < 0 {
		l.height = int64(config.Height)
	}
	if l.width < 0 {
		l.width = int64(config.Width)
	}
	each := int64(4)
	switch {
	case config.ColorModel == color.RGBA64Model || config.ColorModel == color.NRGBA64Model:
		each = 8
	case progressive(data):
		each = 16 // its coefficients, 4 bytes for each of 3 colours, are kept beside it
	}
	// Scaled: 4 bytes a pixel.
	if err := reserve(each*int64(config.Width)*int64(config.Height) + 4*l.height*l.width); err != nil {
		return nil, err
	}
	src, err := decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	dst := image.NewRGBA(image.Rect(0, 0, int(l.width), int(l.height)))
	if src.Bounds().Dx() == int(l.width) && src.Bounds().Dy() == int(l.height) {
		draw.Draw(dst, dst.Bounds(), src, src.Bounds().Min, draw.Src)
	} else {
		draw.ApproxBiLinear.Scale(dst, dst.Bounds(), src, src.Bounds(), draw.Src, nil)
	}
	return dst, nil
}

// progressive reports whether a JPEG may have a frame of that kind (ITU-T T.81,
// B.1.1.3: SOF2). Only one whose segments lead to another kind has not.
func progressive(data []byte) bool {
	if !bytes.HasPrefix(data, []byte("\xff\xd8")) {
		return false
	}
	for at := 2; at+4 <= len(data) && data[at] == 0xff; {
		switch kind := data[at+1]; {
		case kind == 0xff: // a fill byte
			at++
		case kind == 0xc0 || kind == 0xc1:
			return false
		case kind < 0xc0 || kind == 0xc2 || kind >= 0xd0 && kind <= 0xda:
			return true // it, or what has no length and does not belong here
		default:
			at += 2 + int(binary.BigEndian.Uint16(data[at+2:]))
		}
	}
	return true
}

// append writes the pixels of one image in the model's order.
func (l *layout) append(out []byte, img *image.RGBA, t models.DType, p pixels) []byte {
	put := func(v uint8) {
		if t == models.UINT8 {
			out = append(out, v)
			return
		}
		f := float32((float64(v) - p.mean) * p.scale)
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(f))
	}
	count := int(l.height * l.width)
	channel := func(i, c int) uint8 {
		at := img.Pix[4*i : 4*i+4 : 4*i+4]
		if l.channels == 1 {
			return color.GrayModel.Convert(color.RGBA{at[0], at[1], at[2], 255}).(color.Gray).Y
		}
		return at[c]
	}
	if l.planar {
		for c := range int(l.channels) {
			for i := range count {
				put(channel(i, c))
			}
		}
		return out
	}
	for i := range count {
		for c := range int(l.channels) {
			put(channel(i, c))
		}
	}
	return out
}

// rawCall is the call of a request without JSON: its body is the one input.
func rawCall(sig models.Signature, body []byte) (call, error) {
	if len(sig.Inputs) != 1 {
		return call{}, faultf(http.StatusBadRequest, "a raw request (%s: 0) needs a model with one input, this one has %d", HeaderLength, len(sig.Inputs))
	}
	in := sig.Inputs[0]
	t := worker.Tensor{Name: in.Name, DType: in.DType, Shape: append([]int64{}, in.Shape...), Data: body}
	isImage := bytes.HasPrefix(body, []byte("\xff\xd8\xff")) || bytes.HasPrefix(body, []byte("\x89PNG\r\n"))
	if in.DType == models.BYTES || isImage {
		t.DType, t.Shape = models.BYTES, []int64{1}
		t.Data = append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
		return call{binary: true, inputs: []worker.Tensor{t}}, nil
	}
	free, known := -1, int64(in.DType.Size())
	for i, d := range in.Shape {
		switch {
		case d >= 0:
			known *= d
		case free >= 0 && i > 0 && free == 0 && in.Shape[0] < 0:
			t.Shape[0], free = 1, i // one item of a batch
		case free >= 0:
			return call{}, faultf(http.StatusBadRequest, "a raw request cannot tell the shape of input %q, which is %v", in.Name, in.Shape)
		default:
			free = i
		}
	}
	if free >= 0 && known > 0 {
		t.Shape[free] = int64(len(body)) / known
	}
	return call{binary: true, inputs: []worker.Tensor{t}}, nil
}
