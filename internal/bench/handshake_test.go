package bench

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// handshakes of each kind; those of the two kinds take turns, a tenth at a time,
// so that what else the machine does meets both.
const handshakes = 10_000

// handshakeCost shakes hands with mutual TLS 1.3 over the loopback: once as the
// ports of boxes do, where the database is asked how the box stands, once with a
// bare crypto/tls server that trusts the same authority. Both ends are in this
// process, and the client's share is the same in both.
func handshakeCost(t *testing.T) []Figure {
	s, err := store.Open(context.Background(), store.Options{Path: filepath.Join(t.TempDir(), "store.db")})
	check(t, err)
	defer s.Close()
	ca, err := identity.OpenCA(filepath.Join(t.TempDir(), "ca"), nil)
	check(t, err)
	server, err := ca.IssueServer([]string{"127.0.0.1"})
	check(t, err)
	id := identity.NewID()
	check(t, s.AddBox(context.Background(), id, "till-3", "berlin-1"))
	client := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), ServerName: "127.0.0.1", Certificates: []tls.Certificate{boxCert(t, ca, id)}}
	ours := shaker(t, ca.ServerTLS(server, func(id identity.ID) error {
		m, err := s.Membership(context.Background(), id)
		if err == nil && !m.State.MayConnect() {
			err = errors.New("refused")
		}
		return err
	}), client)
	bare := shaker(t, &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAndVerifyClientCert,
		ClientCAs: ca.Pool(), SessionTicketsDisabled: true,
	}, client)
	var cost, yardstick time.Duration
	for range 10 {
		cost += ours(handshakes / 10)
		yardstick += bare(handshakes / 10)
	}
	us := func(d time.Duration) float64 { return float64(d.Microseconds()) / handshakes }
	return []Figure{Figure{Name: "cpu", Value: us(cost), Unit: "µs", Goal: Goal{AtMost: 1.3}}.Against("bare crypto/tls", us(yardstick))}
}

func boxCert(t *testing.T, ca *identity.CA, id identity.ID) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	cert, err := ca.IssueDevice(id, "berlin-1", identity.Keys{Sign: key.Public()})
	check(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	pair, err := tls.X509KeyPair(cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	check(t, err)
	return pair
}

// shaker returns a function that shakes hands n times and tells what it cost.
func shaker(t *testing.T, server, client *tls.Config) func(n int) time.Duration {
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	check(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Write([]byte{1}) // the handshake
			}()
		}
	}()
	return func(n int) time.Duration {
		before := cpuTime(t)
		for range n {
			raw, err := net.Dial("tcp", l.Addr().String())
			check(t, err)
			conn := tls.Client(raw, client)
			_, err = io.ReadFull(conn, make([]byte, 1))
			check(t, err)
			conn.Close()
		}
		return cpuTime(t) - before
	}
}
