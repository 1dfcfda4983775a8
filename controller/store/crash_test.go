package store_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/assets"
)

// crashBlock makes the block number seq of life: its key and content are
// known to parent and child.
func crashBlock(life byte, seq uint64) store.Delivery {
	return results(boxA, life, seq, epoch+int64(seq), "good")
}

// crasher is the child: it commits blocks, in batches of three of which one
// came before, and says on stdout what was committed.
func crasher(place string) {
	s, err := store.Open(ctx, optionsAt(place))
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	var life byte
	fmt.Sscan(os.Getenv("EDGEHERD_STORE_LIFE"), &life)
	if err := s.AddBox(ctx, boxA, "a", "x"); err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	for seq := uint64(2); ; seq += 2 {
		c, err := s.Ingest(ctx, []store.Delivery{crashBlock(life, seq-1), crashBlock(life, seq), crashBlock(life, seq+1)}, effects)
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
		fmt.Println(seq, c.LSN)
	}
}

// TestWhatWasAcknowledgedSurvivesKill kills a process that commits as fast as
// it can, at random points, and looks what its database holds.
func TestWhatWasAcknowledgedSurvivesKill(t *testing.T) {
	for _, e := range engines {
		t.Run(e.name, func(t *testing.T) {
			at := e.place(t)
			crashes(t, at.Path+at.Database) // one of them is empty
		})
	}
}

func crashes(t *testing.T, place string) {
	rounds := 8
	if os.Getenv("EDGEHERD_PROVE") != "" {
		rounds = 200
	}
	seed := assets.Seed(t)
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	told := map[byte]uint64{}
	var lastLSN uint64
	for round := range rounds {
		life := byte(round%250) + 1
		seq, lsn := crashOnce(t, place, life, 1+rng.IntN(30), time.Duration(rng.IntN(2000))*time.Microsecond)
		told[life] = max(told[life], seq)
		if lsn <= lastLSN {
			t.Errorf("round %d: LSN %d after %d", round, lsn, lastLSN)
		}
		lastLSN = lsn
		judgeCrash(t, place, told, lastLSN)
		if t.Failed() {
			return
		}
	}
}

// crashOnce runs the child until it told of so many commits and a moment more.
func crashOnce(t *testing.T, place string, life byte, commits int, more time.Duration) (seq, lsn uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "EDGEHERD_STORE_CRASHER="+place, fmt.Sprintf("EDGEHERD_STORE_LIFE=%d", life))
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	lines := bufio.NewScanner(out)
	n := 0
	for lines.Scan() {
		if _, err := fmt.Sscan(lines.Text(), &seq, &lsn); err != nil {
			t.Errorf("child: %s", lines.Text())
			break
		}
		// From here on the lines in the pipe are read as well: they were told.
		if n++; n == commits {
			time.AfterFunc(more, func() { cmd.Process.Kill() })
		}
	}
	cmd.Process.Kill()
	if err := cmd.Wait(); err != nil && !strings.Contains(err.Error(), "killed") {
		t.Errorf("child: %v", err)
	}
	if n < commits {
		t.Fatalf("the child told of %d commits only", n)
	}
	return seq, lsn
}

func judgeCrash(t *testing.T, place string, told map[byte]uint64, lsn uint64) {
	t.Helper()
	s := openAt(t, optionsAt(place))
	defer s.Close()
	keys := keysOf(t, s, boxA)
	// PostgreSQL may be at the commit of a client that was killed.
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for late := time.Now().Add(time.Minute); rowCount(t, s, `SELECT count(*) FROM result`) != int64(len(keys)) && time.Now().Before(late); <-tick.C {
		keys = keysOf(t, s, boxA)
	}
	for life, last := range told {
		for seq := uint64(1); seq <= last+1; seq++ {
			if keys[crashBlock(life, seq).Block.Key] != 1 {
				t.Errorf("life %d: block %d of %d told is stored %d times", life, seq, last, keys[crashBlock(life, seq).Block.Key])
			}
		}
	}
	total := int64(len(keys))
	if got := box(t, s, boxA).Reads.Total; got != total {
		t.Errorf("%d blocks with one result each, but %d counted", total, got)
	}
	if got := rowCount(t, s, `SELECT count(*) FROM result`); got != total {
		t.Errorf("%d blocks with one result each, but %d stored", total, got)
	}
	if got := rowCount(t, s, `SELECT lsn FROM meta`); uint64(got) < lsn {
		t.Errorf("LSN %d, told %d", got, lsn)
	}
}
