package store

import "sync"

// The index of sample leads by the era of a row: some thousand rows that came
// after each other. In an index by box alone each block of a commit touches
// another page, which goes to the log whole; here they share the pages of the
// present era. To find the rows of a box is to look into each era, of which
// there are a hundred when 10,000 boxes have sent a block a minute for an hour.
// An era means nothing else, and any number will do.

// eraRows is about how many rows an era has.
const eraRows = 8192

// eras chooses the era of new rows.
type eras struct {
	mu   sync.Mutex // guards the fields below
	now  int64
	rows int
}

// at returns the era of the rows of a commit.
func (e *eras) at(lsn uint64) int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.now == 0 || e.rows >= eraRows {
		e.now, e.rows = int64(lsn), 0
	}
	return e.now
}

// took counts rows of the present era.
func (e *eras) took(rows int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rows += rows
}

// ofBox begins a query for rows of sample that are of a box, its first
// argument, by their times.
func ofBox(columns string) string {
	return `WITH RECURSIVE eras (era) AS (SELECT min(era) FROM sample UNION ALL
			SELECT (SELECT min(era) FROM sample WHERE sample.era > eras.era) FROM eras WHERE eras.era IS NOT NULL)
		SELECT ` + columns + ` FROM eras CROSS JOIN sample WHERE sample.era = eras.era AND box = ? AND `
}
