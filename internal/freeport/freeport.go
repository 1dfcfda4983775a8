// Package freeport finds ports for programs that must be told one before they
// start. A port that the system hands out (":0") and that is closed again may
// belong to somebody else a moment later, for the system hands the same range
// out to every connection of the machine; on a busy one that happens. These
// ports are from below that range, where only those look who look for one, and
// of those who ask here each gets another.
//
// The one rule a caller can break: whoever asks must live as long as the port
// is wanted, for the claim on it ends with the process.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"syscall"
)

// Ports from first to last-1 are free on a default Linux: services stay below,
// and the system hands out those from last on (net.ipv4.ip_local_port_range).
const first, last = 10_000, 32_768

// Address is "127.0.0.1:port" with a port on which nobody listens, neither by
// TCP nor by UDP, and which no other process takes or finds here.
func Address() (string, error) {
	var err error
	for range 100 {
		address := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		if err = Take(address); err == nil {
			return address, nil
		}
	}
	return "", fmt.Errorf("find a free port: %w", err)
}

// Take claims the port of address for this process and what it starts, or says
// who is in the way. A program may need seconds to its first listen, and a port
// is free as well while it is killed and started again: the claim covers both.
func Take(address string) error {
	at, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return err
	}
	claim, err := claim(at.Port)
	if err != nil {
		return err
	}
	if err := free(address); err != nil {
		return errors.Join(err, syscall.Close(claim))
	}
	return nil
}

// claim binds a name that one process of the machine can have, or of the network
// namespace, as with ports. It is in no folder and ends with its process.
func claim(port int) (int, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("make the claim on a port: %w", err)
	}
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: fmt.Sprintf("@edgeherd-port-%d", port)}); err != nil {
		return 0, errors.Join(fmt.Errorf("port %d is claimed by another process: %w", port, err), syscall.Close(fd))
	}
	return fd, nil
}

// free tells whether nobody listens at address.
func free(address string) error {
	stream, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if err := stream.Close(); err != nil {
		return err
	}
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	return packets.Close()
}
