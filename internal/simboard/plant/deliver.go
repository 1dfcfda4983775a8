package plant

// Simulate runs box i and hands over its hours in the order in which the
// controller would get them; emit must not keep the pointer. A nil emit only
// computes the truth. The first hour of a box is that of its commissioning.
func (f *Fleet) Simulate(i int, emit func(*Row)) BoxTruth {
	b := f.boxes[i]
	r := newRunner(f, b)
	q := queue{r: r, emit: emit}
	var out Row
	for h := b.start; h < f.hours; h++ {
		r.advance(h)
		if b.off(h) {
			continue
		}
		if r.hour(h, &out) && emit != nil {
			q.push(h, &out)
		}
	}
	return r.finish()
}

// off tells whether the box was switched off.
func (b *box) off(h int) bool {
	for _, w := range b.plan.gone {
		if w.has(h) {
			return true
		}
	}
	return false
}

// queue holds rows back while the site's link is down. What it still holds
// at the end never arrives.
type queue struct {
	r    *runner
	emit func(*Row)
	held []Row
	last Row
	got  bool
}

func (q *queue) down(h int) bool {
	if q.r.b.site.backfill == "metered" && h%4 != 3 {
		return true
	}
	for _, w := range q.r.b.site.outages {
		if w.has(h) {
			return true
		}
	}
	return false
}

// push delivers a row, or keeps it. After an outage families deliver the
// backlog before the present, newest first after it, or a few rows an hour
// beside it; a metered link is opened every four hours. Where the acknowledgement was lost the last row comes twice.
func (q *queue) push(h int, out *Row) {
	if q.down(h) {
		q.held = append(q.held, *out)
		return
	}
	late := out.Arrived
	send := func(x Row) {
		x.Arrived = late
		q.emit(&x)
	}
	if len(q.held) > 0 && q.got && q.r.b.load.noise.uniform(-100-h) < 0.3 {
		send(q.last)
	}
	q.got, q.last = true, *out
	switch q.r.b.site.backfill {
	case "newest-first":
		send(*out)
		for i := len(q.held) - 1; i >= 0; i-- {
			send(q.held[i])
		}
		q.held = q.held[:0]
	case "interleaved":
		send(*out)
		n := min(6, len(q.held))
		for _, x := range q.held[:n] {
			send(x)
		}
		q.held = q.held[n:]
	default:
		for _, x := range q.held {
			send(x)
		}
		q.held = q.held[:0]
		q.emit(out)
	}
}

// Truth is the truth of the whole fleet. It simulates every box; a caller who
// also wants the rows collects what Simulate returns and calls Join.
func (f *Fleet) Truth() Truth {
	var all []BoxTruth
	for i := range f.boxes {
		all = append(all, f.Simulate(i, nil))
	}
	return f.Join(all)
}

// Join is the fleet's truth from that of its boxes.
func (f *Fleet) Join(boxes []BoxTruth) Truth {
	return Truth{
		Family: f.family.Name, Seed: f.opts.Seed, Start: f.opts.Start, Days: f.opts.Days,
		Boxes: boxes, Sites: f.siteTruths(),
	}
}
