package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/edgeherd/edgeherd/agent/serve"
)

// runServer is the verb run.
func runServer(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	c, err := readConfig(args, os.Getenv, stdout)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := os.Stat(c.Library); err != nil {
		return fmt.Errorf("find ONNX Runtime (`library:` in runner.yaml or --library): %w", err)
	}
	log := slog.New(slog.NewTextHandler(stderr, nil))
	opts := c.options()
	opts.Version, opts.Worker.Stderr = version, stderr
	s, err := serve.New(opts, log)
	if err != nil {
		return err
	}
	openInputs(c, s, log)
	return s.Run(ctx)
}
