package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/edgeherd/edgeherd/agent"
)

// giveToAgent gives a new identity to the owner of the state directory: a tech
// enrols as root, and the agent runs as another user.
func giveToAgent(state string) error {
	info, err := os.Stat(state)
	if err != nil {
		return fmt.Errorf("look at state directory: %w", err)
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok || os.Geteuid() != 0 {
		return nil
	}
	return filepath.WalkDir(agent.IdentityDir(state), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(owner.Uid), int(owner.Gid))
	})
}
