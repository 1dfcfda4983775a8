package spool_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// This file cuts the power: strace records what a spool writes and syncs, and
// from that images are made of the disk at any moment, with what was not synced
// yet lost or torn. It takes fsync to be honest; cheap SD cards lie.

// traced runs this test program in a role under strace.
func traced(t *testing.T, role, path string, args ...string) (stdout []byte, err error) {
	t.Helper()
	tool := assets.Program(t, "strace")
	if out, err := exec.Command(tool, "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace may not trace here: %s", out)
	}
	cmd := child(t, role, path)
	cmd.Path, cmd.Args = tool, append(append([]string{"strace", "-f"}, args...), cmd.Args...)
	return cmd.Output()
}

// childRecord is a box that is offline, then online for a while, with fsync.
func childRecord(path string) error {
	up := time.Hour
	s, err := spool.Open(spool.Options{Path: path, MaxBytes: 4 << 20, Boot: wire.BootID{7}, SinceBoot: func() time.Duration { return up }}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(4, 4))
	for n := range 60 {
		k, err := s.Append(sampleDraft(rng, up))
		if err != nil {
			return err
		}
		fmt.Println(k[0])
		if n%4 == 0 {
			e, err := s.Append(draft(wire.LaneEvents, n, 300+n*100), draft(wire.LaneTelemetry, n, 100))
			if err != nil {
				return err
			}
			fmt.Println(e[0])
			fmt.Println(e[1])
		}
		if n > 30 && n%3 == 0 {
			if _, err := s.Ack(runA, uint64(n), k); err != nil {
				return err
			}
		}
		up += time.Minute
	}
	return nil // no Close: the power goes
}

// sampleDraft is a minute of thermal.
func sampleDraft(rng *rand.Rand, up time.Duration) spool.Draft {
	s := wire.Samples{Schema: thermal}
	for i := range 6 {
		s.TimesMs = append(s.TimesMs, int64(i)*10_000)
	}
	for range thermal.Metrics {
		column := make([]float64, 6)
		for i := range column {
			column[i] = float64(rng.IntN(100))
		}
		s.Values = append(s.Values, column)
	}
	payload, err := wire.EncodeSamples(s)
	if err != nil {
		panic(err)
	}
	return spool.Draft{Lane: wire.LaneTelemetry, Kind: wire.KindSamples, MonoMs: up.Milliseconds(), SpanMs: 50_000, Schema: &thermal, Count: 6, Payload: payload}
}

// op is one thing that happened to the file, or a block that Append promised.
type op struct {
	kind string // write, truncate, sync, promise
	at   int64  // or the size
	data []byte
	key  string
}

var call = regexp.MustCompile(`^\d+ +(\w+)\((\d+)(?:, )?(.*)\) += (-?\d+)`)

// cutCall and restOfCall are the two lines of a call during which something
// happened to another thread. It counts from its end.
var (
	cutCall    = regexp.MustCompile(`^(\d+) +(.*?) *<unfinished \.\.\.>$`)
	restOfCall = regexp.MustCompile(`^(\d+) +<\.\.\. \w+ resumed>(.*)$`)
)

// readTrace reads what strace wrote. Only one thread of the child makes these
// calls at a time.
func readTrace(t *testing.T, path string) []op {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var ops []op
	db, begun := "", map[string]string{}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		line := lines.Text()
		if m := cutCall.FindStringSubmatch(line); m != nil {
			begun[m[1]] = m[2]
			continue
		}
		if m := restOfCall.FindStringSubmatch(line); m != nil {
			line = m[1] + " " + begun[m[1]] + m[2]
		}
		m := call.FindStringSubmatch(line)
		if m == nil {
			continue // signals, ends of threads
		}
		if result, _ := strconv.Atoi(m[4]); result < 0 {
			continue
		}
		switch name, fd, rest := m[1], m[2], m[3]; {
		case name == "pwrite64":
			data, tail := quoted(t, rest)
			fields := strings.Split(tail, ", ") // length, offset
			db = fd
			ops = append(ops, op{kind: "write", at: number(t, fields[2]), data: data})
		case name == "ftruncate":
			ops = append(ops, op{kind: "truncate", at: number(t, rest)})
		case (name == "fdatasync" || name == "fsync") && fd == db:
			ops = append(ops, op{kind: "sync"})
		case name == "write" && fd == "1":
			data, _ := quoted(t, rest)
			for key := range strings.Lines(string(data)) {
				ops = append(ops, op{kind: "promise", key: strings.TrimSpace(key)})
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return ops
}

// quoted reads a string that strace printed in hexadecimal, and what follows it.
func quoted(t *testing.T, text string) (data []byte, tail string) {
	t.Helper()
	end := strings.LastIndexByte(text, '"')
	if end < 1 || text[0] != '"' || strings.HasPrefix(text[end+1:], "...") {
		t.Fatalf("trace: %.100s", text)
	}
	data, err := hex.DecodeString(strings.ReplaceAll(text[1:end], `\x`, ""))
	if err != nil {
		t.Fatal(err)
	}
	return data, text[end+1:]
}

func number(t *testing.T, text string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(text, 0, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// image is the file as the power left it before ops[cut]: what was synced is
// there, the rest of it by chance, sector by sector.
func image(ops []op, cut int, rng *rand.Rand) []byte {
	synced := 0
	for i, o := range ops[:cut] {
		if o.kind == "sync" {
			synced = i
		}
	}
	var file []byte
	grow := func(n int64) {
		if more := n - int64(len(file)); more > 0 {
			file = append(file, make([]byte, more)...)
		}
	}
	for i, o := range ops[:cut] {
		sure := i < synced
		switch o.kind {
		case "truncate":
			if sure || rng.IntN(2) == 0 {
				grow(o.at)
			}
		case "write":
			const sector = 512
			keep := rng.IntN(3) // all, none, or some sectors
			for from := 0; from < len(o.data); from += sector {
				if sure || keep == 0 || keep == 1 && rng.IntN(2) == 0 {
					part := o.data[from:min(from+sector, len(o.data))]
					grow(o.at + int64(from+len(part)))
					copy(file[o.at+int64(from):], part)
				}
			}
		}
	}
	return file
}

// TestPowerLossLosesNothingThatAppendPromised makes images of the disk at random
// moments of a recorded life.
func TestPowerLossLosesNothingThatAppendPromised(t *testing.T) {
	images := 60
	if os.Getenv("EDGEHERD_PROVE") != "" {
		images = 6000
	}
	dir := t.TempDir()
	trace := filepath.Join(dir, "trace")
	if out, err := traced(t, "record", filepath.Join(dir, "spool.db"), "--seccomp-bpf", "-xx", "-s", "2000000", "-e", "trace=pwrite64,ftruncate,fdatasync,fsync,write", "-o", trace); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	ops := readTrace(t, trace)
	count := map[string]int{}
	for _, o := range ops {
		count[o.kind]++
	}
	t.Logf("recorded %v", count)
	if count["promise"] != 90 || count["sync"] < 130 || count["write"] < 300 {
		t.Fatalf("the recording is not complete: %v", count)
	}
	seed := assets.Seed(t)
	if raw := os.Getenv("RAPID_SEED"); raw != "" {
		seed = uint64(number(t, raw))
	}
	rng := rand.New(rand.NewPCG(seed, 5))
	aside := 0
	for i := range images {
		cut := rng.IntN(len(ops) + 1)
		p := path(t)
		write(t, p, image(ops, cut, rng))
		write(t, p+".open", nil)
		if !survives(t, p, ops[:cut]) {
			aside++
		}
		if t.Failed() {
			t.Fatalf("image %d of seed %d, before operation %d of %d", i, seed, cut, len(ops))
		}
		if err := os.RemoveAll(filepath.Dir(p)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of %d images were set aside, before anything was promised", aside, images)
}

// survives opens an image as the agent does and looks for all that was promised.
// It reports whether the file could be kept.
func survives(t *testing.T, p string, ops []op) bool {
	t.Helper()
	check := func(path string) error {
		out, err := child(t, "check", path).Output()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out[:min(len(out), 300)])
		}
		return nil
	}
	s, err := spool.Open(spool.Options{Path: p, MaxBytes: 4 << 20, NoSync: true, Check: check}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Error(err)
		return false
	}
	defer s.Close()
	if _, err := s.Validate(nil); err != nil {
		t.Error(err)
	}
	blocks := all(t, s)
	there := map[string]bool{}
	gaps := 0
	for _, b := range blocks {
		there[b.Key.String()] = true
		if b.Kind == wire.KindGap {
			gaps++
		}
	}
	promised := 0
	for _, o := range ops {
		if o.kind == "promise" {
			if promised++; !there[o.key] {
				t.Errorf("%s is missing", o.key)
			}
		}
	}
	aside := len(corruptFiles(t, p))
	if aside != gaps || aside > 0 && promised > 0 {
		t.Errorf("%d files set aside, %d gaps, %d blocks were promised", aside, gaps, promised)
	}
	if _, err := s.Append(draft(wire.LaneTelemetry, 1, 100)); err != nil {
		t.Errorf("append after the power came back: %v", err)
	}
	return aside == 0
}

// childEIO appends until the disk fails, and then tries again.
func childEIO(path string) error {
	s, err := spool.Open(spool.Options{Path: path, MaxBytes: 4 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	for n := range 1000 {
		keys, err := s.Append(draft(wire.LaneTelemetry, n, 200))
		if err == nil {
			fmt.Println(keys[0])
			continue
		}
		if !errors.Is(err, spool.ErrFailed) {
			return fmt.Errorf("append: %w", err)
		}
		if _, err := s.Append(draft(wire.LaneTelemetry, n, 200)); !errors.Is(err, spool.ErrFailed) {
			return fmt.Errorf("the next append: %w", err)
		}
		if _, err := s.Pick(spool.Query{MaxParcels: 1}); !errors.Is(err, spool.ErrFailed) {
			return fmt.Errorf("pick: %w", err)
		}
		fmt.Println("run:", s.Run(context.Background()))
		return s.Close()
	}
	return errors.New("the disk never failed")
}

// TestT38AFailedSyncEndsTheProcess: after a sync that failed bbolt goes on as if
// nothing had happened, and the next sync succeeds although pages were lost. The
// process must end, and the next one finds all that Append had promised.
func TestT38AFailedSyncEndsTheProcess(t *testing.T) {
	for when := 9; when < 13; when++ { // of pages, and of the meta page
		p := path(t)
		out, err := traced(t, "eio", p, "-o", os.DevNull, "-e", fmt.Sprintf("inject=fdatasync:error=EIO:when=%d", when))
		if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 {
			t.Fatalf("sync %d: child ended with %v: %s", when, err, out)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		promised := slices.DeleteFunc(slices.Clone(lines), func(l string) bool { return strings.Count(l, "/") != 3 || strings.Contains(l, " ") })
		if len(promised) == 0 || !bytes.Contains(out, []byte("run: the disk has failed")) || !bytes.Contains(out, []byte("input/output error")) {
			t.Fatalf("sync %d: %s", when, out)
		}
		asked := 0
		s := open(t, spool.Options{Path: p, MaxBytes: 4 << 20, Check: func(path string) error { asked++; return spool.CheckFile(path) }})
		there := map[string]bool{}
		for _, b := range all(t, s) {
			there[b.Key.String()] = true
		}
		for _, key := range promised {
			if !there[key] {
				t.Errorf("sync %d: %s is missing", when, key)
			}
		}
		if asked != 1 || len(corruptFiles(t, p)) != 0 {
			t.Errorf("sync %d: checked %d times, set aside %v", when, asked, corruptFiles(t, p))
		}
	}
}
