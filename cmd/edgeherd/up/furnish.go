package up

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// starters are the demo models that every box gets at its first start. The
// others of the assets wait for a person to push them.
var starters = []string{"ocr-det-4.0.0", "ocr-cls-2.0.0", "ocr-rec-4.0.0", "silero-vad-5.0.0"}

// writeConfig writes a configuration file. The keys in ours are always set:
// addresses and places. All others are the reader's to change and stay as they
// are in the file; a file that is new gets those in first.
func writeConfig(path string, ours, first map[string]any) error {
	config := map[string]any{}
	switch have, err := os.ReadFile(path); {
	case errors.Is(err, fs.ErrNotExist):
		maps.Copy(config, first)
	case err != nil:
		return fmt.Errorf("read configuration: %w", err)
	default:
		if err := yaml.Unmarshal(have, &config); err != nil {
			return fmt.Errorf("read configuration %s: %w; mend it, or remove it to get a new one", path, err)
		}
		if config == nil { // an empty file
			config = map[string]any{}
		}
	}
	maps.Copy(config, ours)
	data, err := yaml.Marshal(config)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	return durable.WriteFile(path, data, 0o644)
}

// furnish waits for the controller, says where it is, pushes the starter
// models and rolls them out: the same way as any other model takes.
func (f *Fleet) furnish(ctx context.Context, began time.Time) error {
	client := fleetapi.New("http://"+f.plan.HTTP, f.token, nil)
	if err := waitFor(ctx, func() error { _, err := client.Summary(ctx); return err }); err != nil {
		return quiet(ctx, fmt.Errorf("the controller does not answer; see %s: %w", filepath.Join(f.opts.Data, "log", "controller.log"), err))
	}
	boxes := fmt.Sprintf("%d boxes", len(f.boxes))
	if len(f.boxes) == 1 {
		boxes = "a box"
	}
	f.say("edgeherd is up after %.1f s: a controller and %s on simulated hardware, on this machine.", time.Since(began).Seconds(), boxes)
	f.say("")
	f.say("  Open         %s   (works once; again: edgeherd login --url)", f.login)
	for _, b := range f.boxes {
		f.say("  %-12s http://%s/v2", b.name, f.plan.OIP[b.name])
	}
	f.say("  Data         %s", f.opts.Data)
	f.say("  Commands     export EDGEHERD_CONTEXT=%s", filepath.Join(f.opts.Data, "context.json"))
	f.say("")
	if err := f.pushStarters(ctx, client); err != nil {
		return quiet(ctx, err)
	}
	f.say("Ctrl-C ends everything.")
	<-ctx.Done()
	return nil
}

// quiet drops an error that only says we are being stopped.
func quiet(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (f *Fleet) pushStarters(ctx context.Context, client *fleetapi.Client) error {
	fleet, err := client.Summary(ctx)
	if err != nil {
		return err
	}
	if !fleet.Development { // what boxes run is for people and their keys to say since
		return nil
	}
	have, err := client.AllRollouts(ctx)
	if err != nil {
		return err
	}
	key := filepath.Join(f.opts.Data, "server", "keys", "signing.key")
	for _, name := range starters {
		ref, err := fleetapi.PushModelDir(ctx, client, filepath.Join(f.opts.Assets, "models", name), key, nil)
		if err != nil {
			return fmt.Errorf("push demo model %s: %w; if its files are damaged, run make assets", name, err)
		}
		if slices.ContainsFunc(have.Items, func(r fleetapi.Rollout) bool { return r.Target.Name == ref.Name && r.Started != nil }) {
			continue // rolled out at an earlier start; perhaps replaced since
		}
		plan, err := client.Plan(ctx, fleetapi.PlanRequest{Model: ref.String(), Waves: []string{"rest"}})
		if err != nil {
			return fmt.Errorf("plan the first rollout of %s: %w", ref, err)
		}
		if _, err := client.Act(ctx, plan.ID, "start"); err != nil {
			return fmt.Errorf("start the first rollout of %s: %w", ref, err)
		}
		f.say("Rolling out %s to all boxes.", ref)
	}
	return nil
}

// waitFor asks four times a second, for up to 20 s.
func waitFor(ctx context.Context, ask func() error) error {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-deadline.C:
			return err
		case <-tick.C:
		}
	}
}
