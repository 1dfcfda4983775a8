package update

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/slot"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// A box plays launcher and supervisor around the real Updater, on fake time.
// What a program does is written in its bytes: "good", "deaf" (never gets a
// connection), "sick" (unhealthy), "crash" (ends at once), "garbage" (cannot be
// executed). A crash is a power cut after a durable step.
type box struct {
	t       *testing.T
	key     trust.PrivateKey
	keys    trust.Keyring
	slots   slot.Store
	state   string
	blobs   *blob.Store
	desired blob.Digest
	offline bool
	reports []Phase
	starts  []string
	// cutAt is the number of the durable step after which the power fails.
	cutAt, steps int
	cut          bool
	kill         context.CancelFunc
	edit         func(*Updater)
}

func newBox(t *testing.T) *box {
	t.Helper()
	dir := t.TempDir()
	key, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	blobs, err := blob.Open(filepath.Join(dir, "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	b := &box{
		t: t, key: key, keys: trust.DevelopmentKeyring(key.Public()), blobs: blobs,
		slots: slot.Store{Dir: filepath.Join(dir, "launcher")}, state: filepath.Join(dir, "state"),
	}
	if err := os.Mkdir(b.state, 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := b.slots.Install(strings.NewReader("good old")); err != nil {
		t.Fatal(err)
	}
	return b
}

// publish makes a release of a program and wishes for it.
func (b *box) publish(program string, counter uint64) blob.Digest {
	b.t.Helper()
	r := firmware.Release{V: 1, Kind: firmware.KindAgent, Version: fmt.Sprintf("1.%d.0", counter), Counter: counter,
		Builds: []firmware.Build{{OS: runtime.GOOS, Arch: runtime.GOARCH, Digest: b.put([]byte(program)), SizeBytes: int64(len(program))}}}
	envelope, digest, err := firmware.Sign(r, b.key)
	if err != nil {
		b.t.Fatal(err)
	}
	b.put(envelope)
	b.desired = digest
	return digest
}

func (b *box) put(data []byte) blob.Digest {
	b.t.Helper()
	d := blob.Sum(data)
	if err := b.blobs.Put(strings.NewReader(string(data)), d); err != nil {
		b.t.Fatal(err)
	}
	return d
}

var errCut = errors.New("power cut")

func (b *box) step(string) error {
	b.steps++
	if b.cutAt == 0 || b.steps != b.cutAt {
		return nil
	}
	b.cut = true
	if b.kill != nil {
		b.kill()
	}
	return errCut
}

// boot starts agents as the launcher would until one has run for an hour
// without asking for a restart, and returns its slot.
func (b *box) boot() slot.ID {
	b.t.Helper()
	store := b.slots
	store.OnStep = b.step
	var broken slot.Pair[bool]
	for range 30 {
		b.kill = nil
		c, err := store.Choose(broken, time.Now())
		if b.cut {
			b.cut = false
			continue
		}
		if err != nil && !errors.Is(err, slot.ErrUnreadable) {
			b.t.Logf("choose: %v", err)
		}
		program, err := os.ReadFile(b.slots.Path(c.Slot))
		if c.Slot == "" || err != nil {
			b.t.Fatalf("step %d: nothing boots: %+v, %v", b.cutAt, c, err)
		}
		b.starts = append(b.starts, string(program))
		switch kind, _, _ := strings.Cut(string(program), " "); kind {
		case "good", "deaf", "sick":
			if b.run(c.Slot, kind) {
				return c.Slot
			}
			broken = slot.Pair[bool]{}
		case "crash":
		case "garbage":
			if c.State.Trial.Slot != c.Slot || !c.Save {
				broken = broken.With(c.Slot, true)
			}
		default:
			b.t.Fatalf("step %d: half a program boots: %q", b.cutAt, program)
		}
	}
	b.t.Fatalf("step %d: never settles: %q", b.cutAt, b.starts)
	return ""
}

// run is one process; it reports whether it lived for an hour.
func (b *box) run(id slot.ID, kind string) (settled bool) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	b.kill = cancel
	u, err := New(Options{
		Slot: id, LauncherDir: b.slots.Dir, StateDir: b.state, Version: "1.0.0", Keys: func() trust.Keyring { return b.keys },
		Fetch: func(_ context.Context, d blob.Digest) (string, error) {
			if _, err := b.blobs.Size(d); err != nil {
				return "", err
			}
			return b.blobs.Path(d), nil
		},
		Healthy: func() error {
			if kind == "sick" {
				return errors.New("spool does not open")
			}
			return nil
		},
		Report: func(p Phase) { b.reports = append(b.reports, p) },
	}, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		b.t.Fatal(err)
	}
	u.slots.OnStep = b.step
	u.journal.OnSave = func() error { return b.step("journal saved") }
	if b.edit != nil {
		b.edit(u)
	}
	if kind != "deaf" && !b.offline {
		u.Connected()
		u.SetDesired(b.desired)
	}
	err = u.Run(ctx)
	if b.cut {
		b.cut = false
		return false
	}
	if err != nil && !errors.Is(err, ErrRestart) {
		b.t.Fatalf("run: %v", err)
	}
	return err == nil
}

func (b *box) last() Phase {
	if len(b.reports) == 0 {
		return Phase{}
	}
	return b.reports[len(b.reports)-1]
}

func (b *box) phases() string {
	var out []string
	for _, p := range b.reports {
		out = append(out, p.Phase)
	}
	return strings.Join(out, " ")
}

func (b *box) slotState() slot.State {
	b.t.Helper()
	s, err := b.slots.Load()
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}
