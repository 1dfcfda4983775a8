package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/edgeherd/edgeherd/agent/doctor"
)

var errUnwell = errors.New("something must be done, see above")

// printDoctor examines the box and prints each finding as it comes.
func printDoctor(ctx context.Context, args []string, stdout io.Writer) error {
	asJSON, args, err := outputFlag(args)
	if err != nil {
		return err
	}
	c, err := loadConfig(args, os.Getenv)
	if err != nil {
		return err
	}
	opts := doctor.Options{
		State: c.State, Root: c.Root, RunnerSocket: c.Runner, Sensors: c.Sensors, Outside: c.Outside,
		Server: c.Server, Proxy: c.Proxy, ProxyAuth: c.ProxyAuthFile, MinFreeBytes: c.MinFreeBytes,
	}
	if !asJSON {
		opts.Each = func(f doctor.Finding) {
			fmt.Fprintf(stdout, "%-4s  %s: %s\n", f.Level, f.Check, f.Found)
			if f.Way != "" {
				fmt.Fprintf(stdout, "      → %s\n", f.Way)
			}
		}
	}
	r := doctor.Examine(ctx, opts)
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(r); err != nil {
			return err
		}
	}
	if r.Level == doctor.Fail {
		return errUnwell
	}
	return nil
}
