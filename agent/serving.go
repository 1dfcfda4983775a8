package agent

import (
	"cmp"
	"fmt"
	"reflect"
	"time"

	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/wire"
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
	now, seen := time.Now(), map[string]bool{}
	for _, m := range s.Models {
		if m.State != runnerapi.ModelReady || seen[m.Name] {
			continue
		}
		seen[m.Name] = true
		is := servingOf(s, m)
		was, known := a.serving[m.Name]
		if known && !news(was, is, now) {
			continue
		}
		if err := a.event(wire.EventServing, stepped(was.told, is), is); err != nil {
			a.must(err)
			return // the disk has it in memory, or nobody has: told again
		}
		a.serving[m.Name] = servingNote{is, now}
	}
	for name := range a.serving {
		if !seen[name] {
			delete(a.serving, name)
		}
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
		return s
	}
	if !reflect.DeepEqual(plain(old), plain(is)) {
		return true
	}
	counted := !reflect.DeepEqual(old.Shadow, is.Shadow) || old.Refused != is.Refused
	return counted && now.Sub(was.at) >= shadowEvery
}

// stepped says in words that another variant serves; empty: the same one does.
func stepped(was, is wire.Serving) string {
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
