package freeport_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/freeport"
)

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
