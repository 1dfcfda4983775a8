package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/cmd/edgeherd/up"
)

// mostBoxes bounds what one machine is asked to run.
const mostBoxes = 50

func upCommand(c *cli) *cobra.Command {
	var o up.Options
	cmd := c.verb("up", "Run a demo fleet on this machine: a controller and simulated boxes", func(ctx context.Context, _ []string) error {
		if o.Boxes < 1 || o.Boxes > mostBoxes {
			return ended(exitUsage, "--boxes %d: want 1 to %d", o.Boxes, mostBoxes)
		}
		if o.TimeScale <= 0 {
			return ended(exitUsage, "--time-scale %g: want more than 0", o.TimeScale)
		}
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the programs of the fleet: %w", err)
		}
		if self, err = filepath.EvalSymlinks(self); err != nil {
			return fmt.Errorf("find the programs of the fleet: %w", err)
		}
		o.Bin, o.Version, o.Out = filepath.Dir(self), c.version, c.words
		if o.Assets == "" {
			o.Assets = c.env("EDGEHERD_ASSETS")
		}
		if o.Assets == "" {
			o.Assets = filepath.Join(filepath.Dir(o.Bin), "assets")
		}
		return up.Run(ctx, o, slog.New(slog.NewTextHandler(c.words, &slog.HandlerOptions{Level: slog.LevelWarn})))
	})
	f := cmd.Flags()
	f.StringVar(&o.Data, "data", "edgeherd-data", "folder for everything that is written")
	f.BoolVar(&o.Ephemeral, "ephemeral", false, "use a temporary folder and remove it at the end")
	f.IntVar(&o.Boxes, "boxes", 3, "number of simulated boxes")
	f.StringVar(&o.Assets, "assets", "", "folder with onnxruntime/ and models/ (default $EDGEHERD_ASSETS, then ../assets beside the programs)")
	f.Float64Var(&o.TimeScale, "time-scale", 1, "how much faster than the clock heat and dust of the boards run")
	cmd.MarkFlagsMutuallyExclusive("data", "ephemeral")
	return cmd
}
