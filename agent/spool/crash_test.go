package spool_test

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/spool"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// The tests of this file run this test program again as a child that can be
// killed, or whose disk is full.
const childVar = "EDGEHERD_SPOOL_CHILD" // "kill PATH", for one

func TestMain(m *testing.M) {
	role, path, ok := strings.Cut(os.Getenv(childVar), " ")
	if !ok {
		os.Exit(m.Run())
	}
	run := map[string]func(string) error{
		"kill": childKill, "full": childFull, "start": childStart, "record": childRecord, "eio": childEIO, "check": spool.CheckFile,
	}[role]
	if err := run(path); err != nil {
		fmt.Println("child:", err)
		os.Exit(1)
	}
}

func child(t *testing.T, role, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	// A program with the race detector sleeps for a second before it ends.
	cmd.Env = append(os.Environ(), childVar+"="+role+" "+path, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// childKill appends and acks with fsync, and prints each block once it is safe.
func childKill(path string) error {
	s, err := spool.Open(spool.Options{Path: path, MaxBytes: 8 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	out := bufio.NewWriter(os.Stdout)
	for n := 0; ; n++ {
		keys, err := s.Append(draft(wire.LaneTelemetry, n, 200), draft(wire.LaneEvents, n, 200))
		if err != nil {
			return err
		}
		for _, k := range keys {
			fmt.Fprintln(out, k)
		}
		out.Flush()
		if n%3 == 0 {
			if _, err := s.Ack(runA, uint64(n), keys[:1]); err != nil {
				return err
			}
		}
	}
}

func TestWhatWasAppendedSurvivesKill9(t *testing.T) {
	p := path(t)
	safe := map[string]bool{}
	for range 5 {
		cmd := child(t, "kill", p)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for stop := 4 + rand.IntN(60); stop > 0 && lines.Scan(); stop-- {
			safe[lines.Text()] = true
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // what it said before it died counts as well
			if strings.Count(lines.Text(), "/") == 3 {
				safe[lines.Text()] = true
			}
		}
		cmd.Wait()
	}
	s := open(t, spool.Options{Path: p, MaxBytes: 8 << 20})
	if _, err := s.Validate(nil); err != nil { // the window is to be kept as well
		t.Fatal(err)
	}
	for _, b := range all(t, s) {
		delete(safe, b.Key.String())
	}
	if len(safe) > 0 {
		t.Errorf("%d blocks were lost: %v", len(safe), safe)
	}
	if files := corruptFiles(t, p); len(files) > 0 {
		t.Errorf("set aside %v", files)
	}
}

// childFull meets a disk that cannot grow the file: RLIMIT_FSIZE gives EFBIG
// where a full disk gives ENOSPC.
func childFull(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	s, err := spool.Open(spool.Options{Path: path, MaxBytes: 16 << 20}, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	stored := 0
	fill := func(limit int) error {
		for range limit {
			if _, err := s.Append(draft(wire.LaneTelemetry, stored, 4000)); err != nil {
				return err
			}
			stored++
		}
		return nil
	}
	if err := fill(20); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: uint64(info.Size()), Max: before.Max}); err != nil {
		return err
	}
	full := fill(1000)
	if full == nil {
		return fmt.Errorf("the disk never was full")
	}
	for range 3 {
		if err := fill(1); err == nil {
			return fmt.Errorf("a full disk took a block")
		}
	}
	if err := check(s, stored); err != nil {
		return fmt.Errorf("while full (%w): %w", full, err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	if err := fill(200); err != nil {
		return fmt.Errorf("when there is room again: %w", err)
	}
	if err := check(s, stored); err != nil {
		return err
	}
	return s.Close()
}

// childStart opens a spool on a disk that is full, and again when it is not. The
// limits let nothing be written, and the marker but no whole new file.
func childStart(path string) error {
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		return err
	}
	for n, limit := range []uint64{8192, 0} {
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: limit, Max: before.Max}); err != nil {
			return err
		}
		for range 3 {
			if _, err := spool.Open(spool.Options{Path: path}, slog.New(slog.DiscardHandler)); !errors.Is(err, spool.ErrNoWrites) {
				return fmt.Errorf("open with room for %d bytes: %w", limit, err)
			}
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
			return err
		}
		s, err := spool.Open(spool.Options{Path: path}, slog.New(slog.DiscardHandler))
		if err != nil {
			return err
		}
		if _, err := s.Append(draft(wire.LaneTelemetry, n, 10)); err != nil {
			return err
		}
		if err := errors.Join(check(s, n+1), s.Close()); err != nil {
			return err
		}
	}
	return nil
}

// TestASpoolOpensWhenTheDiskHasRoomAgain, and no half-made file passes for a
// damaged one.
func TestASpoolOpensWhenTheDiskHasRoomAgain(t *testing.T) {
	p := path(t)
	cmd := child(t, "start", p)
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if files := corruptFiles(t, p); len(files) > 0 {
		t.Errorf("set aside %v", files)
	}
}

func check(s *spool.Spool, want int) error {
	blocks, err := s.Pick(spool.Query{MaxParcels: 1 << 20, MaxBytes: 1 << 30})
	if err != nil || len(blocks) != want {
		return fmt.Errorf("%d of %d blocks, %w", len(blocks), want, err)
	}
	return nil
}

func TestAFullDiskLosesNothingAndHeals(t *testing.T) {
	p := path(t)
	cmd := child(t, "full", p)
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s := open(t, spool.Options{Path: p, MaxBytes: 16 << 20})
	if n := len(all(t, s)); n < 220 {
		t.Errorf("%d blocks after a restart", n)
	}
}
