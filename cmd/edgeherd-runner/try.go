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
	opts, inputs, err := single("try", "inputs", "`file` with a JSON inference request of the Open Inference Protocol; - is standard input", args)
	if err != nil {
		return err
	}
	request, err := readInput(inputs)
	if err != nil {
		return fmt.Errorf("read inputs: %w", err)
	}
	answer, err := serve.Once(ctx, opts, request, slog.New(slog.DiscardHandler))
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

// single reads the arguments of a verb that runs one model file on one file.
func single(verb, name, usage string, args []string) (opts worker.Options, file string, err error) {
	flags := flag.NewFlagSet(verb, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.StringVar(&opts.Library, "library", defaults().Library, "`path` of libonnxruntime.so.1")
	flags.StringVar(&opts.Model, "model", "", "`path` of the .onnx file")
	flags.StringVar(&file, name, "", usage)
	command := flags.String("worker", "", "`command` that starts a worker, words separated by spaces; default: this program. For emulators")
	if err := flags.Parse(args); err != nil {
		return opts, "", fmt.Errorf("%w: %s: %w", errUsage, verb, err)
	}
	if opts.Model == "" || file == "" || flags.NArg() > 0 {
		return opts, "", fmt.Errorf("%w: %s needs --model and --%s and nothing else", errUsage, verb, name)
	}
	opts.Command = strings.Fields(*command)
	return opts, file, nil
}
