package store

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// TestLaterPhasesKeepWhatWasMeasured reports a phase with a probe, then others.
func TestLaterPhasesKeepWhatWasMeasured(t *testing.T) {
	s, err := Open(context.Background(), Options{Path: filepath.Join(t.TempDir(), "store.db")})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	report := func(mono int64, phase, probe string) string {
		body := `{"phase":"` + phase + `"` + probe + `}`
		d := Delivery{Box: "d-aaaaaaaaaaaaa", Block: wire.Block{Key: wire.Key{Seq: uint64(mono)}}}
		e := Effects{Phases: []Phase{{Box: d.Box, Digest: "sha256:1", Rollout: "r", Kind: "model", Name: "vad", Phase: phase, Body: body, MonoMs: mono, TimeMs: mono}}}
		if err := s.write(ctx, func(t *tx) error { return applyEffects(ctx, t, d, e) }); err != nil {
			t.Fatal(err)
		}
		var stored string
		if err := s.one(ctx, `SELECT body FROM phase`, nil, &stored); err != nil {
			t.Fatal(err)
		}
		return stored
	}
	report(1, "fetching", "")
	report(2, "switching", `,"probe":{"golden_total":2}`)
	got := report(3, "active", "")
	var body wire.PhaseBody
	if err := json.Unmarshal([]byte(got), &body); err != nil || body.Phase != "active" || !strings.Contains(string(body.Probe), `"golden_total":2`) {
		t.Errorf("stored %s (%v), want phase active with the probe of phase switching", got, err)
	}
	if got := report(4, "switching", `,"probe":{"golden_total":3}`); !strings.Contains(got, `"golden_total":3`) {
		t.Errorf("stored %s, want the newer probe", got)
	}
	// A box may measure nonsense; it must not hold up its other blocks.
	report(5, "switching", `,"probe":"soon"`)
	if got := report(6, "active", ""); !strings.Contains(got, `"probe":"soon"`) {
		t.Errorf("stored %s, want the probe as it was", got)
	}
}
