package site

import (
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// SeedTTL is how long a box may be silent before another one of its site takes
// the fetching of a file over; a box renews three times as often.
const SeedTTL = time.Minute

// seedPatience is how long a seed may bring nothing: its line may be dead, or it
// may lie about what it does.
const seedPatience = 10 * SeedTTL

// Seed is the lease of a file at a site: Box alone fetches it over the line. The
// zero value is nobody's.
type Seed struct {
	Box   identity.ID
	Epoch int64 // grows with each other box
	Until time.Time
	// Done is how much the box had when it last had more than before, at Moved.
	Done  int64
	Moved time.Time
}

// SeedAsk is a box that asks for the lease, or for its renewal.
type SeedAsk struct {
	Box  identity.ID
	Done int64
	// Yield says that the box cannot use the line now, or needs nothing more.
	Yield bool
	// Shunned says that the box gave out wrong bytes a short while ago.
	Shunned bool
}

// NextSeed decides who fetches. It is pure. The one who fetches keeps the lease
// as long as it renews and gets on; then it is the next who asks.
func NextSeed(s Seed, a SeedAsk, now time.Time) Seed {
	held := s.Box != "" && now.Before(s.Until) && now.Sub(s.Moved) < seedPatience
	switch {
	case s.Box == a.Box && (a.Yield || a.Shunned):
		return Seed{Epoch: s.Epoch}
	case a.Yield || a.Shunned:
		return s
	case held && s.Box != a.Box:
		return s
	case !held && s.Box == a.Box && now.Sub(s.Moved) >= seedPatience && a.Done <= s.Done:
		// It had its time. It may ask again when nobody else does.
		return Seed{Epoch: s.Epoch}
	}
	if s.Box != a.Box {
		s = Seed{Box: a.Box, Epoch: s.Epoch + 1, Done: a.Done, Moved: now}
	}
	if a.Done > s.Done {
		s.Done, s.Moved = a.Done, now
	}
	s.Until = now.Add(SeedTTL)
	return s
}
