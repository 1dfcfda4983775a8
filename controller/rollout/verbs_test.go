package rollout

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

// verbs are the words of the scenario language; docs/rollouts.md lists them.
var verbs map[string]func(*stage, line) error

func init() {
	verbs = map[string]func(*stage, line) error{
		// The fleet and its plan.
		"fleet":  (*stage).fleet,
		"policy": func(s *stage, l line) error { s.policy = l.block; return nil },
		"zone":   func(s *stage, l line) error { s.zones[l.words[1]] = l.words[2]; return nil },
		"unfit": func(s *stage, l line) error {
			s.unfit[boxID(l.words[1])] = phrase.Plain(strings.Join(l.words[2:], " "))
			return nil
		},
		"bytes": func(s *stage, l line) (err error) { s.bytes, err = strconv.ParseInt(l.words[1], 10, 64); return err },
		"clock": func(s *stage, l line) (err error) { s.now, err = time.Parse(time.RFC3339, l.words[1]); return err },
		"away":  away,
		"plan":  (*stage).makePlan,
		"start": (*stage).start,
		"act":   (*stage).act,
		// What boxes do.
		"ok": func(s *stage, l line) error {
			is, was, err := serving(l)
			return cmp.Or(err, s.see(l, func(f *Fact) {
				f.Phase, f.Running, f.Err, f.Probe = phaseActive, target.Digest, "", is
				if was != nil {
					f.Was = was
				}
			}))
		},
		"fail": func(s *stage, l line) error {
			return s.see(line{words: l.words[:2]}, func(f *Fact) {
				f.Phase, f.Running, f.Err = phaseFailed, other, strings.Join(l.words[2:], " ")
			})
		},
		"stuck": func(s *stage, l line) error {
			return s.see(line{words: l.words[:2]}, func(f *Fact) { f.Phase, f.Err = phaseFetching, strings.Join(l.words[2:], " ") })
		},
		"full":   onDisk(phaseFetching),
		"spoilt": onDisk(phaseFailed),
		"phase": func(s *stage, l line) error {
			return s.see(line{words: l.words[1:]}, func(f *Fact) { f.Phase, f.Err = l.words[1], "" })
		},
		"running": func(s *stage, l line) error {
			return s.see(line{words: l.words[1:]}, func(f *Fact) { f.Running = digestOf(l.words[1]) })
		},
		"silent": func(s *stage, l line) error { return s.see(l, func(f *Fact) { f.Link = fleetapi.LinkSilent }) },
		"live":   func(s *stage, l line) error { return s.see(l, func(f *Fact) { f.Link = fleetapi.LinkLive }) },
		"newer": func(s *stage, l line) error {
			return s.see(l, func(f *Fact) { f.DesiredRollout, f.Newer = "r-2", true })
		},
		"awaits":  restored(RestoreAwaits),
		"ahead":   restored(RestoreAhead),
		"settled": restored(""),
		"heat":    heat,
		"draws":   drawsOfClass,
		"join":    join,
		"lock":    func(s *stage, l line) error { s.queue = append(s.queue, Input{Hold: &l.rest}); return nil },
		"unlock":  func(s *stage, l line) error { none := ""; s.queue = append(s.queue, Input{Hold: &none}); return nil },
		"locked": func(s *stage, l line) error {
			return s.see(line{words: l.words[:2]}, func(f *Fact) { f.Locked = strings.Join(l.words[2:], " ") })
		},
		// Time.
		"step":    func(s *stage, l line) error { s.now = s.now.Add(time.Second); s.step(); return nil },
		"after":   after,
		"restart": restart,
		// What is expected.
		"offers":   offers,
		"want":     want,
		"wave":     wave,
		"target":   targetIs,
		"count":    count,
		"affected": func(s *stage, l line) error { return contains(s.c.r.Affected, l.rest) },
		"gate":     gate,
		"decided":  decided,
		"warning":  func(s *stage, l line) error { return contains(strings.Join(s.plan.Warnings, "; "), l.rest) },
		"skipped":  skipped,
		"site":     siteRow,
		"replay":   replay,
	}
}

// restored says what a controller that came back from a backup knows of boxes.
func restored(how string) func(*stage, line) error {
	return func(s *stage, l line) error { return s.see(l, func(f *Fact) { f.Restore = how }) }
}

func away(s *stage, l line) error {
	for i := range s.boxes {
		if slices.Contains(l.names(), s.boxes[i].Name) {
			s.boxes[i].Link, s.boxes[i].LastSeen = fleetapi.LinkSilent, nil
		}
	}
	return s.see(l, func(f *Fact) { f.Link = fleetapi.LinkSilent })
}

func heat(s *stage, l line) error {
	o := l.opts()
	var h fleetapi.Heat
	for key, into := range map[string]*float64{"rise": &h.RiseKelvin, "busy": &h.Busy, "die": &h.Die, "watts": &h.Watts, "throttles": &h.Throttles} {
		if o[key] == "" {
			continue
		}
		v, err := strconv.ParseFloat(o[key], 64)
		if err != nil {
			return err
		}
		*into = v
	}
	return s.see(l, func(f *Fact) { f.Heat = &h })
}

// coolingOf reads what the hours of a box tell; nil: nothing.
func coolingOf(word func(key string) string) (*fleetapi.Cooling, error) {
	var cool fleetapi.Cooling
	any := false
	for key, into := range map[string]*float64{"per": &cool.KelvinPerWatt, "hot": &cool.HotCelsius, "draw": &cool.Watts, "limit": &cool.LimitCelsius} {
		if word(key) == "" || word(key) == "x" {
			continue
		}
		v, err := strconv.ParseFloat(word(key), 64)
		if err != nil {
			return nil, err
		}
		*into, any = v, true
	}
	for _, hour := range strings.FieldsFunc(word("cool"), func(r rune) bool { return r == '+' }) {
		n, err := strconv.Atoi(hour)
		if err != nil {
			return nil, err
		}
		if n < 0 || n >= len(cool.CoolHours) {
			return nil, fmt.Errorf("hour %d", n)
		}
		cool.CoolHours[n] = true
	}
	if !any {
		return nil, nil
	}
	return &cool, nil
}

// drawsOfClass says what boxes of a class draw that run the version already.
func drawsOfClass(s *stage, l line) error {
	o := l.opts()
	watts, err := strconv.ParseFloat(o["watts"], 64)
	s.draws = append(s.draws, fleetapi.Draw{Class: l.words[1], Watts: watts, Boxes: 3})
	return err
}

func join(s *stage, l line) error {
	for _, name := range l.names() {
		t := fleetapi.Target{Box: boxID(name), Name: name, Site: "s"}
		s.queue = append(s.queue, Input{Join: &t})
		s.facts[t.Box] = Fact{Link: fleetapi.LinkLive, Running: other}
	}
	return nil
}

// after lets time pass, then looks.
func after(s *stage, l line) error {
	d, err := time.ParseDuration(l.words[1])
	s.now = s.now.Add(d)
	s.step()
	return err
}

// restart takes the rollout up anew with what a database holds.
func restart(s *stage, _ line) error {
	known := map[string]Fact{}
	for i, w := range s.c.r.Waves {
		for j, t := range w.Targets {
			known[string(t.Box)] = s.c.facts[i][j]
		}
	}
	hold := s.c.hold
	c, err := NewCourse(s.c.r, nil)
	if err != nil {
		return err
	}
	for id, at := range c.places {
		c.facts[at.wave][at.at] = known[string(id)]
	}
	c.hold = hold
	s.c = c
	return nil
}

// offers looks a second later and wants exactly these boxes to be told.
func offers(s *stage, l line) error {
	s.now = s.now.Add(time.Second)
	s.step()
	wanted := l.names()
	if slices.Equal(wanted, []string{"nobody"}) {
		wanted = nil
	}
	if !slices.Equal(s.offers, wanted) {
		return fmt.Errorf("offered to %v; %s", s.offers, s.c.r.Sentence)
	}
	return nil
}

func contains(text, part string) error {
	if !strings.Contains(text, part) {
		return fmt.Errorf("it says %q", text)
	}
	return nil
}

func want(s *stage, l line) error {
	if string(s.c.r.State) != l.words[1] {
		return fmt.Errorf("it is %s: %s", s.c.r.State, s.c.r.Sentence)
	}
	_, part, _ := strings.Cut(l.rest, " ")
	return contains(s.c.r.Sentence, part)
}

func wave(s *stage, l line) error {
	n, err := strconv.Atoi(l.words[1])
	if err != nil || n > len(s.c.r.Waves) {
		return fmt.Errorf("there are %d waves", len(s.c.r.Waves))
	}
	w := s.c.r.Waves[n-1]
	if string(w.State) != l.words[2] {
		return fmt.Errorf("it is %s: %s", w.State, w.Reason)
	}
	return contains(w.Reason, strings.Join(l.words[3:], " "))
}

func targetIs(s *stage, l line) error {
	at, ok := s.c.places[boxID(l.words[1])]
	if !ok {
		return fmt.Errorf("it is no target")
	}
	t := s.c.r.Waves[at.wave].Targets[at.at]
	if string(t.State) != l.words[2] {
		return fmt.Errorf("it is %s (%s %s)", t.State, t.Err, t.Waits)
	}
	return contains(t.Err+t.Waits, strings.Join(l.words[3:], " "))
}

func count(s *stage, l line) error {
	n := 0
	for _, w := range s.c.r.Waves {
		for _, t := range w.Targets {
			if string(t.State) == l.words[1] || l.words[1] == "exposed" && t.Offered != nil {
				n++
			}
		}
	}
	if strconv.Itoa(n) != l.words[2] {
		return fmt.Errorf("%d are", n)
	}
	return nil
}

func gate(s *stage, l line) error {
	n, err := strconv.Atoi(l.words[1])
	if err != nil || n > len(s.c.r.Waves) {
		return fmt.Errorf("there are %d waves", len(s.c.r.Waves))
	}
	for _, g := range s.c.r.Waves[n-1].Gates {
		if g.Name == l.words[2] {
			if string(g.Result) != l.words[3] {
				return fmt.Errorf("it is %s: %s, allowed %s", g.Result, g.Measured, g.Allowed)
			}
			return contains(g.Measured+"; "+g.Allowed, strings.Join(l.words[4:], " "))
		}
	}
	return fmt.Errorf("no such gate")
}

func decided(s *stage, l line) error {
	for _, rec := range s.records {
		for _, d := range rec.Decisions {
			if strings.Contains(d.String(), l.rest) {
				return nil
			}
		}
	}
	return fmt.Errorf("no decision says so")
}

func skipped(s *stage, l line) error {
	for _, k := range s.plan.Sheet.Skipped {
		if k.Name == l.words[1] {
			return contains(k.Why, strings.Join(l.words[2:], " "))
		}
	}
	return fmt.Errorf("it is not")
}

func siteRow(s *stage, l line) error {
	for _, v := range s.plan.Sheet.Sites {
		if v.Site == l.words[1] {
			return contains(fmt.Sprintf("%d boxes, %d bytes, %s %s %s", v.Boxes, v.Bytes, v.TimeZone, v.Window, v.Waits), strings.Join(l.words[2:], " "))
		}
	}
	return fmt.Errorf("no such site")
}

// replay asks what the policy below the line would have done.
func replay(s *stage, l line) error {
	p, err := ParsePolicy(l.block)
	if err != nil {
		return err
	}
	r, err := Replay(s.plan, s.records, p)
	if err != nil {
		return err
	}
	if !r.Faithful {
		return fmt.Errorf("the log does not give its decisions again")
	}
	got := fmt.Sprintf("%s, %d exposed, %d bad, not %d exposed, %d bad", r.Would.State, r.Would.Exposed, r.Would.Bad, r.Was.Exposed, r.Was.Bad)
	return contains(got+"; "+r.Would.Sentence, l.rest)
}

// onDisk is a report in which the disk of the box is what is wrong.
func onDisk(phase string) func(*stage, line) error {
	return func(s *stage, l line) error {
		return s.see(line{words: l.words[:2]}, func(f *Fact) { f.Phase, f.Err, f.Disk = phase, strings.Join(l.words[2:], " "), true })
	}
}
