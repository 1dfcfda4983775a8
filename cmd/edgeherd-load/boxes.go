package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/loadgen/fleet"
)

func enrolCommand(t *terminal) *cobra.Command {
	var state string
	var n int
	cmd := &cobra.Command{
		Use: "enrol", Short: "Make sure of boxes for the load; the controller must be stopped", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ids, err := fleet.Enrol(cmd.Context(), state, n)
			if errors.Is(err, fleet.ErrRunning) {
				return fmt.Errorf("%w: stop it, say this again, and start it", err)
			}
			if err == nil {
				t.say("%d boxes of site %q are enrolled in %s", len(ids), fleet.Site, state)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "state directory of the controller")
	cmd.Flags().IntVarP(&n, "devices", "n", 100, "boxes")
	if err := cmd.MarkFlagRequired("state"); err != nil {
		panic(err) // the flag was added above
	}
	return cmd
}

func checkCommand(t *terminal) *cobra.Command {
	var state, ledger, output string
	cmd := &cobra.Command{
		Use: "check", Short: "Compare a ledger with the database; the controller must be stopped", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ledger == "" {
				ledger = filepath.Join(state, "load.ledger")
			}
			v, err := fleet.Check(cmd.Context(), state, ledger)
			if errors.Is(err, fleet.ErrRunning) {
				return fmt.Errorf("%w: stop it to have its database looked through", err)
			}
			if err != nil {
				return err
			}
			if err := t.printVerdict(output, v); err != nil {
				return err
			}
			if v.Lost+v.Doubled > 0 {
				return fmt.Errorf("%d blocks or samples were lost and %d doubled", v.Lost, v.Doubled)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&state, "state", "", "state directory of the controller")
	cmd.Flags().StringVar(&ledger, "ledger", "", "the ledger (default: load.ledger in the state directory)")
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	if err := cmd.MarkFlagRequired("state"); err != nil {
		panic(err) // the flag was added above
	}
	return cmd
}

// known asks a controller that runs for the boxes of the load. Its context
// file lies in the state directory, or, of a demo fleet, above it.
func known(ctx context.Context, state string, n int) ([]identity.ID, error) {
	var oc struct{ URL, Token string }
	var data []byte
	var err error
	for _, dir := range []string{state, filepath.Dir(filepath.Clean(state))} {
		if data, err = os.ReadFile(filepath.Join(dir, "context.json")); err == nil {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("find the controller that runs on %s: %w; use --self if none shall run", state, err)
	}
	if err := json.Unmarshal(data, &oc); err != nil {
		return nil, fmt.Errorf("read context.json: %w", err)
	}
	rt, err := transport(state)
	if err != nil {
		return nil, err
	}
	list, err := fleetapi.New(oc.URL, oc.Token, rt).AllBoxes(ctx, fmt.Sprintf("site = %q", fleet.Site), "name")
	if err != nil {
		return nil, fmt.Errorf("ask the controller for its boxes: %w", err)
	}
	if len(list.Items) < n {
		return nil, fmt.Errorf("the controller has %d boxes of site %q, %d are wanted: stop it, run `edgeherd-load enrol --state %s -n %d`, and start it again", len(list.Items), fleet.Site, n, state, n)
	}
	ids := make([]identity.ID, n)
	for i := range ids {
		ids[i] = list.Items[i].ID
	}
	return ids, nil
}
