package fleettest

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// T30: who has the controller's database and its signing key makes the audit log
// anew, with all that the database knows of it. The boxes have seen the old one.
func TestT30BoxesWitnessTheAuditLog(t *testing.T) {
	story(t, 2, func(f *Fleet) {
		settled(f)
		act := func(n int) {
			t.Helper()
			for i := range n {
				_, err := f.API.ChangeSite(context.Background(), "site-1", fleetapi.SiteChange{Set: fleetapi.SiteSettings{Region: pointer(fmt.Sprint("r", i))}})
				must(t, err)
			}
		}
		state := func() fleetapi.AuditState {
			t.Helper()
			s, err := f.API.AuditState(context.Background())
			must(t, err)
			return s
		}
		act(6)
		for range 2 { // signed at a start, shown in one conversation, told in the next
			f.StopController()
			f.StartController()
			settled(f)
		}
		was := state()
		if was.Broken != "" || was.Witnesses != 2 || was.Witnessed == 0 || was.Witnessed != was.Records {
			t.Fatalf("before anything was changed: %+v", was)
		}

		f.forge(was.Records - 3)
		settled(f)
		cut := state()
		if cut.BrokenSeq != was.Witnessed || !strings.Contains(cut.Broken, "box-") || !strings.Contains(cut.Broken, "cut") || len(cut.Contradicted) != 2 {
			t.Errorf("the log was cut at %d: %+v", was.Records-3, cut)
		}
		pass(5 * time.Minute)
		for _, b := range f.Boxes {
			events, err := f.API.Events(context.Background(), b.ID, 100)
			must(t, err)
			if !strings.Contains(fmt.Sprint(events), "audit log of the controller was cut") {
				t.Errorf("%s raised no alarm: %v", b.Name, events)
			}
		}
		act(8) // the forged log outgrows what was seen
		for range 2 {
			f.StopController()
			f.StartController()
			settled(f)
		}
		if s := state(); s.Records <= was.Witnessed || s.BrokenSeq != was.Witnessed || !strings.Contains(s.Broken, "rewritten: box box-") || len(s.Contradicted) != 2 {
			t.Errorf("the log was rewritten and went on: %+v", s)
		}
	})
}

func pointer[T any](v T) *T { return &v }

// forge makes the audit log anew: n records, in a chain without a flaw, and
// nothing in the database that contradicts it.
func (f *Fleet) forge(n int64) {
	f.T.Helper()
	var lines [][]byte
	f.Store(func(s *store.Store) {
		_, err := s.AuditLines(context.Background(), 0, int(n), func(line []byte) error {
			lines = append(lines, line)
			return nil
		})
		must(f.T, err)
	})
	f.StopController()
	defer f.StartController()
	db, err := sql.Open("sqlite", f.database())
	must(f.T, err)
	defer db.Close()
	exec := func(text string, args ...any) {
		f.T.Helper()
		_, err := db.Exec(text, args...)
		must(f.T, err)
	}
	exec(`DELETE FROM audit`)
	exec(`DELETE FROM audit_seal`)
	exec(`DELETE FROM audit_witness`)
	head := audit.Empty()
	for _, line := range lines {
		r, err := audit.Parse(line)
		must(f.T, err)
		if r.Seq > 1 { // what was signed at the very beginning stays
			r.Actor = "nobody"
		}
		line, head, err = head.Append(r)
		must(f.T, err)
		exec(`INSERT INTO audit (seq, actor, line) VALUES (?,?,?)`, head.Seq, r.Actor, line)
	}
	exec(`UPDATE audit_head SET seq = ?, hash = ?`, head.Seq, head.Hash)
}
