package e2e

import (
	"encoding/binary"
	"io"
	"net"
	"sync/atomic"
	"testing"
)

// thief stands between machines and the pages of a controller. Once, when told
// to, it lets a request through and keeps the answer: the controller has done
// what was asked, and the machine does not know.
type thief struct {
	net.Listener
	losing atomic.Bool // the next answer to a request
}

func newThief(t *testing.T) *thief {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	return &thief{Listener: l}
}

// serve ends with the listener.
func (p *thief) serve(controller string) {
	for {
		machine, err := p.Accept()
		if err != nil {
			return
		}
		go p.pass(machine, controller)
	}
}

func (p *thief) pass(machine net.Conn, controller string) {
	defer machine.Close()
	far, err := net.Dial("tcp", controller)
	if err != nil {
		return // the machine tries again
	}
	defer far.Close()
	var stolen atomic.Bool
	go func() {
		defer far.Close()
		for {
			record, err := readRecord(machine)
			if err != nil {
				return
			}
			if isRequest(record) && p.losing.CompareAndSwap(true, false) {
				stolen.Store(true)
			}
			if _, err := far.Write(record); err != nil {
				return
			}
		}
	}()
	for {
		record, err := readRecord(far)
		if err != nil || stolen.Load() { // the answer was made
			return
		}
		if _, err := machine.Write(record); err != nil {
			return
		}
	}
}

// readRecord reads one record of TLS (RFC 8446, section 5.1) with its header.
func readRecord(r io.Reader) ([]byte, error) {
	head := make([]byte, 5)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	record := append(head, make([]byte, binary.BigEndian.Uint16(head[3:]))...)
	_, err := io.ReadFull(r, record[5:])
	return record, err
}

// isRequest: sealed, and longer than what ends a handshake without a certificate
// of the client (about 120 bytes).
func isRequest(record []byte) bool { return record[0] == 23 && len(record) > 400 }
