package labels

import (
	_ "embed" // words.txt
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"math/rand/v2"
	"strings"
	"sync"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/opentype"
	"golang.org/x/image/math/fixed"
)

//go:embed words.txt
var wordList string

// label is the text of one shipping label.
type label struct {
	word        string // what is inside
	consignment string
	article     string
	quantity    int
	branch      int
}

func newLabel(rng *rand.Rand) label {
	words := strings.Fields(wordList)
	return label{
		word:        words[rng.IntN(len(words))],
		consignment: fmt.Sprintf("CN%08d", 10_000_000+rng.IntN(90_000_000)),
		article:     fmt.Sprintf("ART-%04d-%02d", 1000+rng.IntN(9000), 10+rng.IntN(90)),
		quantity:    2 + rng.IntN(198),
		branch:      1 + rng.IntN(420),
	}
}

// lines is the label's text in the order of its rows.
func (l label) lines() []string {
	return []string{
		fmt.Sprintf("BRANCH %03d", l.branch),
		l.consignment,
		l.article,
		l.word,
		fmt.Sprintf("QTY %d", l.quantity),
	}
}

type fonts struct{ bold, mono, regular *opentype.Font }

// parsedFonts reads the fonts once; they are never changed afterwards.
var parsedFonts = sync.OnceValue(func() fonts {
	parse := func(ttf []byte) *opentype.Font {
		f, err := opentype.Parse(ttf)
		if err != nil {
			panic(fmt.Sprintf("labels: embedded font does not parse: %v", err))
		}
		return f
	}
	return fonts{parse(gobold.TTF), parse(gomonobold.TTF), parse(goregular.TTF)}
})

// Places on a frame, in pixels. The label leaves room to be turned by 9
// degrees without losing text.
var (
	sheet = image.Rect(90, 55, 550, 425)
	inset = 26
)

var ink = image.NewUniform(color.RGBA{24, 24, 28, 255})

func (l label) draw(img *image.RGBA, rng *rand.Rand) {
	shift := image.Pt(rng.IntN(31)-15, rng.IntN(21)-10)
	r := sheet.Add(shift)
	shadow := image.NewUniform(color.RGBA{96, 72, 48, 255})
	draw.Draw(img, r.Add(image.Pt(4, 5)), shadow, image.Point{}, draw.Src)
	paper := uint8(244 + rng.IntN(10))
	draw.Draw(img, r, image.NewUniform(color.RGBA{paper, paper, paper - 4, 255}), image.Point{}, draw.Src)
	frame(img, r.Inset(8), 2)

	f := parsedFonts()
	text := l.lines()
	x := r.Min.X + inset
	column := x + 250
	fields(img, f.bold, 44, [2]image.Point{image.Pt(x, r.Min.Y+66), image.Pt(column, r.Min.Y+66)}, text[0])
	rule(img, image.Rect(r.Min.X+8, r.Min.Y+84, r.Max.X-8, r.Min.Y+86))
	write(img, f.mono, 34, image.Pt(x, r.Min.Y+130), text[1])
	bars(img, image.Rect(x, r.Min.Y+146, r.Max.X-inset, r.Min.Y+206), l.consignment)
	write(img, f.mono, 30, image.Pt(x, r.Min.Y+248), text[2])
	write(img, f.regular, 32, image.Pt(x, r.Min.Y+296), text[3])
	fields(img, f.bold, 34, [2]image.Point{image.Pt(x, r.Min.Y+344), image.Pt(column, r.Min.Y+344)}, text[4])
}

// write draws s with its baseline starting at p. Sizes are in pixels.
func write(img draw.Image, f *opentype.Font, size float64, p image.Point, s string) {
	face, err := opentype.NewFace(f, &opentype.FaceOptions{Size: size, DPI: 72, Hinting: font.HintingFull})
	if err != nil {
		panic(fmt.Sprintf("labels: font face of size %v: %v", size, err))
	}
	d := font.Drawer{Dst: img, Src: ink, Face: face, Dot: fixed.P(p.X, p.Y)}
	d.DrawString(s)
}

// fields writes "NAME value" in two columns, as printed labels have it. The gap
// is wide because recognisers trained on Chinese drop narrow spaces.
func fields(img draw.Image, f *opentype.Font, size float64, at [2]image.Point, s string) {
	name, value, _ := strings.Cut(s, " ")
	write(img, f, size, at[0], name)
	write(img, f, size, at[1], value)
}

func rule(img draw.Image, r image.Rectangle) { draw.Draw(img, r, ink, image.Point{}, draw.Src) }

func frame(img draw.Image, r image.Rectangle, thick int) {
	rule(img, image.Rect(r.Min.X, r.Min.Y, r.Max.X, r.Min.Y+thick))
	rule(img, image.Rect(r.Min.X, r.Max.Y-thick, r.Max.X, r.Max.Y))
	rule(img, image.Rect(r.Min.X, r.Min.Y, r.Min.X+thick, r.Max.Y))
	rule(img, image.Rect(r.Max.X-thick, r.Min.Y, r.Max.X, r.Max.Y))
}

// bars draws a bar pattern as wide as r: per character three bars and three
// gaps of 1 to 4 modules, eleven modules together, as Code 128 has them. It
// looks right and is not meant to be scanned: there is no check character.
func bars(img draw.Image, r image.Rectangle, code string) {
	const modules = 11
	unit := max(1, r.Dx()/(modules*len(code)))
	x := r.Min.X
	for _, c := range []byte(code) {
		// Six widths that sum to 11, chosen by the character.
		w := [6]int{1, 1, 1, 1, 1, 1}
		spare := modules - len(w)
		for i := 0; spare > 0; i++ {
			k := (int(c)*7 + i*5) % len(w)
			if w[k] < 4 {
				w[k]++
				spare--
			} else {
				w[(k+1)%len(w)]++
				spare--
			}
		}
		for i, n := range w {
			if i%2 == 0 {
				rule(img, image.Rect(x, r.Min.Y, x+n*unit, r.Max.Y))
			}
			x += n * unit
		}
	}
}
