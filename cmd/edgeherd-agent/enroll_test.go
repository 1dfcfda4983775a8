package main

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	wireenrol "github.com/edgeherd/edgeherd/internal/enrol"
)

// TestWhatRootBeginsIsTheAgents: an enrolment that waits for its answer, or was
// refused, leaves a key behind that the agent renews with or forgets, as another
// user.
func TestWhatRootBeginsIsTheAgents(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away")
	}
	state, stick := t.TempDir(), t.TempDir()
	const agentsUser = 4711
	if err := os.Chown(state, agentsUser, agentsUser); err != nil {
		t.Fatal(err)
	}
	token := wireenrol.NewToken("fleet.example.com", 8443, wireenrol.Pin{1})
	args := []string{"enroll", token.String(), "--offline", stick, "--tpm", "off", "--state", state, "--root", t.TempDir()}
	if err := run(t.Context(), args, new(bytes.Buffer), new(bytes.Buffer)); err != nil {
		t.Fatal(err)
	}
	seen := 0
	err := filepath.WalkDir(state, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		seen++
		if owner := info.Sys().(*syscall.Stat_t); owner.Uid != agentsUser || owner.Gid != agentsUser {
			t.Errorf("%s belongs to %d:%d", path, owner.Uid, owner.Gid)
		}
		return nil
	})
	if err != nil || seen < 3 {
		t.Errorf("%d files, %v", seen, err)
	}
}

func TestWhoMayNotEnrolIsToldHow(t *testing.T) {
	if os.Geteuid() == 0 {
		if err := asRoot(fs.ErrPermission); !errors.Is(err, fs.ErrPermission) || strings.Contains(err.Error(), "sudo") {
			t.Errorf("root is told %v", err)
		}
		return
	}
	if err := asRoot(fs.ErrPermission); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "sudo edgeherd-agent enroll") {
		t.Errorf("told %v", err)
	}
}
