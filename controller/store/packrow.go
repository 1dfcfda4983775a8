package store

import (
	"fmt"
	"slices"
)

// A pack that covers some minutes is about as compact as an hour, and whoever
// stores it has just decoded it: it is put among the closed hours at once, as a
// part of its own, and is never read to be merged. Its rollups are in the same
// row: in a table by box each would touch another page. They get a row of
// rollup_hour when the samples go for their age. A box that comes back after
// days offline costs no more than its way in. Of an exact
// pack the row is a piece of formSealed, or of formRows when only some of its
// members count; both are read by columns.

const (
	// straightMs bounds how many such parts an hour of an honest box may have.
	straightMs = 5 * 60_000
	// firstPackPart is the least part number of a pack, which is the id that its
	// row would have in sample. Parts that compaction makes count from 0.
	firstPackPart = 1 << rowBits
)

// packRow is what a row has of a pack: some of its members.
type packRow struct {
	fromMs, toMs int64
	body         []byte
	rollups      []byte // nil: it waits in sample until its hour is closed
	exact        *part  // what is in body, if it is known
}

// packRows makes the rows of the members that count: one, or more when they are
// further apart than the samples of a row may be.
func (d *Delivery) packRows(counts []bool) ([]packRow, error) {
	var rows []packRow
	n := len(d.Pack.Members)
	use := make([]bool, n)
	var from, to int64
	any := false
	flush := func() (err error) {
		row := packRow{fromMs: from, toMs: to}
		switch {
		case to-from >= straightMs && d.Samples != nil:
			one := d.opened(use).exact(*d.Samples)
			row.exact = &one
			if !slices.Contains(use, false) {
				row.body = one.encodeSealed(d.Pack.Payload)
			}
			if row.body == nil {
				row.body = one.encode()
			}
			row.rollups = encodeRollups((&content{parts: []part{one}}).rollups())
		case to-from >= straightMs && d.Rows != nil:
			row.rollups = encodeRollups((&content{coarse: d.opened(use).coarse(d.Rows)}).rollups())
			fallthrough
		default:
			row.body, err = encodePack(d.Pack, d.Starts, use)
		}
		rows = append(rows, row)
		return err
	}
	for i, m := range d.Pack.Members {
		if !counts[i] {
			continue
		}
		start, end := d.Starts[i], d.Starts[i]+m.SpanMs
		if any && max(to, end)-min(from, start) > MaxSpan.Milliseconds() {
			if err := flush(); err != nil {
				return nil, err
			}
			use, any = make([]bool, n), false
		}
		if !any {
			from, to = start, end
		}
		from, to, use[i], any = min(from, start), max(to, end), true, true
	}
	return rows, flush()
}

func (d *Delivery) opened(use []bool) *openedPack {
	return &openedPack{d.Pack, d.Schema, d.Starts, use, everyColumn(d.Schema)}
}

// prepare makes the rows of the packs among ds, as if all their members were
// new, which they nearly always are: it is work that no transaction waits for.
func prepare(ds []Delivery) ([][]packRow, error) {
	rows := make([][]packRow, len(ds))
	errs := make([]error, len(ds))
	parallel(len(ds), func(i int) {
		d := &ds[i]
		if d.Pack == nil {
			return
		}
		all := make([]bool, len(d.Pack.Members))
		for i := range all {
			all[i] = true
		}
		rows[i], errs[i] = d.packRows(all)
	})
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("store %s: %w", ds[i].name(), err)
		}
	}
	return rows, nil
}

// addPack stores a pack of a box for its new members.
func (c *commit) addPack(d *Delivery, fresh int, box any) error {
	rows := d.whole
	if c.packs == nil { // room for all, if they are like this one
		c.packs = make([]any, 0, insertHours.width*len(c.whole)*len(rows))
	}
	if fresh < len(d.Pack.Members) {
		var err error
		if rows, err = d.packRows(d.fresh); err != nil {
			return err
		}
	}
	for _, r := range rows {
		var id any = c.id()
		if r.rollups == nil {
			c.samples = append(c.samples, id, c.era, box, r.fromMs, r.toMs, r.body)
			continue
		}
		c.packs = append(c.packs, box, hourOf(r.fromMs), id, int64(c.lsn), r.fromMs, r.toMs, r.rollups, r.body)
	}
	return nil
}
