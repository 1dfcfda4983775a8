package bench

import (
	"os"
	"path/filepath"
	"testing"
)

// binarySizes compares the stripped release binaries with their budgets, in
// MB of 10⁶ bytes.
func binarySizes(t *testing.T) []Figure {
	var figures []Figure
	for _, b := range []struct {
		name     string
		budgetMB float64
	}{
		{"edgeherd", 60},
		{"edgeherd-agent", 18}, // docs/adr/0012
		{"edgeherd-runner", 18},
		{"edgeherd-launcher", 3},
	} {
		info, err := os.Stat(filepath.Join(root(t), "build", "bin", b.name))
		if err != nil {
			t.Fatalf("%v; run `make build` first", err)
		}
		figures = append(figures, Figure{
			Name: b.name, Value: float64(info.Size()) / 1e6, Unit: "MB", Goal: Goal{AtMost: 1},
		}.Against("budget", b.budgetMB))
	}
	return figures
}
