package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/models"
)

// answerGolden is the verb golden: what a model file answers to samples, in the
// form of the samples. So golden.json is made, and weights are compared.
func answerGolden(ctx context.Context, args []string, stdout io.Writer) error {
	opts, samples, err := single("golden", "samples", "`file` with inputs, and outputs of the right names, in the form of golden.json", args)
	if err != nil {
		return err
	}
	g, err := models.ReadGolden(samples)
	if err != nil {
		return err
	}
	answers, err := serve.Answers(ctx, opts, g, slog.New(slog.DiscardHandler))
	if err != nil {
		return fmt.Errorf("answers to golden samples: %w", err)
	}
	if err := json.NewEncoder(stdout).Encode(answers); err != nil {
		return errors.Join(errors.New("write the answers"), err)
	}
	return nil
}
