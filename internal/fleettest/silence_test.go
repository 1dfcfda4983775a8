package fleettest_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// TestBoxesWithNothingToSayBehindABrokerAreNotGone: a broker of others keeps the
// pings of boxes to itself, and in quiet times boxes send nothing else. Later one
// box is stopped, which is known long before it would be missed.
func TestBoxesWithNothingToSayBehindABrokerAreNotGone(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes")
	}
	t.Parallel()
	assets.Program(t, "mosquitto")
	r, m := newBrokerRig(t, 2, 3)
	const silence = 12 * time.Second
	for _, h := range r.hosts {
		text, err := os.ReadFile(h.conf)
		must(t, err)
		must(t, os.WriteFile(h.conf, fmt.Appendf(text, "  silence: %s\n", silence), 0o600)) // the last key is broker
	}
	r.startAll()
	r.startBoxes(m.addr)
	r.allConnected(2 * time.Minute)
	r.ask(`CREATE TABLE missed (box text); CREATE FUNCTION miss() RETURNS trigger LANGUAGE plpgsql AS
		'BEGIN IF OLD.connected AND NOT NEW.connected THEN INSERT INTO missed VALUES (NEW.id); END IF; RETURN NEW; END';
		CREATE TRIGGER miss BEFORE UPDATE ON box FOR EACH ROW EXECUTE FUNCTION miss()`)
	oldest := func() int64 {
		ms, err := strconv.ParseInt(r.ask(`SELECT min(last_seen_ms) FROM box`), 10, 64)
		must(t, err)
		return ms
	}
	begin := oldest()
	await(t, 2*time.Minute, "boxes that say nothing by themselves are heard", func() error {
		if heard := time.Duration(oldest()-begin) * time.Millisecond; heard < 2*silence {
			return fmt.Errorf("for %s", heard)
		}
		return nil
	})
	if n := r.ask(`SELECT count(*) FROM missed`); n != "0" {
		t.Errorf("boxes that were there counted as gone %s times", n)
	}
	r.boxes[0].stop()
	await(t, time.Minute, "the box that was stopped is gone", func() error {
		// A silence would leave its session.
		if n := r.ask(`SELECT count(*) FROM session`); n != strconv.Itoa(len(r.boxes)-1) {
			return fmt.Errorf("%s sessions", n)
		}
		return nil
	})
	if got, want := r.ask(`SELECT string_agg(box, ' ') FROM missed`), string(r.boxes[0].id.ID); got != want {
		t.Errorf("gone are %q, want %q", got, want)
	}
}
