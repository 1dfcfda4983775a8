// Package qrtext draws QR codes with characters, for terminals: two modules a
// character, light on dark, as most terminals are.
//
// The one rule a caller can break: draw only where a person looks, for a log has
// no use for the picture and may be kept by those who should not scan it.
package qrtext

import (
	"fmt"
	"strings"

	"rsc.io/qr"
)

// quiet is the white margin that readers want (ISO/IEC 18004), in modules.
const quiet = 4

// Of draws a text. It fits into a terminal of 80 columns up to about 150 letters
// of the alphanumeric set.
func Of(text string) (string, error) {
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		return "", fmt.Errorf("draw the QR code: %w", err)
	}
	return Draw(code), nil
}

// Draw draws a code that is there.
func Draw(code *qr.Code) string {
	var b strings.Builder
	dark := func(x, y int) bool { return code.Black(x, y) } // false outside
	for y := -quiet; y < code.Size+quiet; y += 2 {
		for x := -quiet; x < code.Size+quiet; x++ {
			b.WriteString(map[[2]bool]string{{false, false}: "█", {false, true}: "▀", {true, false}: "▄", {true, true}: " "}[[2]bool{dark(x, y), dark(x, y+1)}])
		}
		b.WriteByte('\n')
	}
	return b.String()
}
