package spool_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func corruptFiles(t *testing.T, p string) []string {
	t.Helper()
	files, err := filepath.Glob(p + ".corrupt-*")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestADamagedFileIsSetAsideAndTold(t *testing.T) {
	wall := time.Unix(1700000000, 0)
	for name, damage := range map[string]func(t *testing.T, p string){
		"garbage": func(t *testing.T, p string) { write(t, p, bytes.Repeat([]byte("garbage!"), 9000)) },
		"cut off": func(t *testing.T, p string) {
			if err := os.Truncate(p, 16384); err != nil {
				t.Fatal(err)
			}
		},
		"short": func(t *testing.T, p string) { write(t, p, []byte("x")) },
	} {
		t.Run(name, func(t *testing.T) {
			p := path(t)
			for range 4 {
				s := open(t, spool.Options{Path: p, WallClock: func() time.Time { wall = wall.Add(time.Second); return wall }})
				fill(t, s, wire.LaneTelemetry, 0, 200, 500)
				s.Close()
				damage(t, p)
			}
			s := open(t, spool.Options{Path: p})
			blocks := all(t, s)
			if len(blocks) != 1 || blocks[0].Kind != wire.KindGap {
				t.Fatalf("got %v", blocks)
			}
			if g, err := wire.DecodeGap(blocks[0].Payload); err != nil || g.Reason != wire.ReasonCorrupt {
				t.Errorf("gap %+v, %v", g, err)
			}
			if got := corruptFiles(t, p); len(got) != 2 {
				t.Errorf("kept %v", got)
			}
		})
	}
}

func write(t *testing.T, p string, data []byte) {
	t.Helper()
	if err := os.WriteFile(p, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAFileThatWasNotClosedIsChecked(t *testing.T) {
	p := path(t)
	s := open(t, spool.Options{Path: p})
	fill(t, s, wire.LaneTelemetry, 0, 5, 10)
	s.Close()
	asked := 0
	s = open(t, spool.Options{Path: p, Check: func(string) error { asked++; return nil }})
	s.Close()
	if asked != 0 {
		t.Error("a file that was closed cleanly is checked")
	}
	write(t, p+".open", nil)
	s = open(t, spool.Options{Path: p, Check: func(string) error { asked++; return spool.CheckFile(p) }})
	if n := len(all(t, s)); n != 5 || asked != 1 {
		t.Errorf("%d blocks, asked %d times", n, asked)
	}
	s.Close()
	write(t, p+".open", nil)
	notBegun := func(string) error { return fmt.Errorf("%w: no memory", spool.ErrNotChecked) }
	if _, err := spool.Open(spool.Options{Path: p, Check: notBegun}, slog.New(slog.DiscardHandler)); !errors.Is(err, spool.ErrNotChecked) || len(corruptFiles(t, p)) != 0 {
		t.Errorf("a file that nobody could check: %v, set aside: %v", err, corruptFiles(t, p))
	}
	asked = 0
	open(t, spool.Options{Path: p, Check: func(string) error { asked++; return errors.New("the child died") }})
	if asked != 1 {
		t.Error("a check that could not be begun counts as one")
	}
	if len(corruptFiles(t, p)) != 1 {
		t.Error("a file whose check failed is not set aside")
	}
}

func TestABlockThatReadsBackOtherwiseIsDroppedAndTold(t *testing.T) {
	p := path(t)
	s := open(t, spool.Options{Path: p})
	fill(t, s, wire.LaneTelemetry, 0, 3, 40)
	s.Close()
	data, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	for i := bytes.Index(data, []byte("00000001")); i >= 0; i = bytes.Index(data, []byte("00000001")) {
		data[i] ^= 1 // a flipped bit, in every copy of the page
	}
	write(t, p, data)
	s = open(t, spool.Options{Path: p})
	if got := seqs(all(t, s), wire.LaneTelemetry); len(got) != 2 {
		t.Errorf("picked %v", got)
	}
	blocks := all(t, s)
	g, err := wire.DecodeGap(blocks[0].Payload)
	if err != nil || g.Reason != wire.ReasonCorrupt || g.From != 2 || g.Count != 1 {
		t.Errorf("gap %+v, %v", g, err)
	}
}
