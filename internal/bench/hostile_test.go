package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/loadgen"
	"github.com/edgeherd/edgeherd/internal/loadgen/fleet"
)

// asHostile has TestMain be a hostile box.
const asHostile = "EDGEHERD_BENCH_HOSTILE"

// hostileLoad is what 200 boxes notice of one more that means harm: the 99th
// percentile of publish-to-ACK in five pairs of rounds, without and with it.
func hostileLoad(t *testing.T) []Figure {
	const n = 200
	b := newTestbed(t, n+1, program(t, "edgeherd"))
	round := func() loadgen.Report { return b.run(n, loadgen.Options{Every: time.Second, For: 20 * time.Second}) }
	round() // the first one finds nothing in any cache
	var ratios, alone, beside []float64
	var did loadgen.Attacks
	for range 5 {
		a := round().Latency.P99Ms
		end := b.besiege(b.boxes[n])
		h99 := round().Latency.P99Ms
		did = end()
		alone, beside, ratios = append(alone, a), append(beside, h99), append(ratios, h99/a)
	}
	t.Logf("ratios %.2f; the last round had %d connections, %d messages and %.1f MB of the hostile box", ratios, did.Connections, did.Messages, float64(did.Bytes)/1e6)
	return []Figure{
		Figure{Value: median(beside), Unit: "ms", Goal: Goal{AtMost: 1.25}}.Against("p99 without the hostile box", median(alone)),
		{Name: "median-of-ratios", Value: median(ratios), Unit: "ratio", Goal: Goal{AtMost: 1.25}},
	}
}

// besiege starts a hostile box; what it returns ends it.
//
// It is a process of the lowest priority, for it would be a machine of its own:
// what it does may cost the controller time, but its own arithmetic shall not
// be taken from those who are measured.
func (b *testbed) besiege(id identity.ID) (end func() loadgen.Attacks) {
	b.t.Helper()
	cmd := exec.CommandContext(b.t.Context(), "nice", "-n", "19", os.Args[0], b.state, string(id), b.ctl.MQTT.String())
	cmd.Env = append(os.Environ(), asHostile+"=1")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	check(b.t, err)
	check(b.t, cmd.Start())
	return func() (did loadgen.Attacks) {
		b.t.Helper()
		check(b.t, cmd.Process.Signal(syscall.SIGTERM))
		check(b.t, json.NewDecoder(out).Decode(&did))
		check(b.t, cmd.Wait())
		if did.Connections == 0 || did.Messages == 0 {
			b.t.Fatalf("the hostile box did nothing: %+v", did)
		}
		return did
	}
}

// attack is the hostile box: args are the state of the fleet, its id and the
// address of the broker. It prints what it did.
func attack(ctx context.Context, args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("a hostile box needs state, id and address, got %q", args)
	}
	addr, err := netip.ParseAddrPort(args[2])
	if err != nil {
		return err
	}
	id := identity.ID(args[1])
	certs, conf, err := fleet.Certificates(args[0], []identity.ID{id})
	if err != nil {
		return err
	}
	h := loadgen.Hostile{Addr: addr, Box: id, TLS: conf, Certificate: certs[0]}
	return json.NewEncoder(os.Stdout).Encode(h.Run(ctx))
}
