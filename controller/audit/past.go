package audit

import (
	"fmt"
	"strings"
	"time"
)

// What happened to a log as a whole, told by records in it. No request of a
// person makes records of these verbs.
const (
	// Restored: the database came back from a backup. What followed the record
	// before this one is lost.
	Restored = "server.restore"
	// NewKey: from here on another key signs the heads; Before and After are the
	// public keys.
	NewKey = "server.signing-key"
	// controllerItself is who writes them.
	controllerItself = "controller"
)

// Itself is the draft of a record by the controller.
func Itself(verb string) *Draft {
	return &Draft{Actor: controllerItself, Source: controllerItself, Verb: verb}
}

// Past is what the records of a log say of the log itself. The zero value is
// that of an empty one.
type Past struct {
	Restores []Restore
	// Keys are the public keys that have signed before, as text, oldest first.
	Keys []string
}

// Restore is a record of Restored.
type Restore struct {
	Seq  int64     `json:"seq"`
	Time time.Time `json:"time"`
	Note string    `json:"note,omitempty"`
}

func (p *Past) add(r Record) {
	if r.Actor != controllerItself || r.Source != controllerItself {
		return
	}
	switch r.Verb {
	case Restored:
		p.Restores = append(p.Restores, Restore{r.Seq, r.Time, r.Note})
	case NewKey:
		p.Keys = append(p.Keys, r.Before)
	}
}

// Seen is a head as somebody outside of the database was shown it.
type Seen struct {
	Head
	Signed time.Time // zero: not known
	By     string    // who has seen it, to be named
}

// Lost returns the restore that explains why the log does not hold what was
// seen: it put an older state in place after the head was signed. nil: none does,
// and the log was cut or rewritten.
func (p *Past) Lost(s Seen) *Restore {
	for i, r := range p.Restores {
		// Heads are signed in whole seconds.
		if r.Seq <= s.Seq && !s.Signed.After(r.Time) {
			return &p.Restores[i]
		}
	}
	return nil
}

// Missing is the error of a log that does not hold what was seen.
func (v *Verifier) Missing(s Seen) *Broken {
	if s.Seq > v.Passed().Seq {
		return &Broken{s.Seq, "it is missing: the log was cut, and " + s.By + " has seen it"}
	}
	return &Broken{s.Seq, "it was rewritten: " + s.By + " has seen it with another hash"}
}

// Say tells of restores, with the highest number that was seen of what each lost.
func (r Restore) Say(lost int64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "The database was put back from a backup on %s, and the log goes on from there with record %d.", r.Time.UTC().Format("2006-01-02 15:04 UTC"), r.Seq)
	if lost >= r.Seq {
		fmt.Fprintf(&b, " What records %d to %d said before is lost: they were seen, and are not in the log.", r.Seq, lost)
	}
	return b.String()
}
