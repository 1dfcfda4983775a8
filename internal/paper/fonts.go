package paper

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"fmt"
	"io"
	"sync"

	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/sfnt"
)

//go:embed font/NotoSansSC-GB2312.ttf.gz
var chineseFont []byte

// faces are the fonts of the PDF: which of them has a character.
type faces struct {
	chinese []byte // TrueType
	latin   *sfnt.Font
	han     *sfnt.Font
}

// loadFaces unpacks the fonts once; what it returns never changes.
var loadFaces = sync.OnceValues(func() (f faces, err error) {
	z, err := gzip.NewReader(bytes.NewReader(chineseFont))
	if err == nil {
		f.chinese, err = io.ReadAll(z)
	}
	if err == nil {
		f.han, err = sfnt.Parse(f.chinese)
	}
	if err == nil {
		f.latin, err = sfnt.Parse(goregular.TTF)
	}
	if err != nil {
		return faces{}, fmt.Errorf("unpack the fonts of PDF files: %w", err)
	}
	return f, nil
})

// Names of the fonts in a PDF.
const (
	latinFace   = "go"
	chineseFace = "sc"
)

// missing stands for what no font has.
const missing = '□'

// face is the font that has a character; empty: none has.
func (f faces) face(buf *sfnt.Buffer, r rune) string {
	if i, err := f.latin.GlyphIndex(buf, r); err == nil && i != 0 {
		return latinFace
	}
	if i, err := f.han.GlyphIndex(buf, r); err == nil && i != 0 {
		return chineseFace
	}
	return ""
}
