package fleet

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/freeport"
	"github.com/edgeherd/edgeherd/internal/loadgen"
)

// How long a controller may take to listen, and to end by itself.
const (
	startWait = 2 * time.Minute
	endWait   = 2 * time.Minute
)

// Controller is a controller process of our own.
type Controller struct {
	loadgen.Process
	MQTT netip.AddrPort
	Log  string // file with what it printed
	cmd  *exec.Cmd
	done chan error
}

// Start runs a controller on a state directory. Program is the first part of
// its command line; the flags of `edgeherd server run` are added.
func Start(ctx context.Context, state string, program ...string) (*Controller, error) {
	ports, err := freePorts()
	if err != nil {
		return nil, err
	}
	log := filepath.Join(state, "controller.log")
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("make log of the controller: %w", err)
	}
	defer out.Close()
	args := append(program[1:len(program):len(program)], "server", "run", "--state", state,
		"--config", os.DevNull, "--http-plain", "--http", ports[0], "--device", ports[1], "--mqtt", ports[2])
	cmd := exec.Command(program[0], args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is ours to pass on
	c := &Controller{Log: log, cmd: cmd, done: make(chan error, 1), MQTT: netip.MustParseAddrPort(ports[2])}
	return c, c.begin(ctx)
}

// freePorts finds three.
func freePorts() (ports [3]string, err error) {
	for i := range ports {
		if ports[i], err = freeport.Address(); err != nil {
			return ports, err
		}
	}
	return ports, nil
}

func (c *Controller) begin(ctx context.Context) error {
	if err := c.cmd.Start(); err != nil {
		return fmt.Errorf("start controller: %w", err)
	}
	go func() { c.done <- c.cmd.Wait() }()
	c.PID = c.cmd.Process.Pid
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	deadline := time.NewTimer(startWait)
	defer deadline.Stop()
	for {
		select {
		case err := <-c.done:
			c.done <- err
			return fmt.Errorf("the controller ended at once (%v); see %s", err, c.Log)
		case <-deadline.C:
			return errors.Join(fmt.Errorf("the controller does not listen within %s; see %s", startWait, c.Log), c.Stop())
		case <-ctx.Done():
			return errors.Join(ctx.Err(), c.Stop())
		case <-tick.C:
		}
		if conn, err := net.Dial("tcp", c.MQTT.String()); err == nil {
			conn.Close()
			return nil
		}
	}
}

// Stop ends the controller and waits for its end.
func (c *Controller) Stop() error {
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop controller: %w", err)
	}
	select {
	case err := <-c.done:
		if err != nil {
			return fmt.Errorf("the controller ended with %w; see %s", err, c.Log)
		}
		return nil
	case <-time.After(endWait):
		err := c.cmd.Process.Kill()
		<-c.done
		return errors.Join(fmt.Errorf("the controller did not end within %s", endWait), err)
	}
}
