package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/enrol"
)

// printStatus says how the connection of the agent stands, as it wrote it down.
func printStatus(args []string, stdout io.Writer) error {
	asJSON := slices.Contains(args, "--json")
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "--json" })
	c, err := loadConfig(args, os.Getenv)
	if err != nil {
		return err
	}
	s, err := agent.ReadStatus(c.State)
	if errors.Is(err, fs.ErrNotExist) && !enrol.Enrolled(agent.IdentityDir(c.State)) {
		return errors.New("this box is not enrolled: ask ops for a token, then: edgeherd-agent enroll TOKEN")
	}
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(s)
	}
	fmt.Fprintf(stdout, "box        %s  %s  site %s\n", s.ID, s.Name, s.Site)
	fmt.Fprintf(stdout, "agent      %s, %s\n", s.Version, alive(s.Process))
	fmt.Fprintf(stdout, "link       %s\n", linkWords(s))
	if s.LastError != "" {
		fmt.Fprintf(stdout, "last error %s\n", s.LastError)
	}
	if s.Disk != "" {
		fmt.Fprintf(stdout, "disk       takes no writes: %s\n", s.Disk)
	}
	for i, words := range s.Health {
		head := "health"
		if i > 0 {
			head = ""
		}
		fmt.Fprintf(stdout, "%-10s %s\n", head, words)
	}
	for _, t := range s.Ways.Failed {
		fmt.Fprintf(stdout, "tried      %s: %s\n", t.At.Format(time.RFC3339), t.Err)
	}
	return nil
}

func linkWords(s agent.Status) string {
	words := "never connected"
	switch {
	case s.Connected:
		words = "connected"
	case s.Since != nil:
		words = "not connected"
	}
	if s.Since != nil {
		words += " since " + s.Since.Format(time.RFC3339)
	}
	if s.Connected {
		words += " by " + s.Ways.Way
	}
	return words
}

// alive says whether the process that wrote the status still runs.
func alive(pid int) string {
	if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err != nil {
		return fmt.Sprintf("not running (process %d is gone): what follows is what it wrote last", pid)
	}
	return fmt.Sprintf("process %d", pid)
}
