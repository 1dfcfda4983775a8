package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"

	"github.com/edgeherd/edgeherd/controller"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/freeport"
	"github.com/edgeherd/edgeherd/internal/labels"
	"github.com/edgeherd/edgeherd/internal/simboard"
)

// plan is up.json: what a restart must find again.
type plan struct {
	HTTP   string            `json:"http"`
	Device string            `json:"device"`
	MQTT   string            `json:"mqtt"`
	OIP    map[string]string `json:"oip"` // by box: address of its inference API
	Token  string            `json:"token"`
}

// planVersion is the journal version of up.json. History: 1 first.
const planVersion = 1

// sites are where the boxes of the demo stand, in turn.
var sites = []string{"berlin-1", "krakow-2", "suzhou-3"}

// framesPerCamera is how many different frames a simulated camera shows.
const framesPerCamera = 30

// tokenLife of the operator's token of a demo fleet.
const tokenLife = 365 * 24 * time.Hour

// prepare makes folders, identities, configurations and frames.
func prepare(ctx context.Context, opts Options, log *slog.Logger) (f *Fleet, err error) {
	opts = opts.withDefaults()
	if err := checkFiles(opts); err != nil {
		return nil, err
	}
	f = &Fleet{opts: opts, log: log}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	if opts.Ephemeral {
		if f.opts.Data, err = os.MkdirTemp("", "edgeherd-up-"); err != nil {
			return nil, fmt.Errorf("make ephemeral folder: %w", err)
		}
		f.leavings = append(f.leavings, f.opts.Data)
	}
	if f.opts.Data, err = filepath.Abs(f.opts.Data); err != nil {
		return nil, err
	}
	return f, f.layOut(ctx)
}

// close removes what must not stay and lets another fleet have the folder.
func (f *Fleet) close() {
	if f.lock != nil {
		f.lock.Close()
	}
	for _, dir := range f.leavings {
		if err := os.RemoveAll(dir); err != nil {
			f.log.Warn("folder not removed", "err", err)
		}
	}
}

func (f *Fleet) layOut(ctx context.Context) error {
	for i := range f.opts.Boxes {
		name := fmt.Sprintf("box-%d", i+1)
		profiles := simboard.Profiles()
		f.boxes = append(f.boxes, box{
			name: name, site: sites[i%len(sites)], profile: profiles[i%len(profiles)], seed: uint64(i + 1),
			dir: filepath.Join(f.opts.Data, "boxes", name),
		})
	}
	if err := os.MkdirAll(filepath.Join(f.opts.Data, "log"), 0o755); err != nil {
		return fmt.Errorf("make data folder (another one with --data): %w", err)
	}
	var err error
	if f.lock, err = lockData(f.opts.Data); err != nil {
		return err
	}
	if err := f.choosePorts(); err != nil {
		return err
	}
	if err := f.server(ctx); err != nil {
		return err
	}
	// Opened secrets go with the fleet that runs, as with a boot of real boxes.
	opened, err := os.MkdirTemp("", "eh")
	if err != nil {
		return fmt.Errorf("make folder for opened secrets: %w", err)
	}
	f.leavings = append(f.leavings, opened)
	for i := range f.boxes {
		if err := f.shortSocket(&f.boxes[i]); err != nil {
			return err
		}
		f.boxes[i].secrets = filepath.Join(opened, f.boxes[i].name)
	}
	return nil
}

// shortSocket finds a place for the socket of a runner.
func (f *Fleet) shortSocket(b *box) error {
	b.socket = filepath.Join(b.dir, "runner.sock")
	if len(b.socket) <= 100 {
		return nil
	}
	// The address of a unix socket is short by definition (unix(7)).
	dir, err := os.MkdirTemp("", "eh")
	if err != nil {
		return fmt.Errorf("make folder for the socket of %s: %w", b.name, err)
	}
	f.leavings = append(f.leavings, dir)
	b.socket = filepath.Join(dir, "r.sock")
	return nil
}

// lockData makes sure that one fleet runs in a folder. The controller has a
// lock of its own, but that one is free while the controller is started again,
// and it comes too late to keep the ports of up.json.
func lockData(data string) (*durable.Lock, error) {
	lock, err := durable.LockDir(data)
	if errors.Is(err, durable.ErrLocked) {
		return nil, fmt.Errorf("a fleet is running in %s already; end it with Ctrl-C there, or start another with --data FOLDER or --ephemeral", data)
	}
	if err != nil {
		return nil, fmt.Errorf("%w (another folder with --data)", err)
	}
	return lock, nil
}

// choosePorts keeps the ports of the last start where they are still free.
func (f *Fleet) choosePorts() error {
	j := durable.Journal{Path: filepath.Join(f.opts.Data, "up.json"), Version: planVersion}
	if _, err := j.Load(&f.plan); err != nil {
		return err
	}
	if f.plan.OIP == nil {
		f.plan.OIP = map[string]string{}
	}
	// A claim, for the controller and the agents listen only later, when another
	// fleet may start.
	free := func(old, preferred string) (string, error) {
		for _, addr := range []string{old, preferred} {
			if addr != "" && freeport.Take(addr) == nil {
				return addr, nil
			}
		}
		return freeport.Address()
	}
	var err error
	for _, p := range []struct {
		addr      *string
		preferred string
	}{{&f.plan.HTTP, "127.0.0.1:8443"}, {&f.plan.Device, "127.0.0.1:8444"}, {&f.plan.MQTT, "127.0.0.1:8883"}} {
		if *p.addr, err = free(*p.addr, p.preferred); err != nil {
			return err
		}
	}
	for i, b := range f.boxes {
		if f.plan.OIP[b.name], err = free(f.plan.OIP[b.name], fmt.Sprintf("127.0.0.1:%d", 8000+10*i)); err != nil {
			return err
		}
	}
	return j.Save(f.plan)
}

// server opens the controller once in this process, to enrol the boxes and
// make the operator's token, and writes the configuration it will run with.
func (f *Fleet) server(ctx context.Context) error {
	dir := filepath.Join(f.opts.Data, "server")
	c, err := controller.Open(ctx, controller.Options{
		Dir: dir, HTTP: f.plan.HTTP, Device: f.plan.Device, MQTT: f.plan.MQTT, HTTPPlain: true, Version: f.opts.Version,
	}, f.log)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, b := range f.boxes {
		if _, err := c.EnrolBox(ctx, filepath.Join(b.dir, "agent", "identity"), b.name, b.site); err != nil {
			return fmt.Errorf("enrol %s: %w", b.name, err)
		}
	}
	if f.login, err = c.LoginURL(ctx); err != nil {
		return err
	}
	if f.plan.Token == "" {
		if f.plan.Token, err = c.NewAPIToken(ctx, "demo", "owner", tokenLife); err != nil {
			return err
		}
		j := durable.Journal{Path: filepath.Join(f.opts.Data, "up.json"), Version: planVersion}
		if err := j.Save(f.plan); err != nil {
			return err
		}
	}
	f.token = f.plan.Token
	context := map[string]string{"url": c.URL(), "token": f.token, "signing_key": c.SigningKeyPath()}
	data, err := json.MarshalIndent(context, "", "  ")
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(f.opts.Data, "context.json"), append(data, '\n'), 0o600); err != nil {
		return err
	}
	return writeConfig(filepath.Join(dir, "server.yaml"), map[string]any{
		"state": dir, "http": f.plan.HTTP, "device": f.plan.Device, "mqtt": f.plan.MQTT, "http_plain": true,
	}, nil)
}

// furnishBox gives a box its camera frames, configuration and first agent.
func (f *Fleet) furnishBox(ctx context.Context, b box) error {
	for _, sub := range []string{"agent/models", "runner", "root"} {
		if err := os.MkdirAll(filepath.Join(b.dir, sub), 0o755); err != nil {
			return err
		}
	}
	frames := filepath.Join(b.dir, "frames")
	if _, err := os.Stat(filepath.Join(frames, labels.TruthFile)); errors.Is(err, fs.ErrNotExist) {
		if err := labels.WriteClip(filepath.Join(b.dir, "clip.wav")); err != nil {
			return err
		}
		if err := labels.WriteFolder(frames, framesPerCamera, int64(1000*b.seed)); err != nil {
			return err
		}
	}
	if err := f.configureBox(b); err != nil {
		return err
	}
	state := filepath.Join(b.dir, "launcher")
	programs, err := fs.Glob(os.DirFS(state), "slots/*/agent")
	if err != nil {
		return err
	}
	if len(programs) == 0 { // or an earlier start was ended in the midst of this
		cmd := exec.CommandContext(ctx, f.bin("edgeherd-launcher"), "install", "--state", state, f.bin("edgeherd-agent"))
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("install agent: %w: %s", err, out)
		}
	}
	return nil
}

func (f *Fleet) configureBox(b box) error {
	state := filepath.Join(b.dir, "agent")
	if err := writeConfig(filepath.Join(b.dir, "agent.yaml"), map[string]any{
		"state": state, "root": filepath.Join(b.dir, "root"), "runner": b.socket, "secrets": b.secrets,
	}, map[string]any{
		// A disk that wears commits once a minute; who looks on wants it sooner.
		"sense_period": "5s", "seal_period": "15s",
		// The power of a simulated board is a model; measuring it takes seconds.
		"measure_heat": false,
	}); err != nil {
		return err
	}
	library := filepath.Join(f.opts.Assets, "onnxruntime", "linux-"+runtime.GOARCH, "libonnxruntime.so.1")
	return writeConfig(filepath.Join(b.dir, "runner.yaml"), map[string]any{
		"http": f.plan.OIP[b.name], "socket": b.socket, "state": filepath.Join(b.dir, "runner"),
		"active": filepath.Join(state, "models", "active.json"), "identity": filepath.Join(state, "identity"), "library": library, "secrets": b.secrets,
		"inputs": []map[string]any{
			{"name": "dock-camera", "kind": "folder", "pipeline": "label-reader", "path": filepath.Join(b.dir, "frames"), "interval": "4s"},
			{"name": "dock-microphone", "kind": "audio", "pipeline": "voice-activity", "path": filepath.Join(b.dir, "clip.wav"), "interval": "15s"},
		},
	}, nil)
}
