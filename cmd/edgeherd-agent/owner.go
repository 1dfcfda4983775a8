package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/edgeherd/edgeherd/agent"
)

// giveToAgent gives an identity, and one that an enrolment has begun or left half
// done, to the owner of the state directory: a tech enrols as root, and the agent,
// which renews and forgets them, runs as another user.
func giveToAgent(state string) error {
	info, err := os.Stat(state)
	if err != nil {
		return fmt.Errorf("look at state directory: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	dirs, err := filepath.Glob(agent.IdentityDir(state) + "*")
	if err != nil {
		return fmt.Errorf("look for identities: %w", err)
	}
	var faults error
	for _, dir := range dirs {
		faults = errors.Join(faults, filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(path, int(owner.Uid), int(owner.Gid))
		}))
	}
	return faults
}
