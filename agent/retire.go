package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/agent/enrol"
	"github.com/edgeherd/edgeherd/agent/secrets"
	"github.com/edgeherd/edgeherd/agent/update"
	"github.com/edgeherd/edgeherd/internal/durable"
	wireenrol "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// A box that was retired wipes itself at its next start, when nothing holds its
// files, and does so until the controller has its receipt:
//
//	STATE/retired.json   the box is to be wiped, or was and the receipt is due

type retirement struct {
	Lost uint64 `json:"lost_blocks"` // that the controller never acknowledged
}

func retirementOf(state string) durable.Journal {
	return durable.Journal{Path: filepath.Join(state, "retired.json"), Version: 1}
}

// IdentityDir is where a box's identity lies.
func IdentityDir(state string) string { return filepath.Join(state, "identity") }

// retire notes that the box is to be wiped, and ends this process: the next
// one does it, since this one has the files open.
func (a *Agent) retire() error {
	if err := retirementOf(a.opts.State).Save(retirement{Lost: uint64(a.spool.Buffer().Blocks)}); err != nil {
		return fmt.Errorf("note that the box was retired: %w", err)
	}
	return update.ErrRestart
}

// stays are what retiring leaves until the receipt has been received: whose box
// it was, and the fan that may stand raised, which the fan guard puts back.
var stays = []string{"identity", "retired.json", "fan.json", "lock"}

// Retire finishes the retirement of a box, if it is being retired: models,
// telemetry and all that the agent has learnt are removed, the controller gets a
// signed receipt, and the identity goes last. It waits for the controller until
// ctx is done.
func Retire(ctx context.Context, opts Options, log *slog.Logger) error {
	var r retirement
	if found, err := retirementOf(opts.State).Load(&r); err != nil || !found {
		return err
	}
	dir := IdentityDir(opts.State)
	id, err := enrol.Load(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return durable.Remove(filepath.Join(opts.State, "retired.json")) // the cut came after the last step but one
	}
	if err != nil {
		return err
	}
	wiped, err := wipe(ctx, opts)
	if err != nil {
		return fmt.Errorf("wipe a retired box: %w", err)
	}
	log.Warn("this box was retired: models and telemetry are removed", "blocks_lost", r.Lost)
	if err := sendReceipt(ctx, opts, id, wireenrol.Receipt{
		Wiped: wiped, Lost: r.Lost, Time: time.Now().UTC(), Version: opts.Version,
	}, log); err != nil {
		return err
	}
	if err := enrol.Forget(dir); err != nil {
		return err
	}
	return durable.Remove(filepath.Join(opts.State, "retired.json"))
}

// wipe removes what the box has and says what that was; it may be repeated.
func wipe(ctx context.Context, opts Options) ([]string, error) {
	wiped := []string{"spool", "models"}
	entries, err := os.ReadDir(opts.State)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		keep := false
		for _, name := range stays {
			keep = keep || e.Name() == name || strings.HasPrefix(e.Name(), name+".")
		}
		if keep {
			continue
		}
		if err := os.RemoveAll(filepath.Join(opts.State, e.Name())); err != nil {
			return nil, err
		}
	}
	if err := durable.SyncDir(opts.State); err != nil {
		return nil, err
	}
	if err := secrets.Wipe(opts.Secrets); err != nil {
		return nil, err
	}
	wiped = append(wiped, "secrets")
	emptied, err := emptyRunner(ctx, opts)
	if emptied {
		wiped = append(wiped, "results")
	}
	return wiped, err
}

// emptyRunner takes results and models from a runner that runs. One that does
// not run finds no models when it starts, and keeps its results.
func emptyRunner(ctx context.Context, opts Options) (emptied bool, err error) {
	for after := uint64(0); ; {
		r, err := opts.Runner.Results(ctx, after, 1000)
		if err != nil {
			return false, nil
		}
		if len(r.Records) == 0 {
			break
		}
		after = r.Next
		if err := opts.Runner.Ack(ctx, r.Outbox, after); err != nil {
			return false, err
		}
	}
	_, err = opts.Runner.Reload(ctx)
	return true, err
}

// sendReceipt tries until the controller has it.
func sendReceipt(ctx context.Context, opts Options, id *identity.Identity, r wireenrol.Receipt, log *slog.Logger) error {
	d, err := dial.New(dial.Options{
		Identity: id, Server: opts.Server, Proxy: opts.Proxy, ProxyAuth: opts.ProxyAuth, Net: opts.Dial, WallClock: opts.WallClock,
	}, log)
	if err != nil {
		return err
	}
	for pause := time.Second; ; pause = min(2*pause, 5*time.Minute) {
		err := enrol.SendReceipt(ctx, id, d.Renewals, r)
		var no *enrol.Refused
		if err == nil || errors.As(err, &no) && no.Answer.Code == wireenrol.Revoked {
			return nil // nobody waits for the receipt of a revoked box
		}
		log.Warn("the controller has no receipt of the wiping yet", "err", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}
