package loadgen

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Faults are the chances, per block, of what goes wrong.
type Faults struct {
	Drop    float64 // a DATA is not sent, or an ACK not heard
	Dup     float64 // a DATA goes out twice, or again after its ACK
	Cut     float64 // the connection breaks in the middle of a DATA
	Restart float64 // the process begins a new life; what it holds stays
	Clock   float64 // the clock jumps: to 1970, by an hour, by ten years, or right
}

// allFaults has every fault often enough to matter in a short run.
var allFaults = Faults{Drop: 0.02, Dup: 0.02, Cut: 0.01, Restart: 0.01, Clock: 0.01}

// ParseFaults reads "none", "all" or a list such as "drop=0.02,cut=0.01".
func ParseFaults(text string) (Faults, error) {
	var f Faults
	switch text {
	case "", "none":
		return f, nil
	case "all":
		return allFaults, nil
	}
	into := map[string]*float64{"drop": &f.Drop, "dup": &f.Dup, "cut": &f.Cut, "restart": &f.Restart, "clock": &f.Clock}
	for part := range strings.SplitSeq(text, ",") {
		name, value, _ := strings.Cut(part, "=")
		p, err := strconv.ParseFloat(value, 64)
		if into[name] == nil || err != nil || !(p >= 0 && p <= 0.5) {
			return Faults{}, fmt.Errorf("fault %q: want all, none, or a list of drop, dup, cut, restart and clock, each with a chance per block up to 0.5, such as drop=0.02,cut=0.01", part)
		}
		*into[name] = p
	}
	return f, nil
}

// Options of a Run. Addr and Boxes are required, and TLS with Certificates
// unless the controller is spoken to without.
type Options struct {
	Addr  netip.AddrPort
	Boxes []identity.ID // a device each
	// TLS is the client's side without certificates, nil for plain TCP;
	// Certificates has one for each box.
	TLS          *tls.Config
	Certificates []tls.Certificate
	// Twins is how many boxes get a second device that goes on from the state
	// of the first: in turns from a disk image and from a memory snapshot.
	Twins  int
	Seed   uint64
	Faults Faults
	// Every is the time between two blocks of a device, whether they get
	// through or not (open loop). 0: the next block follows the ACK (closed
	// loop), Window at a time.
	Every time.Duration
	// For is how long blocks are made, after all are connected. Default 1 min.
	For time.Duration
	// Enough ends the making of blocks before the time of For is over when it is
	// closed; nil: not.
	Enough <-chan struct{}
	// Window is how many blocks may be in flight. Default 1 in a closed loop,
	// else 8, as WELCOME has it.
	Window int
	// Resend is when a block goes out again; doubles. Default 30 s.
	Resend time.Duration
	// MaxPause bounds the wait before a reconnect. Default 5 min.
	MaxPause time.Duration
	// Storms is how often in the time of For StormShare of all connections break
	// off at once; they come back within StormSpread. Defaults 0, 1, 30 s.
	Storms      int
	StormShare  float64
	StormSpread time.Duration
	// Handshakes is how many go on at once. Default 64.
	Handshakes int
	// Connect and Drain bound the wait for all to be connected, and for the last
	// ACK. Defaults 5 min and 2 min.
	Connect, Drain time.Duration
	// Controller is the process whose CPU and memory are watched; 0: none.
	Controller Process
	// Ledger gets every block; nil: none.
	Ledger io.Writer
	// Obeyed has devices do as they are told, at once, and is called when the
	// controller has acknowledged the report of that: box by its number, and which
	// generation of its desired state. Several goroutines call it. nil: what is
	// desired is not looked at.
	Obeyed func(box int, generation uint64, at time.Time)
	// Progress is called every five seconds; nil: not.
	Progress func(Progress)
	// WallClock stamps blocks. Default time.Now.
	WallClock func() time.Time
}

func (o Options) withDefaults() (Options, error) {
	switch {
	case len(o.Boxes) == 0:
		return o, errors.New("load: no boxes")
	case o.TLS != nil && len(o.Certificates) < len(o.Boxes):
		return o, fmt.Errorf("load: %d certificates for %d boxes", len(o.Certificates), len(o.Boxes))
	case o.Twins > len(o.Boxes):
		return o, fmt.Errorf("load: %d twins of %d boxes", o.Twins, len(o.Boxes))
	case !o.Addr.IsValid():
		return o, errors.New("load: no address")
	}
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.For, time.Minute)
	set(&o.Resend, 30*time.Second)
	set(&o.MaxPause, 5*time.Minute)
	set(&o.StormSpread, 30*time.Second)
	set(&o.Connect, 5*time.Minute)
	set(&o.Drain, 2*time.Minute)
	if o.StormShare == 0 {
		o.StormShare = 1
	}
	if o.Window == 0 {
		o.Window = 8
		if o.Every == 0 {
			o.Window = 1
		}
	}
	if o.Handshakes == 0 {
		o.Handshakes = 64
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	return o, nil
}
