package site

import (
	"testing"
	"time"
)

func TestOneBoxOfASiteFetches(t *testing.T) {
	start := time.Unix(1e9, 0)
	type step struct {
		after time.Duration // since the step before
		ask   SeedAsk
		want  string // who has the lease then
	}
	for name, steps := range map[string][]step{
		"the first keeps it while it renews": {
			{0, SeedAsk{Box: "a"}, "a"}, {20 * time.Second, SeedAsk{Box: "b"}, "a"},
			{20 * time.Second, SeedAsk{Box: "a", Done: 5}, "a"}, {50 * time.Second, SeedAsk{Box: "b"}, "a"},
		},
		"one that is silent loses it to the next who asks": {
			{0, SeedAsk{Box: "a"}, "a"}, {SeedTTL, SeedAsk{Box: "b", Done: 3}, "b"}, {time.Second, SeedAsk{Box: "a", Done: 4}, "b"},
		},
		"one that gives it back makes room at once": {
			{0, SeedAsk{Box: "a"}, "a"}, {time.Second, SeedAsk{Box: "a", Yield: true}, ""}, {0, SeedAsk{Box: "b"}, "b"},
		},
		"one that cannot use the line gets none": {
			{0, SeedAsk{Box: "a", Yield: true}, ""}, {0, SeedAsk{Box: "b", Shunned: true}, ""}, {0, SeedAsk{Box: "c"}, "c"},
		},
		"one that gave out wrong bytes loses it": {
			{0, SeedAsk{Box: "a"}, "a"}, {time.Second, SeedAsk{Box: "a", Shunned: true}, ""},
		},
		"one that renews and brings nothing loses it": {
			{0, SeedAsk{Box: "a"}, "a"}, {50 * time.Second, SeedAsk{Box: "a"}, "a"}, {550 * time.Second, SeedAsk{Box: "a"}, ""}, {time.Second, SeedAsk{Box: "b"}, "b"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var s Seed
			now := start
			for i, st := range steps {
				now = now.Add(st.after)
				was := s
				if s = NextSeed(s, st.ask, now); string(s.Box) != st.want {
					t.Fatalf("step %d: %q has the lease, want %q", i, s.Box, st.want)
				}
				if s.Box != was.Box && s.Box != "" && s.Epoch != was.Epoch+1 {
					t.Errorf("step %d: epoch %d after %d", i, s.Epoch, was.Epoch)
				}
			}
		})
	}
}
