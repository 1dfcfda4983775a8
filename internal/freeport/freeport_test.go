package freeport_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/freeport"
)

// asOther has TestMain be another process, which takes this address, or finds
// one when it is "any", and says which it has.
const asOther = "EDGEHERD_FREEPORT_TAKES"

func TestMain(m *testing.M) {
	address := os.Getenv(asOther)
	var err error
	switch address {
	case "":
		os.Exit(m.Run())
	case "any":
		address, err = freeport.Address()
	default:
		err = freeport.Take(address)
	}
	if err != nil {
		address = err.Error()
	}
	fmt.Print(address)
}

// other is what another process says, which has ended by now.
func other(t *testing.T, address string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), asOther+"="+address)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// The promise that makes the port safe: the system gives it to nobody who asks
// for any port, such as each connection that a test beside makes.
func TestTheSystemHandsThesePortsToNobody(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		t.Skip(err)
	}
	if low := strings.Fields(string(text))[0]; low != "32768" {
		t.Skipf("this machine hands out ports from %s on", low)
	}
	for range 50 {
		address, err := freeport.Address()
		if err != nil {
			t.Fatal(err)
		}
		at, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if at.Port < 10_000 || at.Port >= 32_768 {
			t.Errorf("got port %d, which the system may hand out", at.Port)
		}
		l, err := net.Listen("tcp", address)
		if err != nil {
			t.Errorf("the port is not free: %v", err)
			continue
		}
		l.Close()
	}
}

// A program listens seconds after its port was chosen, and not while it is
// killed and started again.
func TestAPortThatNobodyListensOnYetIsTaken(t *testing.T) {
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	if says := other(t, address); !strings.Contains(says, "claimed by another process") {
		t.Errorf("another process asks: %q", says)
	}
	if err := freeport.Take(address); err == nil {
		t.Error("given twice by one process")
	}
}

func TestAClaimEndsWithItsProcess(t *testing.T) {
	address := other(t, "any")
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := freeport.Take(address); err == nil {
		t.Error("taken although somebody listens")
	}
	if says := other(t, address); !strings.Contains(says, "in use") {
		t.Errorf("somebody listens there: %q", says)
	}
	l.Close()
	for range 2 { // neither the refusals above nor a process that has ended is in the way
		if says := other(t, address); says != address {
			t.Errorf("it is free: %q", says)
		}
	}
}
