package audit

import (
	"fmt"
)

// Broken names the first record that is not what it was when it was written.
type Broken struct {
	Seq int64
	Why string
}

func (b *Broken) Error() string { return fmt.Sprintf("record %d: %s", b.Seq, b.Why) }

// Verifier goes through a chain from its first record on. The zero value is
// ready for record 1.
type Verifier struct {
	last  Head
	doubt *Broken // last itself, or the one before it: what follows says which
	past  Past
}

// Add takes the next line. An error is *Broken.
//
// When a record does not bear the hash of the one before it, one of the two was
// changed. It was the earlier one if the hash of the later one is borne by its
// own follower.
func (v *Verifier) Add(line []byte) error {
	r, err := Parse(line)
	if v.doubt != nil {
		if err == nil && r.Prev != v.last.Hash {
			v.doubt.Seq, v.doubt.Why = v.last.Seq, "it was changed: neither neighbour fits it"
		}
		return v.doubt
	}
	want := v.last.Seq + 1
	switch {
	case err != nil:
		return &Broken{want, "it cannot be read: " + err.Error()}
	case r.Seq != want && want > 1 && r.Seq > want:
		return &Broken{want, fmt.Sprintf("it is missing; record %d comes in its place", r.Seq)}
	case r.Seq != want:
		return &Broken{want, fmt.Sprintf("it says that it is record %d", r.Seq)}
	}
	if prev := v.head(); r.Prev != prev.Hash {
		v.doubt = &Broken{prev.Seq, "it was changed: its hash is not the one that the next record bears"}
		if prev.Seq == 0 {
			return &Broken{1, "it was changed: the first record bears no hash of another"}
		}
	}
	v.last = Head{r.Seq, Hash(line)}
	v.past.add(r)
	return nil
}

// Past is what the records that were added say of the log.
func (v *Verifier) Past() *Past { return &v.past }

func (v *Verifier) head() Head {
	if v.last.Seq == 0 {
		return Empty()
	}
	return v.last
}

// Passed is the newest record that was added.
func (v *Verifier) Passed() Head { return v.head() }

// End compares the last record with the head that is known.
func (v *Verifier) End(head Head) error {
	last := v.head()
	switch {
	case v.doubt != nil && last != head:
		return &Broken{last.Seq, "it was changed: neither its neighbour nor the head fits it"}
	case v.doubt != nil:
		return v.doubt
	case last.Seq < head.Seq:
		return &Broken{last.Seq + 1, fmt.Sprintf("it is missing: the log ends with record %d, and had %d", last.Seq, head.Seq)}
	case last.Seq == head.Seq && last.Hash != head.Hash:
		return &Broken{last.Seq, "it was changed: its hash is not that of the head"}
	case last.Seq > head.Seq:
		return &Broken{head.Seq + 1, fmt.Sprintf("it was added past the head, which is record %d", head.Seq)}
	}
	return nil
}
