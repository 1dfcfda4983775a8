package health

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"
)

var write = flag.Bool("write", false, "write testdata/example.csv and example-events.csv")

// exampleEvents tell of the cleaning in the example.
const exampleEvents = "time,box,site,kind,detail\n2026-02-24T09:00:00Z,till-1,shop-7,cleaned,filter washed\n"

// example makes the file of docs/health.md: till-1 clogs and is cleaned,
// till-2's fan wears.
func example() []byte {
	clog := func(d float64, s *state) {
		if s.clog = ramp(d, 22, 32, 0.6); d > 54.4 {
			s.clog = 0
		}
	}
	worn := func(d float64, s *state) { s.worn = max(d-35, 0) * 0.004 }
	var b bytes.Buffer
	b.WriteString("box,sku,site,time,die_c,inlet_c,board_c,power_w,pwm_ratio,rpm\n")
	for _, f := range []formula{{name: "till-1", seed: 11, days: 64, how: clog}, {name: "till-2", seed: 12, days: 64, how: worn}} {
		for _, h := range f.hours() {
			fmt.Fprintf(&b, "%s,itx-1,shop-7,%d,%.1f,%.1f,%.1f,%.1f,%.2f,%.0f\n", f.name, h.Start,
				h.V[Die], h.V[Inlet], h.V[Board], h.V[Power], h.V[PWM], h.V[RPM1])
		}
	}
	return b.Bytes()
}

func TestExampleComesFromItsFormulas(t *testing.T) {
	for name, want := range map[string][]byte{"testdata/example.csv": example(), "testdata/example-events.csv": []byte(exampleEvents)} {
		if *write {
			if err := os.WriteFile(name, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from what the formulas make: run go test ./internal/health -run Example -args -write", name)
		}
	}
}
