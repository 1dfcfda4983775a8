package health

import "slices"

// Table is what was read.
type Table struct {
	Series []*Series
	Rows   int
	Notes  []string // what was left out or looked wrong, each with file, line and column
}

// Series are the hours of one box.
type Series struct {
	Box, SKU, Site string
	pages          [][]Hour // of pageHours: a year must not be copied as it grows
}

const pageHours = 720

func (s *Series) add(h Hour) {
	n := len(s.pages)
	if n == 0 || len(s.pages[n-1]) == pageHours {
		s.pages = append(s.pages, make([]Hour, 0, pageHours))
		n++
	}
	s.pages[n-1] = append(s.pages[n-1], h)
}

// Each calls do for every hour in order until it returns false.
func (s *Series) Each(do func(h *Hour) bool) {
	for _, p := range s.pages {
		for i := range p {
			if !do(&p[i]) {
				return
			}
		}
	}
}

// Len is the number of hours.
func (s *Series) Len() int {
	n := 0
	for _, p := range s.pages {
		n += len(p)
	}
	return n
}

func (s *Series) sort() {
	all := slices.Concat(s.pages...)
	slices.SortStableFunc(all, func(a, b Hour) int { return int((a.Start - b.Start) / hourSeconds) })
	s.pages = nil
	for i, h := range all {
		if i > 0 && all[i-1].Start == h.Start {
			page := s.pages[len(s.pages)-1]
			page[len(page)-1] = Merge(page[len(page)-1], h)
			continue
		}
		s.add(h)
	}
}

// dropLeaps takes a few hours off the end that a leaping clock put far into
// the future.
func (s *Series) dropLeaps() int {
	const far, few = 180 * daySeconds, 24
	n := len(s.pages)
	if n == 0 || s.Len() <= few {
		return 0
	}
	tail := s.pages[max(n-2, 0):]
	count := 0
	var later int64
	for p := len(tail) - 1; p >= 0; p-- {
		for i := len(tail[p]) - 1; i >= 0; i-- {
			if later != 0 && later-tail[p][i].Start > far {
				return s.cut(count)
			}
			if later = tail[p][i].Start; count == few {
				return 0
			}
			count++
		}
	}
	return 0
}

func (s *Series) cut(n int) int {
	for left := n; left > 0; left-- {
		k := len(s.pages) - 1
		if s.pages[k] = s.pages[k][:len(s.pages[k])-1]; len(s.pages[k]) == 0 {
			s.pages = s.pages[:k]
		}
	}
	return n
}
