package qrtext

import (
	"bytes"
	"image/color"
	"image/png"
	"strings"
	"testing"
	"unicode/utf8"
)

const token = "EH1.7K2M9QXA.ORSMBDJHCOSWBE42KICYP6GDZI376DXZ.7QVTPQLJK75OR6HS65RJHSTNFTUJGD7S6XXU25P7XP77DUFWM4YQ.FLEET.EXAMPLE.COM:8443"

// That readers understand what is drawn is proved where labels are printed, with zbar.
// Here: that the picture, the characters and the modules are one code.

func TestTheSmallestCodeThatHoldsTheTextIsMade(t *testing.T) {
	for _, c := range []struct {
		text  string
		level Level
		size  int // 17 + 4 a version
	}{
		{"A", M, 21},
		{strings.Repeat("A", 20), M, 21}, // the most that version 1 holds at this level
		{strings.Repeat("A", 21), M, 25},
		{strings.Repeat("A", 16), Q, 21},
		{strings.Repeat("A", 17), Q, 25},
		{strings.Repeat("a", 14), M, 21}, // bytes take more room than the alphanumeric set
		{strings.Repeat("a", 15), M, 25},
	} {
		code, err := Encode(c.text, c.level)
		if err != nil || code.Size != c.size {
			t.Errorf("%d letters %.1s at level %v: %d modules a side (%v), want %d", len(c.text), c.text, c.level, code.Size, err, c.size)
		}
	}
	if _, err := Encode(strings.Repeat("A", 3392), M); err == nil { // version 40 holds 3391
		t.Error("a text that no code holds was encoded")
	}
	if text, err := Of(strings.Repeat("A", 3392)); err == nil || text != "" {
		t.Errorf("it was drawn as %d bytes (%v)", len(text), err)
	}
}

func TestACodeHasItsThreeEyesAndNothingBeyondItsEdge(t *testing.T) {
	code, err := Encode(token, M)
	if err != nil {
		t.Fatal(err)
	}
	last := code.Size - 7
	for _, at := range [][2]int{{0, 0}, {last, 0}, {0, last}} {
		for y := range 7 {
			for x := range 7 {
				ring := max(max(3-x, x-3), max(3-y, y-3)) // 3 is the outer ring, 2 the white one
				if got := code.Black(at[0]+x, at[1]+y); got != (ring != 2) {
					t.Fatalf("the eye at %v has %t at %d %d", at, got, x, y)
				}
			}
		}
	}
	for _, at := range [][2]int{{-1, 0}, {0, -1}, {code.Size, 0}, {0, code.Size}} {
		if code.Black(at[0], at[1]) {
			t.Errorf("the module %v, which there is not, is dark", at)
		}
	}
}

func TestThePictureIsTheCodeWithItsMargin(t *testing.T) {
	code, err := Encode(token, Q)
	if err != nil {
		t.Fatal(err)
	}
	const scale = 3
	data, err := code.PNG(scale)
	if err != nil {
		t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if side := (code.Size + 8) * scale; img.Bounds().Dx() != side || img.Bounds().Dy() != side {
		t.Fatalf("the picture is %v, want %d a side: four white modules all around", img.Bounds(), side)
	}
	for y := range img.Bounds().Dy() {
		for x := range img.Bounds().Dx() {
			dark := color.GrayModel.Convert(img.At(x, y)).(color.Gray).Y < 128
			if want := code.Black(x/scale-4, y/scale-4); dark != want {
				t.Fatalf("the pixel %d %d is dark: %t, want %t", x, y, dark, want)
			}
		}
	}
}

// Two modules a character, light on dark: read back, they are the code.
func TestTheCharactersAreTheCodeWithItsMargin(t *testing.T) {
	text, err := Of(token)
	if err != nil {
		t.Fatal(err)
	}
	code, err := Encode(token, M)
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	if want := (code.Size + 8 + 1) / 2; len(rows) != want {
		t.Fatalf("%d lines, want %d", len(rows), want)
	}
	dark := map[rune][2]bool{'█': {false, false}, '▀': {false, true}, '▄': {true, false}, ' ': {true, true}}
	for i, row := range rows {
		if n := utf8.RuneCountInString(row); n != code.Size+8 || n > 80 {
			t.Fatalf("line %d has %d columns; a token has to fit into 80", i, n)
		}
		for x, r := range []rune(row) {
			halves, known := dark[r]
			y := 2*i - 4
			if !known || halves[0] != code.Black(x-4, y) || halves[1] != code.Black(x-4, y+1) {
				t.Fatalf("line %d, column %d is %q", i, x, r)
			}
		}
	}
}
