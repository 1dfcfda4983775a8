package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// importWait is how long the agent may take to begin.
const importWait = 30 * time.Second

// importBundle has the running agent take a bundle from a stick, and waits.
func importBundle(ctx context.Context, args []string, stdout io.Writer) error {
	asJSON := slices.Contains(args, "-o=json") || slices.Contains(args, "--json")
	args = slices.DeleteFunc(slices.Clone(args), func(a string) bool { return a == "-o=json" || a == "--json" })
	named, flags := bundleOf(args)
	if named == "" {
		return fmt.Errorf("%w: name the bundle: a file, or the folder on the stick that has bundle.json", errUsage)
	}
	c, err := loadConfig(flags, os.Getenv)
	if err != nil {
		return err
	}
	path, err := filepath.Abs(named)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		return err
	}
	orders := agent.ImportOrders(c.State)
	if _, err := os.Stat(agent.ImportDir(c.State)); err != nil {
		return fmt.Errorf("the agent takes no bundles here: %w; start it first", err)
	}
	if _, err := os.Stat(orders.Path); err == nil {
		return fmt.Errorf("another import is under way; remove %s to give it up", orders.Path)
	}
	order := agent.ImportOrder{ID: rand.Text(), Path: path}
	if err := orders.Save(order); err != nil {
		return err
	}
	if err := os.Chmod(orders.Path, 0o644); err != nil { // root asks, another user reads
		return errors.Join(err, durable.Remove(orders.Path))
	}
	res, err := awaitImport(ctx, c.State, order.ID)
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(res); err != nil {
			return err
		}
	}
	if res.Err != "" {
		return fmt.Errorf("import %s: %s", path, res.Err)
	}
	if !asJSON {
		fmt.Fprintln(stdout, imported(res))
		if res.Generation > 0 {
			fmt.Fprintln(stdout, "the box follows what the bundle says it shall run: edgeherd-agent status")
		}
	}
	return nil
}

// bundleOf takes the bundle out of the arguments, on either side of flags, all of
// which have a value; after -- nothing is a flag.
func bundleOf(args []string) (path string, flags []string) {
	for i := 0; i < len(args); i++ {
		switch {
		case args[i] == "--" && i+1 < len(args):
			return args[i+1], slices.Delete(slices.Clone(args), i, i+2)
		case !strings.HasPrefix(args[i], "-"):
			return args[i], slices.Delete(slices.Clone(args), i, i+1)
		case !strings.Contains(args[i], "="):
			i++
		}
	}
	return "", args
}

func imported(res agent.ImportResult) string {
	if len(res.Versions) == 0 {
		return "nothing to import: the box runs what the bundle has for it"
	}
	return fmt.Sprintf("imported %s: %d bytes, all checked", strings.Join(res.Versions, " "), res.TotalBytes)
}

// awaitImport follows an import until its end.
func awaitImport(ctx context.Context, state, id string) (agent.ImportResult, error) {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		var res agent.ImportResult
		// It is replaced as a whole; what is of an import before is not looked at.
		if _, err := agent.ImportResults(state).Load(&res); err == nil && res.ID == id && res.Ended {
			return res, nil
		}
		if res.ID != id && time.Since(began) > importWait {
			return res, errors.Join(fmt.Errorf("the agent has not begun within %s: does it run? systemctl status edgeherd-agent", importWait),
				durable.Remove(agent.ImportOrders(state).Path))
		}
		select {
		case <-ctx.Done():
			return res, errors.New("no longer waited for: the agent goes on with the import")
		case <-tick.C:
		}
	}
}
