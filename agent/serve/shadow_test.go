package serve

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"github.com/edgeherd/edgeherd/agent/backend"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// TestCandidateRunsInTheShadowOfWhatServes: it gets copies of real requests and
// is compared, callers notice nothing, and a box that is to do less gives it none.
func TestCandidateRunsInTheShadowOfWhatServes(t *testing.T) {
	b := newBox(t, nil)
	v5, same, v6 := b.demo("silero-vad-5.0.0", "vad", "5"), b.demo("silero-vad-5.0.0", "vad", "5-again"), b.demo("silero-vad-6.0.0", "vad", "6")
	b.ready(v5)
	candidate := v6
	shadow := func() runnerapi.Shadow {
		if s := b.status(candidate).Shadow; s != nil {
			return *s
		}
		return runnerapi.Shadow{}
	}
	if _, err := b.edge.Shadow(t.Context(), v6); err == nil || !strings.Contains(err.Error(), "probed first") {
		t.Errorf("shadow of what is not loaded: %v", err)
	}
	if p, err := b.edge.Probe(t.Context(), v6); err != nil || !p.OK {
		t.Fatalf("probe: %+v, %v", p, err)
	}
	if s := b.status(v6).Shadow; s != nil {
		t.Errorf("before it was asked for: %+v", s)
	}
	for range 2 { // asking again changes nothing
		st, err := b.edge.Shadow(t.Context(), v6)
		if err != nil || len(st.Models) != 2 {
			t.Fatalf("shadow: %+v, %v", st, err)
		}
	}
	l := b.load(1)
	b.eventually("answers are compared", func() bool { return shadow().Compared >= 5 })
	s := shadow()
	if s.Agreement >= 1 || s.LatencyRatio <= 0 || s.Failures != 0 || s.Seen < s.Compared+s.Busy || s.Hot != 0 {
		t.Errorf("in the shadow: %+v", s)
	}
	resp, err := http.Get(b.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(resp.Body)
	if err := errors.Join(err, resp.Body.Close()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), `edgeherd_runner_shadow_compared_total{model="vad",version="6"} `) {
		t.Errorf("metrics say nothing of the shadow:\n%s", text)
	}
	if n := b.status(v6).Requests; n != 0 {
		t.Errorf("%d copies count as requests of the candidate", n)
	}

	duty := runnerapi.Duty{Level: "reduced", MaxRateRatio: 0.8, ValidSeconds: 600}
	if err := b.edge.SetDuty(t.Context(), duty); err != nil {
		t.Fatal(err)
	}
	b.eventually("the last copy is done", func() bool { return shadow().Hot >= 20 })
	before := shadow()
	b.eventually("requests go on", func() bool { return shadow().Hot >= before.Hot+50 })
	if now := shadow(); now.Compared > before.Compared {
		t.Errorf("%d copies for a candidate of a warm box", now.Compared-before.Compared)
	}
	duty.MaxRateRatio = 1
	if err := b.edge.SetDuty(t.Context(), duty); err != nil {
		t.Fatal(err)
	}

	if err := syscall.Kill(b.status(v6).WorkerPID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	b.eventually("it is compared after its worker died", func() bool { return shadow().Compared > before.Compared })
	candidate = same
	if p, err := b.edge.Probe(t.Context(), same); err != nil || !p.OK {
		t.Fatalf("probe: %+v, %v", p, err)
	}
	if _, err := b.edge.Shadow(t.Context(), same); err != nil {
		t.Fatal(err)
	}
	b.eventually("the same model is compared with itself", func() bool { return shadow().Compared >= 5 })
	if s := shadow(); s.Agreement != 1 || s.Failures != 0 {
		t.Errorf("the same model in the shadow of itself: %+v", s)
	}
	b.ready(same)
	if st := b.status(same); st.Shadow != nil {
		t.Errorf("serving it has a shadow: %+v", st.Shadow)
	}
	if bad := l.stop(); len(bad) > 0 {
		t.Errorf("%d requests failed meanwhile, the first: %s", len(bad), bad[0])
	}
	b.s.mu.Lock()
	defer b.s.mu.Unlock()
	if v := b.s.versions[same.Digest]; v == nil || v.mirror.Load() != nil {
		t.Error("the version that serves has a mirror")
	}
}

// TestNoCopyLeavesTheSiteThatItsRequestMayNotLeave: callers were promised so by
// the version that serves, whatever its candidate's manifest allows.
func TestNoCopyLeavesTheSiteThatItsRequestMayNotLeave(t *testing.T) {
	for _, c := range []struct {
		place    string
		mayLeave bool
		copies   int
	}{{backend.PlaceCentral, false, 0}, {backend.PlaceCentral, true, 1}, {backend.PlaceSite, false, 1}} {
		m := &mirror{
			front: &version{mayLeave: c.mayLeave}, candidate: &version{ext: &external{config: backend.Config{Endpoint: backend.Endpoint{Place: c.place}}}, mayLeave: true},
			copies: make(chan *mirrored, 1), spared: func() bool { return false },
		}
		m.free.Store(true)
		m.offer(&call{inputs: []worker.Tensor{{Data: []byte("face")}}}, nil)
		if len(m.copies) != c.copies || m.seen.Seen != uint64(c.copies) {
			t.Errorf("%+v: %d copies, %d seen", c, len(m.copies), m.seen.Seen)
		}
	}
}
