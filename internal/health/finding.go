package health

import (
	"math"
	"slices"
)

// index of the open finding of a family, or −1.
func (b *Box) index(family string) int {
	return slices.IndexFunc(b.Open, func(f Finding) bool { return f.Family == family })
}

// has reports whether a finding of one of the families is open.
func (b *Box) has(families ...string) bool {
	return slices.ContainsFunc(families, func(f string) bool { return b.index(f) >= 0 })
}

// raise opens a finding or brings the open one up to date. Its level only
// rises; its cause may still change, since evidence grows.
func (b *Box) raise(f Finding, when int64) {
	at := Unix(when)
	f.Confidence = math.Round(100*f.Confidence) / 100
	f.Box, f.Site = b.Name, b.Site
	i := b.index(f.Family)
	if i < 0 {
		f.Opened = at
		b.Open = append(b.Open, Finding{Family: f.Family, Level: Healthy, Opened: at, Since: f.Since})
		i = len(b.Open) - 1
	}
	was := &b.Open[i]
	news := f.Level > was.Level || f.Cause != was.Cause
	f.Opened, f.Since = was.Opened, was.Since
	f.Ticketed, f.Urgent, f.AtTicket = was.Ticketed, was.Urgent, was.AtTicket
	f.Level = max(f.Level, was.Level)
	if f.Level >= Ticket && f.Ticketed == 0 {
		f.Ticketed, f.AtTicket = at, f.Forecast
	}
	if f.Level == Urgent && f.Urgent == 0 {
		f.Urgent = at
	}
	*was = f
	if news {
		b.out = append(b.out, f)
	}
}

// close ends the open finding of a family.
func (b *Box) close(family string, when int64, by string) {
	i := b.index(family)
	if i < 0 {
		return
	}
	f := b.Open[i]
	f.Closed, f.ClosedBy = Unix(when), by
	b.Open = slices.Delete(b.Open, i, i+1)
	b.out = append(b.out, f)
}
