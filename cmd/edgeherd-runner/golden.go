package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// answerGolden is the verb golden: what a model file answers to samples, in the
// form of the samples. So golden.json is made, and weights are compared.
func answerGolden(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet("golden", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	library := flags.String("library", defaults().Library, "`path` of libonnxruntime.so.1")
	model := flags.String("model", "", "`path` of the .onnx file")
	samples := flags.String("samples", "", "`file` with inputs, and outputs of the right names, in the form of golden.json")
	command := flags.String("worker", "", "`command` that starts a worker, words separated by spaces; default: this program. For emulators")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: golden: %w", errUsage, err)
	}
	if *model == "" || *samples == "" || flags.NArg() > 0 {
		return fmt.Errorf("%w: golden needs --model and --samples and nothing else", errUsage)
	}
	g, err := models.ReadGolden(*samples)
	if err != nil {
		return err
	}
	answers, err := serve.Answers(ctx, worker.Options{Library: *library, Model: *model, Command: strings.Fields(*command)}, g, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("answers to golden samples: %w", err)
	}
	if err := json.NewEncoder(stdout).Encode(answers); err != nil {
		return errors.Join(errors.New("write the answers"), err)
	}
	return nil
}
