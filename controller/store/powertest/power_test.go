package powertest

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/controller/store/storetest"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

const (
	asWriter = "EDGEHERD_POWERTEST" // has TestMain store blocks in the database named
	box      = identity.ID("d-aaaaaaaaaaaaa")
	commits  = 120
)

func TestMain(m *testing.M) {
	if path := os.Getenv(asWriter); path != "" {
		if err := write(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// block is the block number seq.
func block(seq uint64) (store.Delivery, error) {
	at := int64(1_800_000_000_000 + seq*1000)
	d := store.Delivery{Box: box, StartMs: at, Results: []wire.Result{{WallMs: at, Input: "cam", Item: "label", Text: strings.Repeat("x", int(seq*37%900)), Models: []string{}}}}
	payload, err := wire.EncodeResults(d.Results)
	if err != nil {
		return d, err
	}
	d.Block = wire.Block{
		Key: wire.Key{SID: wire.SID{1}, Lane: wire.LaneTelemetry, Seq: seq}, Kind: wire.KindResults,
		Boot: wire.BootID{1}, Quality: wire.TimeSynced, WallMs: at, Count: 1, Payload: payload,
	}
	return d, wire.Seal(&d.Block)
}

func commit(ctx context.Context, s *store.Store, seq uint64) error {
	d, err := block(seq)
	if err != nil {
		return err
	}
	_, err = s.Ingest(ctx, []store.Delivery{d}, func(store.Delivery) (store.Effects, error) { return store.Effects{}, nil })
	return err
}

// write stores blocks in a SQLite database and says so of each.
func write(path string) error {
	ctx := context.Background()
	s, err := store.Open(ctx, store.Options{Path: path})
	if err != nil {
		return err
	}
	for seq := uint64(1); seq <= commits; seq++ {
		if err := commit(ctx, s, seq); err != nil {
			return err
		}
		fmt.Println(seq)
		if seq%50 == 0 { // the log moves into the file
			if err := s.Checkpoint(ctx); err != nil {
				return err
			}
		}
	}
	return nil // no Close: the power goes
}

// recording is a life of a database: what its files were before, what happened
// to them, and when each block was acknowledged.
type recording struct {
	before, dir string
	ops         []op
	acked       []time.Time // block n at n-1
}

// open opens the database in files that a power cut has left.
type open func(t *testing.T, files string) (*store.Store, error)

// lost cuts the power and counts acknowledged blocks that are gone; all of them
// when the database does not open.
func (r recording) lost(t *testing.T, cut int, rng *rand.Rand, fresh func() string, reopen open) (lost, promised int) {
	t.Helper()
	for promised < len(r.acked) && r.acked[promised].Before(r.ops[cut].at) {
		promised++
	}
	files := fresh()
	image(t, r.ops, cut, r.dir, files, rng)
	if lost, err := r.judge(t, files, promised, reopen); err != nil {
		t.Logf("power cut before operation %d: %v", cut, err)
		return max(lost, 1), promised
	}
	return 0, promised
}

func (r recording) judge(t *testing.T, files string, promised int, reopen open) (lost int, err error) {
	t.Helper()
	s, err := reopen(t, files)
	if err != nil {
		return promised, err
	}
	defer s.Close()
	there := map[wire.Key]int{}
	if err := s.Keys(t.Context(), box, func(k wire.Key) { there[k]++ }); err != nil {
		return promised, err
	}
	for seq := range promised {
		d, err := block(uint64(seq + 1))
		must(t, err)
		if there[d.Block.Key] != 1 {
			lost++
		}
	}
	b, err := s.Box(t.Context(), box, 0)
	switch {
	case err != nil:
		return promised, err
	case lost > 0:
		return lost, fmt.Errorf("%d of %d acknowledged blocks are not there once", lost, promised)
	case b.Reads.Total != int64(len(there)):
		return 0, fmt.Errorf("%d blocks, but %d counted", len(there), b.Reads.Total)
	}
	return 0, commit(t.Context(), s, commits+1)
}

// prove makes images, and a few without any sync, which must lose something.
func (r recording) prove(t *testing.T, images int, fresh func() string, reopen open) {
	t.Helper()
	count := map[string]int{}
	bytes := 0
	for _, o := range r.ops {
		count[o.kind]++
		bytes += len(o.data)
	}
	t.Logf("recorded %v, %d KB", count, bytes>>10)
	if len(r.acked) != commits || count["sync"] < commits || count["write"] < 2*commits {
		t.Fatalf("the recording is not complete: %d blocks acknowledged", len(r.acked))
	}
	rng := rand.New(rand.NewPCG(assets.Seed(t), 6))
	total := 0
	for i := range images {
		cut := rng.IntN(len(r.ops))
		lost, promised := r.lost(t, cut, rng, fresh, reopen)
		if lost > 0 {
			t.Fatalf("image %d, power cut before operation %d of %d: %d of %d acknowledged blocks are lost", i, cut, len(r.ops), lost, promised)
		}
		total += promised
	}
	t.Logf("%d images: none of %d acknowledged blocks is lost", images, total)
	liar := recording{r.before, r.dir, nil, r.acked}
	for _, o := range r.ops {
		if o.kind != "sync" {
			liar.ops = append(liar.ops, o)
		}
	}
	for range 20 {
		if lost, _ := liar.lost(t, len(liar.ops)-1-rng.IntN(len(liar.ops)/4), rng, fresh, reopen); lost > 0 {
			return
		}
	}
	t.Error("a disk that syncs nothing loses nothing: the images show nothing")
}

func tool(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("real processes")
	}
	tool := assets.Program(t, "strace")
	if out, err := exec.Command(tool, "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %s", out)
	}
	return tool
}

func full(few, all int) int {
	if os.Getenv("EDGEHERD_PROVE") != "" {
		return all
	}
	return few
}

// empty makes a database with one box.
func empty(t *testing.T, opts store.Options) {
	t.Helper()
	s, err := store.Open(t.Context(), opts)
	must(t, err)
	must(t, s.AddBox(t.Context(), box, "a", "x"))
	must(t, s.Close())
}

func TestPowerCutsLoseNothingAcknowledgedInSQLite(t *testing.T) {
	strace := tool(t)
	dir := t.TempDir()
	r := recording{before: filepath.Join(dir, "before"), dir: filepath.Join(dir, "db")}
	must(t, os.Mkdir(r.dir, 0o700))
	empty(t, store.Options{Path: filepath.Join(r.dir, "store.db")})
	must(t, os.CopyFS(r.before, os.DirFS(r.dir)))
	trace := filepath.Join(dir, "trace")
	cmd := exec.Command(strace, append(tracing(trace), os.Args[0], "-test.run=^$")...)
	cmd.Env = append(os.Environ(), asWriter+"="+filepath.Join(r.dir, "store.db"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	for lines := bufio.NewScanner(out); lines.Scan(); {
		r.acked = append(r.acked, time.Now())
	}
	must(t, cmd.Wait())
	r.ops = read(t, trace, r.dir)
	r.prove(t, full(8, 1500), func() string {
		files := filepath.Join(dir, "image")
		must(t, os.RemoveAll(files))
		must(t, os.CopyFS(files, os.DirFS(r.before)))
		return files
	}, func(t *testing.T, files string) (*store.Store, error) {
		return store.Open(t.Context(), store.Options{Path: filepath.Join(files, "store.db")})
	})
}

func TestPowerCutsLoseNothingAcknowledgedInPostgreSQL(t *testing.T) {
	strace := tool(t)
	if full(0, 1) == 0 {
		t.Skip("EDGEHERD_PROVE=1 runs it: each image is a server that recovers")
	}
	c, err := storetest.New("--wal-segsize=1") // a new segment is written whole
	if err != nil {
		storetest.Absent(t, err)
	}
	defer c.Remove()
	must(t, c.Start())
	address, name, err := c.Create()
	must(t, err)
	empty(t, store.Options{Database: address})
	c.Stop()
	before, err := c.Copy()
	must(t, err)
	defer before.Remove()
	trace := filepath.Join(c.Dir, "trace")
	c.Tracer = append(append([]string{strace, "-D"}, tracing(trace)...), "--")
	must(t, c.Start("fsync=on", "max_wal_size=4MB", "min_wal_size=2MB"))
	r := recording{before: before.Data(), dir: c.Data()}
	s, err := store.Open(t.Context(), store.Options{Database: address})
	must(t, err)
	for seq := uint64(1); seq <= commits; seq++ {
		must(t, commit(t.Context(), s, seq))
		r.acked = append(r.acked, time.Now())
		if seq%50 == 0 {
			_, err := c.Tool("psql", "-d", name, "-c", "CHECKPOINT")
			must(t, err)
		}
	}
	c.Kill()
	s.Close()
	r.ops = read(t, trace, r.dir)
	var after *storetest.Cluster
	defer func() {
		if after != nil {
			after.Remove()
		}
	}()
	r.prove(t, 60, func() string {
		if after != nil {
			must(t, after.Remove())
		}
		after, err = before.Copy()
		must(t, err)
		return after.Data()
	}, func(t *testing.T, files string) (*store.Store, error) {
		must(t, after.Own())
		if err := after.Start("fsync=off"); err != nil {
			return nil, err
		}
		return store.Open(t.Context(), store.Options{Database: after.Address(name)})
	})
}
