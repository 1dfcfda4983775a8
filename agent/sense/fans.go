package sense

import (
	"maps"
	"path/filepath"
	"slices"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/health"
)

// fanMemory is what fans-seen.json holds.
type fanMemory struct {
	Fans []string `json:"fans"` // keys, in the order of the figures
}

func (s *Sampler) fanJournal() durable.Journal {
	return durable.Journal{Path: filepath.Join(s.opts.StateDir, "fans-seen.json"), Version: 1}
}

// loadFans reads fans-seen.json once. A file that is damaged costs only the memory.
func (s *Sampler) loadFans() {
	if s.fansLoaded || s.opts.StateDir == "" {
		return
	}
	s.fansLoaded = true
	var m fanMemory
	if _, err := s.fanJournal().Load(&m); err != nil {
		s.log.Warn("fans of this box not remembered", "err", err)
	}
	s.fans = m.Fans[:min(len(m.Fans), health.Fans)]
}

// fans are the metrics of the plan's fans, each with its key.
func (p *plan) fans() map[string]string {
	keys := map[string]string{}
	for _, o := range p.outputs {
		if o.sensor.Metric == FanRPM {
			keys[o.name] = o.sensor.Key
		}
	}
	return keys
}

// noteFans gives each fan that turns a number and keeps it. When all numbers
// are taken, that of a fan that is no longer there goes to the newcomer.
func (s *Sampler) noteFans(readings []Reading) {
	there := slices.Collect(maps.Values(s.fanKeys))
	changed := false
	number := func(key string) {
		switch i := slices.IndexFunc(s.fans, func(k string) bool { return !slices.Contains(there, k) }); {
		case slices.Contains(s.fans, key):
			return
		case len(s.fans) < health.Fans:
			s.fans = append(s.fans, key)
		case i >= 0:
			s.fans[i] = key
		default:
			return // the box has more fans than figures
		}
		changed = true
	}
	if key, ok := s.fanKeys[string(FanRPM)]; ok && slices.ContainsFunc(readings, func(r Reading) bool {
		return r.Metric == string(FanRPM)
	}) {
		number(key)
	}
	for _, r := range readings {
		if key, fan := s.fanKeys[r.Metric]; fan {
			number(key)
		}
	}
	s.fansUnsaved = s.fansUnsaved || changed
	if !s.fansUnsaved || s.opts.StateDir == "" {
		return
	}
	if err := s.fanJournal().Save(fanMemory{Fans: s.fans}); err != nil {
		s.logOnce(s.opts.StateDir, err) // and again at the next Read: the disk may be full
		return
	}
	s.fansUnsaved = false
}
