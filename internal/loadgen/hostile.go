package loadgen

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Hostile is one enrolled box that means harm, at an address of its own.
type Hostile struct {
	Addr        netip.AddrPort
	Box         identity.ID
	TLS         *tls.Config
	Certificate tls.Certificate
	// Source is where it connects from. Default 127.0.0.99 for a loopback Addr.
	Source netip.Addr
}

// Attacks counts what a hostile box did.
type Attacks struct {
	Connections int64 `json:"connections"`
	Bytes       int64 `json:"bytes_sent"`
	Messages    int64 `json:"messages"`
}

// Run attacks in every way at once until ctx is done: valid blocks of 80 KB as
// fast as they are taken, bytes that are no message, packets beyond the limit,
// half of packets, connections that say nothing before and after TLS, and
// reconnects without end.
func (h Hostile) Run(ctx context.Context) Attacks {
	if !h.Source.IsValid() && h.Addr.Addr().IsLoopback() {
		h.Source = netip.AddrFrom4([4]byte{127, 0, 0, 99})
	}
	var a attack
	var all sync.WaitGroup
	for _, way := range []func(context.Context, *attack) error{
		h.flood, h.malformed, h.oversized, h.half, h.reconnect, h.reconnect,
	} {
		all.Go(func() {
			for ctx.Err() == nil {
				_ = way(ctx, &a) // being thrown out is what it is for
				pause(ctx, 10*time.Millisecond)
			}
		})
	}
	for range 64 {
		all.Go(func() {
			for ctx.Err() == nil {
				_ = h.mute(ctx, &a)
				pause(ctx, 100*time.Millisecond)
			}
		})
	}
	all.Wait()
	return Attacks{a.connections.Load(), a.bytes.Load(), a.messages.Load()}
}

type attack struct{ connections, bytes, messages atomic.Int64 }

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// dial opens a TCP connection that ends with ctx.
func (h Hostile) dial(ctx context.Context, a *attack) (net.Conn, func(), error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	if h.Source.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(h.Source, 0))
	}
	conn, err := d.DialContext(ctx, "tcp", h.Addr.String())
	if err != nil {
		return nil, nil, err
	}
	a.connections.Add(1)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	return conn, func() { stop(); conn.Close() }, nil
}

// join is dial, TLS, CONNECT and SUBSCRIBE.
func (h Hostile) join(ctx context.Context, a *attack) (net.Conn, func(), error) {
	raw, end, err := h.dial(ctx, a)
	if err != nil {
		return nil, nil, err
	}
	cfg := h.TLS.Clone()
	cfg.Certificates = []tls.Certificate{h.Certificate}
	conn := tls.Client(raw, cfg)
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return nil, end, err
	}
	var sid wire.SID
	rand.Read(sid[:]) // never fails since Go 1.24
	opening := appendConnect(nil, connect{clientID: wire.ClientID(h.Box, sid), keepAlive: 60})
	if _, err := conn.Write(appendSubscribe(opening, 1, wire.TopicDown.For(h.Box))); err != nil {
		end()
		return nil, nil, err
	}
	var ack [9]byte // CONNACK and SUBACK
	if _, err := conn.Read(ack[:]); err != nil {
		end()
		return nil, nil, err
	}
	return conn, end, nil
}

func (h Hostile) write(conn net.Conn, a *attack, p []byte) error {
	if err := conn.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		return err
	}
	n, err := conn.Write(p)
	a.bytes.Add(int64(n))
	a.messages.Add(1)
	return err
}

// flood sends valid blocks of the greatest size and never reads.
func (h Hostile) flood(ctx context.Context, a *attack) error {
	conn, end, err := h.join(ctx, a)
	if err != nil {
		return err
	}
	defer end()
	b := wire.Block{Kind: 99, Count: 1, Payload: make([]byte, wire.MaxPayloadBytes)}
	b.Key.Lane = wire.LaneBulk
	rand.Read(b.Payload)
	rand.Read(b.Key.SID[:])
	for seq := uint64(1); ; seq++ {
		b.Key.Seq = seq
		binary.LittleEndian.PutUint64(b.Payload, seq)
		if err := wire.Seal(&b); err != nil {
			return err
		}
		payload, err := wire.Encode(wire.Data{Blocks: []wire.Block{b}})
		if err != nil {
			return err
		}
		if err := h.publish(conn, a, uint16(seq), payload); err != nil {
			return err
		}
	}
}

func (h Hostile) publish(conn net.Conn, a *attack, id uint16, payload []byte) error {
	return h.write(conn, a, appendPublish(nil, wire.TopicData.For(h.Box), packet{qos: 1, id: max(id, 1), payload: payload}))
}

// malformed sends large messages that are CBOR up to a point.
func (h Hostile) malformed(ctx context.Context, a *attack) error {
	conn, end, err := h.join(ctx, a)
	if err != nil {
		return err
	}
	defer end()
	junk := make([]byte, 100_000)
	rand.Read(junk)
	copy(junk, []byte{0xa3, 0x01, 0x99, 0x01, 0x00}) // a map, an array of 256
	for id := uint16(1); ; id++ {
		if err := h.publish(conn, a, id, junk); err != nil {
			return err
		}
	}
}

// oversized announces more than the broker takes.
func (h Hostile) oversized(ctx context.Context, a *attack) error {
	conn, end, err := h.join(ctx, a)
	if err != nil {
		return err
	}
	defer end()
	return h.write(conn, a, appendPublish(nil, wire.TopicData.For(h.Box), packet{qos: 1, id: 1, payload: make([]byte, 2*wire.MaxMessageBytes)}))
}

// half sends half of a large packet and stays.
func (h Hostile) half(ctx context.Context, a *attack) error {
	conn, end, err := h.join(ctx, a)
	if err != nil {
		return err
	}
	defer end()
	whole := appendPublish(nil, wire.TopicData.For(h.Box), packet{qos: 1, id: 1, payload: make([]byte, 100_000)})
	if err := h.write(conn, a, whole[:50_000]); err != nil {
		return err
	}
	pause(ctx, 5*time.Second)
	return nil
}

// reconnect does nothing but that.
func (h Hostile) reconnect(ctx context.Context, a *attack) error {
	_, end, err := h.join(ctx, a)
	if err == nil {
		end()
	}
	return err
}

// mute connects and says nothing, or stops in the middle of TLS.
func (h Hostile) mute(ctx context.Context, a *attack) error {
	conn, end, err := h.dial(ctx, a)
	if err != nil {
		return err
	}
	defer end()
	if a.connections.Load()%2 == 0 {
		if _, err := conn.Write([]byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00}); err != nil {
			return fmt.Errorf("begin TLS: %w", err)
		}
	}
	var one [1]byte
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Read(one[:]); err == nil {
		return errors.New("the broker spoke first")
	}
	return nil
}
