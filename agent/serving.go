package agent

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

// shadowEvery is how often new numbers of a shadow are worth an event.
const shadowEvery = 30 * time.Second

// serving remembers what was reported of how models serve, by name.
type serving map[string]servingNote

type servingNote struct {
	told wire.Serving
	at   time.Time
}

// noteServing records a change of how models serve, as the runner says.
func (a *Agent) noteServing(s runnerapi.Status) {
	var now []wire.Serving
	seen := map[string]bool{}
	for _, up := range []bool{true, false} { // a name that is served is not down
		for _, m := range s.Models {
			if (m.State == runnerapi.ModelReady) != up || seen[m.Name] || !up && m.Err == "" {
				continue
			}
			seen[m.Name] = true
			now = append(now, servingOf(s, m))
		}
	}
	a.tellServing(now)
	for name := range a.serving {
		// What is only loading is neither well nor news: what was told of it holds.
		if !slices.ContainsFunc(s.Models, func(m runnerapi.ModelStatus) bool { return m.Name == name }) {
			delete(a.serving, name)
		}
	}
}

// silentFor is how long a runner may answer nothing before that is told: it may
// be starting.
const silentFor = time.Minute

// noteSilence records that the runner does not answer, for each model that it
// should serve.
func (a *Agent) noteSilence(err error, models []models.Ref) {
	if a.runner.silent() < silentFor {
		return
	}
	var now []wire.Serving
	for _, ref := range models {
		down := wire.Serving{Name: ref.Name, Version: ref.Version, Digest: ref.Digest.String(), Err: "the runner does not answer; its log on the box says why (journalctl -u edgeherd-runner): " + err.Error()}
		now = append(now, down.Clean())
	}
	a.tellServing(now)
}

// tellServing commits what is news.
func (a *Agent) tellServing(list []wire.Serving) {
	now := time.Now()
	for _, is := range list {
		was, known := a.serving[is.Name]
		if known && !news(was, is, now) {
			continue
		}
		if err := a.event(wire.EventServing, stepped(was.told, is), is); err != nil {
			a.must(err)
			return // the disk has it in memory, or nobody has: told again
		}
		a.serving[is.Name] = servingNote{is, now}
	}
}

// news reports whether is says more than was: numbers alone do so now and then.
func news(was servingNote, is wire.Serving, now time.Time) bool {
	old := was.told
	plain := func(s wire.Serving) wire.Serving {
		if s.Shadow != nil {
			s.Shadow = &wire.ServingShadow{Version: s.Shadow.Version}
		}
		s.Refused, s.Reason = 0, "" // the reason has the temperature of the moment
		if s.Err != "" {
			s.Err = "down" // in which words may change with each try
		}
		return s
	}
	if !reflect.DeepEqual(plain(old), plain(is)) {
		return true
	}
	counted := !reflect.DeepEqual(old.Shadow, is.Shadow) || old.Refused != is.Refused || old.Err != is.Err
	return counted && now.Sub(was.at) >= shadowEvery
}

// stepped says in words that another variant serves, or none; empty: the same one does.
func stepped(was, is wire.Serving) string {
	switch {
	case is.Err != "" && (was.Err == "" || was.Digest != is.Digest):
		return fmt.Sprintf("%s:%s does not serve: %s", is.Name, is.Version, is.Err)
	case is.Err == "" && was.Err != "":
		return fmt.Sprintf("%s:%s serves again", is.Name, is.Version)
	}
	if was.Digest != is.Digest || was.Variant == is.Variant {
		return ""
	}
	text := fmt.Sprintf("%s:%s serves variant %s, %s before", is.Name, is.Version, is.Variant, was.Variant)
	if reason := cmp.Or(is.Reason, is.Cause); reason != "" {
		text += ": " + reason
	}
	return text
}

func servingOf(st runnerapi.Status, m runnerapi.ModelStatus) wire.Serving {
	s := wire.Serving{
		Name: m.Name, Version: m.Version, Digest: m.Digest.String(), Variant: m.Variant, Cause: m.VariantCause,
		Refused: m.PinnedRefused, Backend: m.Backend, Provider: m.Provider,
	}
	if m.State != runnerapi.ModelReady {
		s.Err = m.Err
	}
	if st.Rung > 0 {
		s.Reason = st.RungReason
	}
	for _, v := range m.Variants {
		s.Variants = append(s.Variants, wire.ServingVariant{
			Name: v.Name, SecondsPerItem: v.SecondsPerItem, PeakRSSBytes: v.PeakRSSBytes,
			Watts: v.Watts, JoulesPerItem: v.JoulesPerItem, HeatFrom: v.HeatFrom, Skipped: v.Skipped,
		})
	}
	for _, c := range st.Models {
		if w := c.Shadow; w != nil && c.Name == m.Name && c.State == runnerapi.ModelCandidate {
			s.Shadow = &wire.ServingShadow{
				Version: c.Version, Seen: w.Seen, Compared: w.Compared, Failures: w.Failures, Hot: w.Hot, Busy: w.Busy, Large: w.Large,
				Agreement: w.Agreement, LatencyRatio: w.LatencyRatio, Err: w.Err,
			}
		}
	}
	return s.Clean()
}
