package simboard

import (
	"log/slog"
	"testing"
	"time"
)

func BenchmarkStep(b *testing.B) {
	board := New(Options{Root: b.TempDir()}, slog.New(slog.DiscardHandler))
	defer board.Close()
	for i := 0; b.Loop(); i++ {
		board.Step(start.Add(time.Duration(i) * time.Second))
	}
}
