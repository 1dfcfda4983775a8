package activate

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/models"
)

var testRules = Rules{
	Trial: 30 * time.Second, Shadow: 10 * time.Second, FetchLimit: time.Hour, ProbeLimit: 10 * time.Minute, ReadyLimit: 5 * time.Minute,
	MaxFailureRatio: 0.05, MaxLatencyRatio: 4,
}

func refOf(version string) models.Ref {
	return models.Ref{Name: "vad", Version: version, Digest: blob.Sum([]byte(version))}
}

func wantOf(version string, attempt int) Want {
	return Want{Ref: refOf(version), Attempt: attempt, Rollout: "r"}
}

func versionOf(version string) Version {
	m := manifestOf(version, 1)
	return Version{Ref: refOf(version), Files: m.Files, Signature: m.Signature}
}

func manifestOf(version string, inputs int) models.Manifest {
	var m models.Manifest
	m.Name, m.Version = "vad", version
	m.Files = []models.File{{Path: models.ModelFile, Digest: blob.Sum([]byte("file of " + version)), SizeBytes: 1}}
	for i := range inputs {
		m.Signature.Inputs = append(m.Signature.Inputs, models.TensorSpec{Name: fmt.Sprint("x", i), DType: models.FP32})
	}
	m.Signature.Outputs = []models.TensorSpec{{Name: "y", DType: models.FP32}}
	return m
}

func statusWith(version string, m runnerapi.ModelStatus) runnerapi.Status {
	m.Ref = refOf(version)
	return runnerapi.Status{Models: []runnerapi.ModelStatus{m}}
}

// words tells what actions do, for comparing.
func words(actions []Action) string {
	names := map[ActionKind]string{ActManifest: "manifest", ActFiles: "files", ActProbe: "probe", ActShadow: "shadow", ActReload: "reload", ActStatus: "status", ActVerify: "verify", ActDrop: "drop", ActStop: "stop"}
	var out []string
	for _, a := range actions {
		if a.Kind == ActReport {
			out = append(out, "report-"+a.Phase.Phase)
		} else if a.Delay > 0 {
			out = append(out, names[a.Kind]+"-later")
		} else {
			out = append(out, names[a.Kind])
		}
	}
	return strings.Join(out, " ")
}

func TestNextFollowsTheTable(t *testing.T) {
	now := time.Date(2000, 1, 1, 12, 0, 0, 0, time.UTC)
	serving := State{Name: "vad", Step: StepIdle, Want: wantOf("1", 0), Current: versionOf("1"), Confirmed: wantOf("1", 0), For: wantOf("1", 0)}
	on := func(step Step, age time.Duration) State {
		s := serving
		s.Step, s.Want, s.For, s.Candidate, s.Since = step, wantOf("2", 0), wantOf("2", 0), versionOf("2"), now.Add(-age)
		s.Base = runnerapi.ModelStatus{Requests: 100, LatencyP95: 0.01}
		return s
	}
	bare := on(StepFetching, 0)
	bare.Candidate = Version{Ref: refOf("2")}
	denied := serving.deny(Denial{Digest: refOf("2").Digest, Attempt: 1, Rollout: "r", Phase: PhaseFailed, Err: "bad"})
	fresh := State{Name: "vad", Step: StepIdle}
	first := on(StepProbing, 0)
	first.Current = Version{}
	strict := func(age time.Duration, rule models.Shadow) State {
		s := on(StepShadow, age)
		s.Candidate.Shadow = rule
		return s
	}
	lost := Event{Kind: EventFailed, Err: "away"}
	ready, loading, broken := runnerapi.ModelReady, runnerapi.ModelLoading, runnerapi.ModelFailed
	status := func(v string, m runnerapi.ModelStatus) Event {
		return Event{Kind: EventStatus, Status: statusWith(v, m)}
	}
	shadow := func(st runnerapi.Shadow) Event {
		return status("2", runnerapi.ModelStatus{State: runnerapi.ModelCandidate, Shadow: &st})
	}
	tests := []struct {
		name    string
		state   State
		event   Event
		step    Step
		actions string
	}{
		{"a first version is fetched", fresh, Event{Kind: EventWanted, Want: wantOf("1", 0)}, StepFetching, "report-fetching manifest"},
		{"another version is fetched", serving, Event{Kind: EventWanted, Want: wantOf("2", 0)}, StepFetching, "report-fetching manifest"},
		{"the same want changes nothing", serving, Event{Kind: EventWanted, Want: wantOf("1", 0)}, StepIdle, ""},
		{"a denied version is not tried", denied, Event{Kind: EventWanted, Want: wantOf("2", 1)}, StepIdle, "stop"},
		{"a higher attempt is", denied, Event{Kind: EventWanted, Want: wantOf("2", 2)}, StepFetching, "report-fetching manifest"},
		{"another rollout of it hears why", denied, Event{Kind: EventWanted, Want: Want{Ref: refOf("2"), Rollout: "q"}}, StepIdle, "stop report-failed"},
		{"a model that is not wanted goes", serving, Event{Kind: EventWanted}, StepRemoving, "reload"},
		{"a manifest names the files", bare, Event{Kind: EventManifest, Manifest: manifestOf("2", 1)}, StepFetching, "files"},
		{"an unfit signature is refused", bare, Event{Kind: EventManifest, Manifest: manifestOf("2", 2)}, StepIdle, "report-refused stop"},
		{"an untrusted manifest is refused", bare, Event{Kind: EventFailed, Blame: BlameTrust}, StepIdle, "report-refused stop"},
		{"wrong content fails", on(StepFetching, 0), Event{Kind: EventFailed, Blame: BlameCandidate}, StepIdle, "report-failed stop"},
		{"a broken link is waited out", on(StepFetching, time.Minute), lost, StepFetching, "files-later"},
		{"but not for ever", on(StepFetching, 2*time.Hour), lost, StepIdle, "report-failed stop"},
		{"fetched without a manifest is nonsense", bare, Event{Kind: EventFetched}, StepFetching, ""},
		{"fetched files are probed", on(StepFetching, 0), Event{Kind: EventFetched}, StepProbing, "report-probing probe"},
		{"a good probe leads into the shadow", on(StepProbing, 0), Event{Kind: EventProbed, Probe: runnerapi.Probe{OK: true}}, StepShadow, "report-shadow shadow"},
		{"a first version has nobody's shadow", first, Event{Kind: EventProbed, Probe: runnerapi.Probe{OK: true}}, StepSwitching, "report-switching reload"},
		{"a shadow needs some answers", on(StepShadow, 5*time.Second), shadow(runnerapi.Shadow{Seen: 90, Compared: 49, Agreement: .2}), StepShadow, "status-later"},
		{"enough of them switch", on(StepShadow, 5*time.Second), shadow(runnerapi.Shadow{Seen: 90, Compared: 50, Agreement: .2}), StepSwitching, "report-switching reload"},
		{"the end of its time switches", on(StepShadow, 10*time.Second), shadow(runnerapi.Shadow{Seen: 9, Hot: 9}), StepSwitching, "report-switching reload"},
		{"a quiet box waits a moment", on(StepShadow, time.Second), shadow(runnerapi.Shadow{}), StepShadow, "status-later"},
		{"and no longer", on(StepShadow, 2*time.Second), shadow(runnerapi.Shadow{}), StepSwitching, "report-switching reload"},
		{"a manifest that asks is waited for", strict(59*time.Second, models.Shadow{Seconds: 60}), shadow(runnerapi.Shadow{}), StepShadow, "status-later"},
		{"failures in the shadow end it", on(StepShadow, 10*time.Second), shadow(runnerapi.Shadow{Seen: 9, Compared: 2, Failures: 3}), StepIdle, "report-failed drop stop"},
		{"two failures in the shadow may be chance", on(StepShadow, 10*time.Second), shadow(runnerapi.Shadow{Seen: 9, Failures: 2}), StepSwitching, "report-switching reload"},
		{"who does not agree is refused", strict(9*time.Second, models.Shadow{MinAgreement: .9}), shadow(runnerapi.Shadow{Compared: 50, Agreement: .89}), StepIdle, "report-failed drop stop"},
		{"who agrees is not", strict(9*time.Second, models.Shadow{MinAgreement: .9}), shadow(runnerapi.Shadow{Compared: 50, Agreement: .9}), StepSwitching, "report-switching reload"},
		{"too few answers are no proof", strict(10*time.Second, models.Shadow{MinCompared: 80}), shadow(runnerapi.Shadow{Seen: 90, Compared: 79, Hot: 11, Agreement: 1}), StepIdle, "report-failed drop stop"},
		{"more are waited for when asked", strict(9*time.Second, models.Shadow{MinCompared: 80}), shadow(runnerapi.Shadow{Compared: 79}), StepShadow, "status-later"},
		{"a candidate out of the shadow is put back", on(StepShadow, 5*time.Second), status("2", runnerapi.ModelStatus{State: runnerapi.ModelCandidate}), StepShadow, "shadow-later"},
		{"a candidate that the runner lost is probed again", on(StepShadow, 5*time.Second), status("1", runnerapi.ModelStatus{State: ready}), StepProbing, "probe-later"},
		{"a candidate that died in the shadow fails", on(StepShadow, 5*time.Second), status("2", runnerapi.ModelStatus{State: broken}), StepIdle, "report-failed drop stop"},
		{"a runner away in the shadow is waited out", on(StepShadow, time.Minute), lost, StepShadow, "status-later"},
		{"but not for ever, in the shadow", on(StepShadow, time.Hour), lost, StepIdle, "report-failed drop stop"},
		{"a change of mind in the shadow drops it", on(StepShadow, 0), Event{Kind: EventWanted, Want: wantOf("1", 0)}, StepIdle, "drop status"},
		{"a restart goes back into the shadow", on(StepShadow, 0), Event{Kind: EventResumed}, StepShadow, "shadow"},
		{"a bad probe fails", on(StepProbing, 0), Event{Kind: EventProbed}, StepIdle, "report-failed drop stop"},
		{"a runner away is waited out", on(StepProbing, time.Minute), lost, StepProbing, "probe-later"},
		{"but not for ever, in the probe", on(StepProbing, time.Hour), lost, StepIdle, "report-failed drop stop"},
		{"ready begins the trial", on(StepSwitching, 0), status("2", runnerapi.ModelStatus{State: ready}), StepTrial, "report-trial status-later"},
		{"loading is waited for", on(StepSwitching, 0), status("2", runnerapi.ModelStatus{State: loading}), StepSwitching, "status-later"},
		{"not loaded is waited for", on(StepSwitching, 0), status("1", runnerapi.ModelStatus{State: ready}), StepSwitching, "status-later"},
		{"but not for ever, loading", on(StepSwitching, 6*time.Minute), status("2", runnerapi.ModelStatus{State: loading}), StepUndoing, "reload"},
		{"failed goes back", on(StepSwitching, 0), status("2", runnerapi.ModelStatus{State: broken}), StepUndoing, "reload"},
		{"a good trial goes on", on(StepTrial, 29*time.Second), status("2", runnerapi.ModelStatus{State: ready}), StepTrial, "status-later"},
		{"and is committed", on(StepTrial, 30*time.Second), status("2", runnerapi.ModelStatus{State: ready}), StepIdle, "report-active"},
		{"not while it is loading", on(StepTrial, time.Minute), status("2", runnerapi.ModelStatus{State: loading}), StepTrial, "status-later"},
		{"which has an end", on(StepTrial, 6*time.Minute), status("2", runnerapi.ModelStatus{State: loading}), StepUndoing, "reload"},
		{"failures end a trial", on(StepTrial, 0), status("2", runnerapi.ModelStatus{State: ready, Requests: 50, Failures: 3}), StepUndoing, "reload"},
		{"two failures may be chance", on(StepTrial, 0), status("2", runnerapi.ModelStatus{State: ready, Requests: 3, Failures: 2}), StepTrial, "status-later"},
		{"few of many are tolerated", on(StepTrial, 0), status("2", runnerapi.ModelStatus{State: ready, Requests: 1000, Failures: 50}), StepTrial, "status-later"},
		{"slow is judged at the end only", on(StepTrial, 0), status("2", runnerapi.ModelStatus{State: ready, Requests: 100, LatencyP95: 1}), StepTrial, "status-later"},
		{"slow at the end goes back", on(StepTrial, 30*time.Second), status("2", runnerapi.ModelStatus{State: ready, Requests: 100, LatencyP95: 0.05}), StepUndoing, "reload"},
		{"a runner restart in a trial is waited out", on(StepTrial, time.Minute), lost, StepTrial, "status-later"},
		{"but not for ever, in the trial", on(StepTrial, time.Hour), lost, StepUndoing, "reload"},
		{"a change of mind in a trial goes back", on(StepTrial, 0), Event{Kind: EventWanted, Want: wantOf("3", 0)}, StepUndoing, "reload"},
		{"a change of mind in a probe drops it", on(StepProbing, 0), Event{Kind: EventWanted, Want: wantOf("1", 0)}, StepIdle, "drop status"},
		{"back is back when the old one is ready", on(StepUndoing, 0), status("1", runnerapi.ModelStatus{State: ready}), StepIdle, "report-rolled_back drop stop"},
		{"back waits for it", on(StepUndoing, 0), status("2", runnerapi.ModelStatus{State: ready}), StepUndoing, "status-later"},
		{"back ends though the old one is broken", on(StepUndoing, 0), status("1", runnerapi.ModelStatus{State: broken}), StepIdle, "report-rolled_back drop stop"},
		{"back ends though nobody answers", on(StepUndoing, time.Hour), lost, StepIdle, "report-rolled_back drop stop"},
		{"a restart goes on fetching", on(StepFetching, 0), Event{Kind: EventResumed}, StepFetching, "files"},
		{"a restart probes again", on(StepProbing, 0), Event{Kind: EventResumed}, StepProbing, "probe"},
		{"a restart switches again", on(StepSwitching, 0), Event{Kind: EventResumed}, StepSwitching, "reload"},
		{"a restart tries again", on(StepTrial, time.Hour), Event{Kind: EventResumed}, StepTrial, "status"},
		{"a restart goes on going back", on(StepUndoing, 0), Event{Kind: EventResumed}, StepUndoing, "reload"},
		{"nonsense changes nothing", on(StepTrial, 0), Event{Kind: 99}, StepTrial, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, actions := testRules.Next(tt.state, tt.event, now)
			if got.Step != tt.step || words(actions) != tt.actions {
				t.Errorf("got %s with %q, want %s with %q", got.Step, words(actions), tt.step, tt.actions)
			}
		})
	}
}

func TestFailureRatioOfTheOldVersionIsAllowedTwice(t *testing.T) {
	base := runnerapi.ModelStatus{Requests: 100, Failures: 10}
	for failures, bad := range map[uint64]bool{20: false, 21: true} {
		got := testRules.judge(runnerapi.ModelStatus{State: runnerapi.ModelReady, Requests: 100, Failures: failures}, base, false)
		if (got != "") != bad {
			t.Errorf("%d of 100 failures: judged %q", failures, got)
		}
	}
}

func TestOnlyTheNewestDenialsAreKept(t *testing.T) {
	var s State
	for i := range 2 * maxDenials {
		s = s.deny(Denial{Digest: refOf(fmt.Sprint(i)).Digest})
	}
	_, old := s.denial(refOf("0").Digest)
	_, young := s.denial(refOf(fmt.Sprint(2*maxDenials - 1)).Digest)
	if len(s.Denied) != maxDenials || old || !young {
		t.Errorf("%d denials, oldest kept %v, newest kept %v", len(s.Denied), old, young)
	}
}

// drive feeds Next with the events that data spells and checks what must hold
// whatever comes.
func drive(t *testing.T, data []byte) map[Step]int {
	met := map[Step]int{}
	now := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	s := State{Name: "vad", Step: StepIdle}
	var reported []Phase // of the candidate on its way
	for i := 0; i+2 < len(data); i += 3 {
		now = now.Add(time.Duration(data[i+2]%32) * time.Second)
		if data[i+2] > 250 {
			now = now.Add(2 * time.Hour)
		}
		e := eventFrom(s, data[i], data[i+1])
		before, _ := json.Marshal(s)
		was := s
		next, actions := testRules.Next(s, e, now)
		if after, _ := json.Marshal(was); string(after) != string(before) {
			t.Fatalf("Next changed its argument\nwas %s\nis  %s", before, after)
		}
		again, more := testRules.Next(was, e, now)
		if a, b := fmt.Sprintf("%+v %+v", next, actions), fmt.Sprintf("%+v %+v", again, more); a != b {
			t.Fatalf("two answers\n%s\n%s", a, b)
		}
		checkStep(t, was, next, e)
		for _, a := range actions {
			if a.Kind == ActReport {
				reported = checkReport(t, reported, a.Phase, next)
			}
		}
		s = next
		met[s.Step]++
	}
	return met
}

// eventFrom spells an event; most of them are about the candidate or, going
// back, about the current version, since only those lead anywhere.
func eventFrom(s State, kind, detail byte) Event {
	version := string(rune('1' + detail%3))
	switch {
	case detail%4 > 0 && s.Step == StepUndoing && !s.Current.none():
		version = s.Current.Version
	case detail%4 > 0 && !s.Candidate.none():
		version = s.Candidate.Version
	}
	switch kind % 20 {
	case 0:
		if detail%8 == 7 {
			return Event{Kind: EventWanted}
		}
		return Event{Kind: EventWanted, Want: wantOf(string(rune('1'+detail%3)), int(detail/32)), Generation: uint64(detail)}
	case 1:
		return Event{Kind: EventResumed}
	case 2:
		if detail < 200 {
			return Event{}
		}
		if detail%4 == 0 && !s.Current.none() {
			version = s.Current.Version
		}
		return Event{Kind: EventLost, Digest: refOf(version).Digest, Err: "gone", Fallback: detail%8 < 4}
	case 3, 4, 5:
		return Event{Kind: EventManifest, Manifest: manifestOf(version, 1+int(detail/250))}
	case 6, 7, 8:
		return Event{Kind: EventFetched}
	case 9, 10, 11:
		return Event{Kind: EventProbed, Probe: runnerapi.Probe{OK: detail < 230, Damaged: detail > 240}}
	case 12:
		return Event{Kind: EventFailed, Err: "away", Blame: Blame(detail / 64)}
	}
	state := runnerapi.ModelReady
	if detail > 220 {
		state = runnerapi.ModelLoading
	} else if detail > 200 {
		state = runnerapi.ModelFailed
	}
	m := runnerapi.ModelStatus{State: state, Requests: 10, Failures: uint64(detail / 240 * 5)}
	if s.Step == StepShadow && detail%8 > 0 {
		m.Shadow = &runnerapi.Shadow{Seen: uint64(detail), Compared: uint64(detail / 2), Failures: uint64(detail / 200 * 50)}
	}
	return Event{Kind: EventStatus, Status: statusWith(version, m)}
}

// checkStep holds one transition against the order of steps and the rule that
// what served before stays until the commit.
func checkStep(t *testing.T, was, is State, e Event) {
	t.Helper()
	legal := map[Step][]Step{
		StepIdle:      {StepFetching, StepRemoving},
		StepFetching:  {StepIdle, StepProbing, StepRemoving},
		StepProbing:   {StepIdle, StepFetching, StepShadow, StepSwitching, StepRemoving},
		StepShadow:    {StepIdle, StepFetching, StepProbing, StepSwitching, StepRemoving},
		StepSwitching: {StepTrial, StepUndoing},
		StepTrial:     {StepIdle, StepUndoing},
		StepUndoing:   {StepIdle, StepFetching, StepRemoving},
		StepRemoving:  {StepIdle, StepFetching},
	}
	if is.Step != was.Step && !slices.Contains(legal[was.Step], is.Step) {
		t.Fatalf("%s to %s on event %d", was.Step, is.Step, e.Kind)
	}
	if was.Current.Digest != is.Current.Digest && e.Kind != EventLost {
		switch {
		case was.Step == StepRemoving && is.Current.none():
		case was.Step == StepTrial && is.Step == StepIdle && is.Current.Digest == was.Candidate.Digest:
			if !was.Current.none() && is.Previous.Digest != was.Current.Digest {
				t.Fatal("the commit forgot the version before")
			}
		default:
			t.Fatalf("current %q became %q in %s on event %d", was.Current.Version, is.Current.Version, was.Step, e.Kind)
		}
	}
	if v := is.Serving(); !v.none() && len(v.Files) == 0 {
		t.Fatalf("a version without files serves in %s", is.Step)
	}
	if is.denies(is.For) && slices.Contains([]Step{StepFetching, StepProbing, StepShadow, StepSwitching}, is.Step) && was.Step != is.Step {
		t.Fatalf("a denied version entered %s", is.Step)
	}
}

// checkReport holds one report against those of the same candidate before it.
func checkReport(t *testing.T, before []Phase, p Phase, s State) []Phase {
	t.Helper()
	order := []string{"fetching", "probing", "shadow", "switching", "trial", PhaseActive}
	if p.Phase == PhaseActive {
		if s.Step != StepIdle || s.Current.Digest != p.Digest {
			t.Fatalf("reported active in %s with %s current", s.Step, s.Current.Version)
		}
		return nil
	}
	at := slices.Index(order, p.Phase)
	if at < 0 {
		if p.Err == "" {
			t.Fatalf("%s without a reason", p.Phase)
		}
		return nil // an end
	}
	if len(before) > 0 && at > 0 {
		last := before[len(before)-1]
		// A first version, with nothing to compare it to, goes from probing to switching.
		// One that has served before has been compared.
		alone := p.Phase == "switching" && last.Phase == "probing" && (s.Current.none() || s.mending())
		// A runner that restarted has lost what ran in the shadow, and probes it again.
		again := p.Phase == "probing" && last.Phase == "shadow"
		if prev := slices.Index(order, last.Phase); last.Digest != p.Digest || at != prev+1 && at != prev && !alone && !again {
			t.Fatalf("%s:%s after %s:%s", p.Version, p.Phase, last.Version, last.Phase)
		}
	}
	return append(before, p)
}

func TestRandomEventsKeepTheRules(t *testing.T) {
	seeds := uint64(60) // FuzzNext goes on
	if os.Getenv("EDGEHERD_PROVE") != "" {
		seeds = 3000
	}
	met := map[Step]int{}
	for seed := range seeds {
		rng := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
		data := make([]byte, 900)
		_, _ = rng.Read(data)
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			for step, n := range drive(t, data) {
				met[step] += n
			}
		})
	}
	for _, step := range []Step{StepIdle, StepFetching, StepProbing, StepSwitching, StepTrial, StepUndoing, StepRemoving} {
		if met[step] < int(seeds)/3 {
			t.Errorf("%s was met %d times only: the events are too random to prove anything", step, met[step])
		}
	}
}

func FuzzNext(f *testing.F) {
	// wanted 1, manifest, fetched, probed, ready, and a trial that ends.
	f.Add([]byte{0, 0, 0, 3, 1, 1, 6, 1, 1, 9, 1, 1, 13, 1, 1, 13, 1, 31, 13, 1, 0, 0, 1, 1, 3, 1, 1, 6, 1, 1, 9, 1, 1, 13, 1, 1, 13, 250, 1, 13, 1, 1})
	f.Add([]byte{0, 0, 0, 12, 1, 1, 0, 33, 1, 1, 0, 0, 12, 0, 255, 2, 210, 0, 0, 7, 0})
	f.Fuzz(func(t *testing.T, data []byte) { drive(t, data) })
}

// TestAProvedVersionWaitsForARunnerThatIsAway: what it served with is here again, and
// neither the runner nor the wait for the next look at the files speaks against it.
func TestAProvedVersionWaitsForARunnerThatIsAway(t *testing.T) {
	rules := Rules{ProbeLimit: 10 * time.Minute}
	ref := models.Ref{Name: "vad", Version: "2.0", Digest: blob.Sum([]byte("2.0"))}
	now := time.Unix(1e9, 0)
	s := State{Name: "vad", Step: StepProbing, Since: now, Want: Want{Ref: ref}, For: Want{Ref: ref}, Candidate: Version{Ref: ref},
		Mend: Mend{Digest: ref.Digest, Why: "of its files, model.onnx is damaged on the disk", Times: 1, Proved: true}}
	told := 0
	for range 30 {
		now = now.Add(time.Minute)
		var actions []Action
		s, actions = rules.Next(s, Event{Kind: EventFailed, Err: "connection refused"}, now)
		if s.Step != StepProbing || s.denies(s.Want) {
			t.Fatalf("after %s: step %s, denied %v", now.Sub(s.Since), s.Step, s.Denied)
		}
		if last := actions[len(actions)-1]; last.Kind != ActProbe || last.Delay == 0 {
			t.Fatalf("what follows is %+v, want another probe in a while", actions)
		}
		for _, act := range actions[:len(actions)-1] {
			told++
			if p := act.Phase; p.Phase != string(StepProbing) || !strings.Contains(p.Err, "model.onnx") || !strings.Contains(p.Err, "connection refused") {
				t.Errorf("told %+v", p)
			}
		}
	}
	if told != 1 {
		t.Errorf("told %d times, want once", told)
	}
}
