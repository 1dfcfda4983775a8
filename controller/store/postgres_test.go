package store_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/store/storetest"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// cluster starts a server of the test's own.
func cluster(t testing.TB) *storetest.Cluster {
	t.Helper()
	c, err := storetest.New()
	if err != nil {
		storetest.Absent(t, err)
	}
	t.Cleanup(func() { check(t, c.Remove()) })
	check(t, c.Start())
	return c
}

func at(t testing.TB, address string) *store.Store {
	t.Helper()
	return openAt(t, optionsAt(address))
}

// shared is a server for all tests that leave it alone.
var shared = sync.OnceValues(func() (*storetest.Cluster, error) {
	c, err := storetest.New()
	if err != nil {
		return nil, err
	}
	return c, c.Start()
})

// twoCommits stores two blocks and returns where each was acknowledged.
func twoCommits(t *testing.T, s *store.Store) (first, second store.Committed) {
	t.Helper()
	enrolTwo(t, s)
	return ingest(t, s, samples(boxA, 1, 1, epoch, 40)), ingest(t, s, samples(boxA, 1, 2, epoch+60_000, 50))
}

// TestARunLastsAsLongAsPostgreSQL: another controller joins it, a restart ends it.
func TestARunLastsAsLongAsPostgreSQL(t *testing.T) {
	c := cluster(t)
	address, _, err := c.Create()
	check(t, err)
	s := at(t, address)
	_, last := twoCommits(t, s)
	other := at(t, address)
	if got := runNow(t, other); got != last.Run {
		t.Errorf("a second controller began run %s beside %s", got, last.Run)
	}
	if joined := ingest(t, other, samples(boxB, 1, 1, epoch, 40)); joined.Run != last.Run || joined.LSN != last.LSN+1 {
		t.Errorf("a second controller committed at %+v after %+v", joined, last)
	}
	c.Kill()
	check(t, c.Start())
	for _, s := range []*store.Store{s, other} {
		l, err := s.Lineage(ctx, []wire.RunID{last.Run, strangeRun(1)})
		if err != nil { // the first use finds the dead connection
			l, err = s.Lineage(ctx, []wire.RunID{last.Run, strangeRun(1)})
		}
		check(t, err)
		if want := []wire.RunLSN{{Run: last.Run, LSN: last.LSN + 1}}; l.Run == last.Run || !slices.Equal(l.Valid, want) {
			t.Errorf("after a restart: run %s, valid %v, want %v", l.Run, l.Valid, want)
		}
	}
	if a, b := runNow(t, s), runNow(t, other); a != b {
		t.Errorf("two controllers began runs of their own: %s, %s", a, b)
	}
}

// TestARestoreMakesLaterAcksInvalid restores what was saved between two
// commits, in every way that people do it.
func TestARestoreMakesLaterAcksInvalid(t *testing.T) {
	for _, c := range []struct {
		name    string
		save    func(t *testing.T, c *storetest.Cluster, db string) (saved string)
		restore func(t *testing.T, c *storetest.Cluster, db, saved string)
	}{
		{"pg_restore --clean into the same cluster", dump, func(t *testing.T, c *storetest.Cluster, db, saved string) {
			// PostgreSQL 15 fails to drop the keys of partitions, drops their
			// tables then, and ends with 1.
			if _, err := c.Tool("pg_restore", "--clean", "-d", db, saved); err != nil && !strings.Contains(err.Error(), "cannot drop inherited constraint") {
				t.Fatal(err)
			}
		}},
		{"pg_restore into a new database of the same name", dump, func(t *testing.T, c *storetest.Cluster, db, saved string) {
			_, err := c.Tool("dropdb", "--force", db)
			check(t, err)
			_, err = c.Tool("createdb", db)
			check(t, err)
			_, err = c.Tool("pg_restore", "-d", db, saved)
			check(t, err)
		}},
		{"rows copied back into the same tables", dump, func(t *testing.T, c *storetest.Cluster, db, saved string) {
			_, err := c.Tool("psql", "-qd", db, "-c", `DO $$ DECLARE t text; BEGIN FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' LOOP EXECUTE 'DELETE FROM ONLY ' || quote_ident(t); END LOOP; END $$`)
			check(t, err)
			_, err = c.Tool("pg_restore", "--data-only", "-d", db, saved)
			check(t, err)
		}},
		{"a copy of the data directory", copied, func(t *testing.T, c *storetest.Cluster, _, saved string) {
			c.Stop()
			check(t, os.RemoveAll(filepath.Join(c.Dir, "data")))
			_, err := c.Tool("/bin/cp", "-aT", saved, filepath.Join(c.Dir, "data"))
			check(t, err)
			check(t, c.Start())
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			server := cluster(t)
			address, db, err := server.Create()
			check(t, err)
			s := at(t, address)
			enrolTwo(t, s)
			kept := ingest(t, s, samples(boxA, 1, 1, epoch, 40))
			saved := c.save(t, server, db)
			block := samples(boxA, 1, 2, epoch+60_000, 50)
			lost := ingest(t, s, block)
			c.restore(t, server, db, saved)
			settled, err := s.Settled(ctx)
			for n := 0; err != nil && n < 20; n++ { // as in judgeRestored
				settled, err = s.Settled(ctx)
			}
			if err != nil || settled {
				t.Errorf("the run of before passes for the present one: %v", err)
			}
			judgeRestored(t, s, kept, lost, block)
		})
	}
}

func dump(t *testing.T, c *storetest.Cluster, db string) string {
	t.Helper()
	file := filepath.Join(c.Dir, "dump")
	_, err := c.Tool("pg_dump", "-Fc", "-f", file, db)
	check(t, err)
	return file
}

// copied stops the server for a moment; its run goes on only if nothing else
// tells the copy apart.
func copied(t *testing.T, c *storetest.Cluster, _ string) string {
	t.Helper()
	to := filepath.Join(c.Dir, "copy")
	c.Stop()
	_, err := c.Tool("/bin/cp", "-a", filepath.Join(c.Dir, "data"), to)
	check(t, err)
	check(t, c.Start())
	return to
}

// judgeRestored: what the database lacks is not valid, comes again, and is
// acknowledged by a run that no box has seen.
func judgeRestored(t *testing.T, s *store.Store, kept, lost store.Committed, block store.Delivery) {
	t.Helper()
	l, err := s.Lineage(ctx, []wire.RunID{kept.Run, lost.Run})
	for range 20 { // dead connections of the pool
		if err == nil {
			break
		}
		l, err = s.Lineage(ctx, []wire.RunID{kept.Run, lost.Run})
	}
	check(t, err)
	if l.Run == kept.Run || l.Run == lost.Run {
		t.Errorf("the restored database goes on with run %s", l.Run)
	}
	for _, v := range l.Valid {
		if v.Run == lost.Run && v.LSN >= lost.LSN {
			t.Errorf("valid up to %d of run %s: %d was lost", v.LSN, v.Run, lost.LSN)
		}
	}
	if !slices.ContainsFunc(l.Valid, func(v wire.RunLSN) bool { return v.Run == kept.Run && v.LSN >= kept.LSN }) {
		t.Errorf("%v lacks what was kept: %+v", l.Valid, kept)
	}
	if again := ingest(t, s, block); again.New != 1 || again.Run != l.Run {
		t.Errorf("sent again: %+v", again)
	}
}

// TestAPromotedStandbyAdmitsWhatItLacks: the standby stopped following before
// the last commit.
func TestAPromotedStandbyAdmitsWhatItLacks(t *testing.T) {
	c := cluster(t)
	address, name, err := c.Create()
	check(t, err)
	s := at(t, address)
	enrolTwo(t, s)
	kept := ingest(t, s, samples(boxA, 1, 1, epoch, 40))
	standby, err := c.Standby()
	check(t, err)
	t.Cleanup(func() { check(t, standby.Remove()) })
	block := samples(boxA, 1, 2, epoch+60_000, 50)
	lost := ingest(t, s, block)
	check(t, s.Close())
	c.Kill()
	check(t, standby.Start())
	if _, err := store.Open(ctx, store.Options{Database: standby.Address(name)}); err == nil || !strings.Contains(err.Error(), "read only") && !strings.Contains(err.Error(), "standby") {
		t.Errorf("opened a standby: %v", err)
	}
	_, err = standby.Tool("pg_ctl", "promote", "-w", "-D", filepath.Join(standby.Dir, "data"))
	check(t, err)
	judgeRestored(t, at(t, standby.Address(name)), kept, lost, block)
}

// TestControllersShareOneDatabase: several ingest the same blocks in different
// orders, and start at once.
func TestControllersShareOneDatabase(t *testing.T) {
	c, err := shared()
	if err != nil {
		storetest.Absent(t, err)
	}
	address, _, err := c.Create()
	check(t, err)
	var stores [4]*store.Store
	var wg sync.WaitGroup
	for i := range stores {
		wg.Go(func() {
			s, err := store.Open(ctx, optionsAt(address))
			if err != nil {
				t.Error(err)
			}
			stores[i] = s
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, s := range stores {
		t.Cleanup(func() { s.Close() })
	}
	enrolTwo(t, stores[0])
	const n = 120
	var mu sync.Mutex
	fresh, lsns, runs := 0, map[uint64]bool{}, map[wire.RunID]bool{}
	for w, s := range stores {
		wg.Go(func() {
			for i := range n / 3 {
				var batch []store.Delivery
				for j := range 3 {
					seq := uint64((i*3*7+j*5+w*31)%n + 1)
					batch = append(batch, results(boxA, 1, seq, epoch+int64(seq), "good"))
				}
				got, err := s.Ingest(ctx, batch, effects)
				mu.Lock()
				if err != nil || lsns[got.LSN] {
					t.Errorf("commit at %d, seen before: %v: %v", got.LSN, lsns[got.LSN], err)
				}
				fresh += got.New
				lsns[got.LSN], runs[got.Run] = true, true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	keys := keysOf(t, stores[0], boxA)
	if reads := box(t, stores[1], boxA).Reads.Total; fresh != len(keys) || reads != int64(len(keys)) || len(runs) != 1 {
		t.Errorf("%d keys, %d counted as new, %d reads, %d runs", len(keys), fresh, reads, len(runs))
	}
}

// TestAnAcknowledgedCommitSurvivesAKilledPostgreSQL kills the server while
// four writers commit.
func TestAnAcknowledgedCommitSurvivesAKilledPostgreSQL(t *testing.T) {
	c := cluster(t)
	address, _, err := c.Create()
	check(t, err)
	s := at(t, address)
	enrolTwo(t, s)
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := map[wire.Key]store.Committed{}
	enough := make(chan struct{})
	reached := sync.OnceFunc(func() { close(enough) })
	for w := range 4 {
		wg.Go(func() {
			for seq := uint64(1); ; seq++ {
				d := results(boxA, byte(w+1), seq, epoch+int64(seq), "good")
				got, err := s.Ingest(ctx, []store.Delivery{d}, effects)
				if err != nil {
					reached() // a box would send again
					return
				}
				mu.Lock()
				acked[d.Block.Key] = got
				if len(acked) >= 100 {
					reached()
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	c.Kill()
	wg.Wait()
	check(t, c.Start())
	after := at(t, address)
	keys := keysOf(t, after, boxA)
	if len(acked) < 100 {
		t.Errorf("%d commits only", len(acked))
	}
	for k := range acked {
		if keys[k] != 1 {
			t.Errorf("block %s was acknowledged and is stored %d times", k, keys[k])
		}
	}
	if got := box(t, after, boxA).Reads.Total; got != int64(len(keys)) {
		t.Errorf("%d reads of %d blocks", got, len(keys))
	}
}

func TestPostgreSQLErrorsNameTheWayOut(t *testing.T) {
	c := cluster(t)
	address, name, err := c.Create()
	check(t, err)
	at(t, address).Close()
	_, err = c.Tool("psql", "-qd", name, "-c", `CREATE ROLE poor LOGIN PASSWORD 'x'`, "-c", `CREATE DATABASE theirs`)
	check(t, err)
	secret := filepath.Join(t.TempDir(), "password")
	check(t, os.WriteFile(secret, []byte("hunter2\n"), 0o600))
	refuse := func(what, address string, words ...string) {
		t.Helper()
		s, err := store.Open(ctx, store.Options{Database: address, PasswordFile: secret})
		if err == nil {
			s.Close()
			t.Fatalf("%s: opened", what)
		}
		for _, w := range words {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %q does not say %q", what, err, w)
			}
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %q shows the password", what, err)
		}
	}
	refuse("no such database", c.Address("missing"), "missing", "createdb")
	refuse("no such user", strings.Replace(c.Address(name), "edgeherd", "nobody", 1), "createuser")
	refuse("no rights", strings.Replace(c.Address("theirs"), "edgeherd", "poor", 1), "OWNER")
	refuse("unreachable", "postgres://user:hunter2@127.0.0.1:1/x", "cannot be reached", "start PostgreSQL")
	refuse("an address that is none", "postgres://user:hunter2@[::1/x", "looks like postgres://")
	hba := filepath.Join(c.Dir, "data", "pg_hba.conf")
	check(t, os.WriteFile(hba, []byte("local all poor scram-sha-256\nlocal all all trust\n"), 0o644))
	_, err = c.Tool("pg_ctl", "reload", "-D", filepath.Join(c.Dir, "data"))
	check(t, err)
	refuse("wrong password", strings.Replace(c.Address(name), "edgeherd", "poor", 1), "password")
	check(t, os.WriteFile(secret, []byte("x\n"), 0o600))
	db, err := sql.Open("pgx", strings.Replace(address, "edgeherd", "poor", 1)+"&password=x")
	check(t, err)
	defer db.Close()
	check(t, db.PingContext(ctx))
}

// TestOldMonthsGoWhole: PostgreSQL drops the partitions of months that are not
// kept, and what is of no month goes row by row.
func TestOldMonthsGoWhole(t *testing.T) {
	s := openAt(t, engines[1].place(t))
	enrolTwo(t, s)
	check(t, s.AddSchemas(ctx, []wire.Schema{schema}))
	const hour = 3_600_000
	var batch []store.Delivery
	for i, days := range []int64{1, 40, 200, 300, 2000} {
		batch = append(batch, samples(boxA, 1, uint64(i+1), epoch-days*24*hour, 40, 50))
	}
	ingest(t, s, batch...)
	_, err := s.Compact(ctx, 1000)
	check(t, err)
	check(t, s.Put(ctx, `UPDATE sample_hour SET rollups = r.body FROM rollup_hour r
		WHERE r.box = sample_hour.box AND r.hour_ms = sample_hour.hour_ms AND r.part = sample_hour.part`)) // as packs have them
	check(t, s.Put(ctx, `DELETE FROM rollup_hour`))
	counts := func() (hours, months, other int64) {
		return rowCount(t, s, `SELECT count(*) FROM sample_hour`),
			rowCount(t, s, `SELECT count(*) FROM pg_inherits WHERE inhparent = 'sample_hour'::regclass`),
			rowCount(t, s, `SELECT count(*) FROM sample_hour_other`)
	}
	if hours, months, other := counts(); hours != 5 || months != 6 || other != 3 {
		t.Errorf("before: %d hours, %d partitions, %d hours of no month", hours, months, other)
	}
	for range 2 {
		_, more, err := s.Retain(ctx, store.Retention{Samples: 100 * 24 * time.Hour}, 100)
		if more || err != nil {
			t.Errorf("more %v, %v", more, err)
		}
	}
	if hours, months, other := counts(); hours != 2 || months > 6 || other != 0 {
		t.Errorf("after: %d hours, %d partitions, %d hours of no month", hours, months, other)
	}
	if n := rowCount(t, s, `SELECT count(*) FROM rollup_hour`); n != 3 {
		t.Errorf("%d rollups of hours that are gone, want 3", n)
	}
	if n, _, _ := countOf(t, s, boxA, 3000*dayMs, true); n != 10 {
		t.Errorf("%d samples count in hourly values, want 10", n)
	}
	if c := ingest(t, s, batch...); c.New != 0 {
		t.Errorf("%d blocks came back", c.New)
	}
}
