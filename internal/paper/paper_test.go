package paper

import (
	"testing"
	"time"
)

// What people call their sites must come out as they wrote it, and what no font
// has must be known.
func TestWhichCharactersAreWritten(t *testing.T) {
	for text, missing := range map[string]bool{
		"Łódź (dock)": false, "München-Süd ß": false, "北京 东站": false, "Zażółć gęślą jaźń": false,
		"→ – ° ≥ · …": false, string([]rune{'□'}): false, "☃": true, "\U0001f600": true,
	} {
		p, err := New("mm", time.Unix(0, 0))
		if err != nil {
			t.Fatal(err)
		}
		p.PDF.AddPage()
		p.Size = 9
		p.Write(10, 10, text)
		if p.Missing != missing || p.PDF.Err() {
			t.Errorf("%q: missing %v, want %v; %v", text, p.Missing, missing, p.PDF.Error())
		}
	}
}
