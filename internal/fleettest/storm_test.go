package fleettest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/simboard"
)

// stormPolicy has a budget that is tighter than its waves.
const stormPolicy = "waves: [%s, rest]\nunreachable_after: 10m\ndeadline: 3h\nstragglers: 1h\nbudgets: [{per: site, max_unavailable: 1}]\n"

// storm is a rollout among faults: what goes wrong comes from one seed.
type storm struct {
	*Fleet
	seed   uint64
	faults int // of each rollout
	rng    *rand.Rand
	id     string
	target string // name:version
	told   []string
}

// TestARolloutKeepsItsPromisesAmongFaults: at every moment a box that counts as
// having the version serves it, no site has more boxes at work than its budget,
// and no box serves what was not pushed; in the end the rollout has an end. A
// version that fails reaches the boxes of its first wave and no other. One seed
// and the version that fails, with EDGEHERD_PROVE=1 twenty and both.
func TestARolloutKeepsItsPromisesAmongFaults(t *testing.T) {
	seeds, faults := []uint64{1}, 3
	if os.Getenv("EDGEHERD_PROVE") != "" {
		seeds, faults = nil, 8
		for i := range uint64(20) {
			seeds = append(seeds, i)
		}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			story(t, 3, func(f *Fleet) {
				settled(f)
				f.done(f.Roll(f.MustPush(Model{Name: "vad", Version: "5.0.0"}), "rest"))
				s := &storm{Fleet: f, seed: seed, faults: faults, rng: rand.New(rand.NewPCG(seed, 0))}
				prove := len(seeds) > 1
				if prove || seed%2 == 0 {
					if r := s.weather(Model{Name: "vad", Version: "6.0.0"}, "2"); r.State != fleetapi.RolloutDone && r.State != fleetapi.RolloutHalted {
						t.Errorf("seed %d: a version that works is %s in the end: %s", seed, r.State, r.Sentence)
					}
				}
				if !prove && seed%2 == 0 {
					return
				}
				r := s.weather(Model{Name: "vad", Version: "7.0.0", FailsInTrial: true}, "1")
				if r.State != fleetapi.RolloutHalted {
					t.Errorf("seed %d: a version that fails is %s in the end: %s", seed, r.State, r.Sentence)
				}
				if n := s.reached("vad:7.0.0"); n > 1 {
					t.Errorf("seed %d: a version that fails reached %d boxes, its first wave has one\n%s", seed, n, strings.Join(s.told, "\n"))
				}
			})
		})
	}
}

// weather rolls a version out, lets things go wrong for a while and waits for the end.
func (s *storm) weather(m Model, first string) fleetapi.Rollout {
	s.T.Helper()
	ref := s.MustPush(m)
	s.id, s.target = s.roll(fleetapi.PlanRequest{Model: ref.String(), Policy: fmt.Sprintf(stormPolicy, first)}).ID, ref.Name+":"+ref.Version
	faults := []func(*Box){s.crash, s.cut, s.hole, s.clock, s.heat, s.restart, s.clone, s.calm}
	s.rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
	for _, fault := range faults[:s.faults] {
		fault(s.Boxes[s.rng.IntN(len(s.Boxes))])
		s.watch(time.Duration(1+s.rng.IntN(90)) * time.Second)
	}
	for _, b := range s.Boxes {
		b.SetClock(0)
	}
	s.Until("the rollout has an end", 12*time.Hour, func() bool {
		s.watch(30 * time.Second)
		return s.Rollout(s.id).State != fleetapi.RolloutRunning
	})
	return s.Rollout(s.id)
}

// watch lets time go by and holds the fleet to its promises meanwhile.
func (s *storm) watch(d time.Duration) {
	s.T.Helper()
	for ; d > 0; d -= 15 * time.Second {
		pass(min(d, 15*time.Second))
		r := s.Rollout(s.id)
		busy := map[string]int{}
		for _, w := range r.Waves {
			for _, t := range w.Targets {
				switch t.State {
				case fleetapi.TargetOffered, fleetapi.TargetWorking:
					busy[t.Site]++
				case fleetapi.TargetSucceeded:
					if at := s.serves(t.Name); at != s.target {
						s.fail("%s counts as having %s and serves %s", t.Name, s.target, at)
					}
				}
			}
		}
		for site, n := range busy {
			if n > 1 {
				s.fail("%d boxes of %s are at work, the budget is 1", n, site)
			}
		}
		for _, b := range s.Boxes {
			for _, version := range b.Runner.Switches() {
				if !slices.Contains([]string{"vad:5.0.0", "vad:6.0.0", "vad:7.0.0"}, version) {
					s.fail("%s served %s, which nobody signed for it", b.Name, version)
				}
			}
		}
	}
}

func (s *storm) fail(format string, args ...any) {
	s.T.Helper()
	s.T.Fatalf("seed %d: "+format+"\n%s", append(append([]any{s.seed}, args...), strings.Join(s.told, "\n"))...)
}

func (s *storm) serves(name string) string {
	for _, b := range s.Boxes {
		if had := b.Runner.Switches(); b.Name == name && len(had) > 0 {
			return had[len(had)-1]
		}
	}
	return "nothing"
}

func (s *storm) reached(version string) (n int) {
	for _, b := range s.Boxes {
		if slices.Contains(b.Runner.Switches(), version) {
			n++
		}
	}
	return n
}

func (s *storm) note(what string, b *Box) {
	s.told = append(s.told, fmt.Sprintf("%s %s %s", time.Since(s.began).Round(time.Second), what, b.Name))
}

func (s *storm) calm(b *Box) { s.note("calm", b) }

func (s *storm) crash(b *Box) {
	s.note("crash", b)
	if err := b.StopAgent(); err != nil {
		s.T.Fatal(err)
	}
	s.watch(time.Duration(1+s.rng.IntN(60)) * time.Second)
	b.StartAgent()
}

func (s *storm) cut(b *Box) {
	s.note("cut", b)
	b.Cut()
	s.watch(time.Duration(1+s.rng.IntN(20)) * time.Minute)
	b.Heal()
}

// hole loses what is on its way, so that it comes again and in another order.
func (s *storm) hole(b *Box) {
	s.note("hole", b)
	s.Net.BlackholeAll(b.Name)
	s.watch(time.Duration(1+s.rng.IntN(180)) * time.Second)
	b.Heal()
}

func (s *storm) clock(b *Box) {
	s.note("clock", b)
	b.SetClock([]time.Duration{-50 * 365 * 24 * time.Hour, -time.Hour, time.Hour, 10 * 365 * 24 * time.Hour}[s.rng.IntN(4)])
}

// heat makes a box as warm as a cabinet in the sun.
func (s *storm) heat(b *Box) {
	s.note("heat", b)
	board := simboard.New(simboard.Options{Root: b.Root(), Profile: simboard.Profiles()[0], Name: b.Name, Seed: s.seed}, s.log)
	board.SetAmbient(55)
	board.SetDust(1)
	for range 20 {
		board.Step(time.Now())
	}
	if err := board.Close(); err != nil {
		s.T.Fatal(err)
	}
}

func (s *storm) restart(b *Box) {
	s.note("controller, and crash", b)
	s.StopController()
	if err := b.StopAgent(); err != nil {
		s.T.Fatal(err)
	}
	pass(time.Duration(1+s.rng.IntN(60)) * time.Second)
	b.StartAgent()
	s.StartController()
}

// clone lets a second machine be the box for a while; then it is off and a person
// says so.
func (s *storm) clone(b *Box) {
	s.note("clone", b)
	twin := b.clone(fmt.Sprintf("twin-%d-%s", len(s.told), b.Name))
	s.watch(time.Duration(1+s.rng.IntN(10)) * time.Minute)
	if err := twin.StopAgent(); err != nil {
		s.T.Fatal(err)
	}
	twin.Runner.close()
	id, err := s.API.Identity(context.Background(), b.ID)
	if err == nil && id.State == "quarantined" {
		_, err = s.API.ChangeIdentity(context.Background(), b.ID, fleetapi.IdentityAction{Action: "release", Why: "the spare is off"})
	}
	if err != nil {
		s.T.Fatal(err)
	}
}
