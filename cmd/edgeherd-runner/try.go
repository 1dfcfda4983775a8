package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/agent/worker"
)

// try is the verb of that name: one request in JSON on one model file, with no
// server, no signature and no configuration.
func try(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("try", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	library := flags.String("library", defaults().Library, "`path` of libonnxruntime.so.1")
	model := flags.String("model", "", "`path` of the .onnx file")
	inputs := flags.String("inputs", "", "`file` with a JSON inference request of the Open Inference Protocol; - is standard input")
	command := flags.String("worker", "", "`command` that starts a worker, words separated by spaces; default: this program. For emulators")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: try: %w", errUsage, err)
	}
	if *model == "" || *inputs == "" || flags.NArg() > 0 {
		return fmt.Errorf("%w: try needs --model and --inputs and nothing else", errUsage)
	}
	request, err := readInput(*inputs)
	if err != nil {
		return fmt.Errorf("read inputs: %w", err)
	}
	answer, err := serve.Once(ctx, worker.Options{Library: *library, Model: *model, Command: strings.Fields(*command)}, request, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("try model: %w", err)
	}
	_, err = fmt.Fprintf(stdout, "%s\n", answer)
	return err
}

func readInput(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(path)
}
