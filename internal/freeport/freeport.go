// Package freeport finds ports for programs that must be told one before they
// start. A port that the system hands out (":0") and that is closed again may
// belong to somebody else a moment later, for the system hands the same range
// out to every connection of the machine; on a busy one that happens. These
// ports are from below that range, where only those look who look for one.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports from first to last-1 are free on a default Linux: services stay below,
// and the system hands out those from last on (net.ipv4.ip_local_port_range).
const first, last = 10_000, 32_768

// Address is "127.0.0.1:port" with a port on which nobody listened a moment
// ago, neither by TCP nor by UDP.
func Address() (string, error) {
	var err error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		var stream net.Listener
		if stream, err = net.Listen("tcp", address); err != nil {
			continue
		}
		stream.Close()
		var packets net.PacketConn
		if packets, err = net.ListenPacket("udp", address); err != nil {
			continue
		}
		packets.Close()
		return address, nil
	}
	return "", fmt.Errorf("find a free port: %w", err)
}
