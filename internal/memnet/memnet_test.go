package memnet_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/memnet"
)

// connect returns both ends of a connection from box to srv:1.
func connect(t *testing.T, n *memnet.Network) (near, far net.Conn) {
	t.Helper()
	l, err := n.Listen("srv:1")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	near, err = n.Dial(t.Context(), "box", "srv:1")
	if err != nil {
		t.Fatal(err)
	}
	far = <-accepted
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}

func readAll(t *testing.T, c net.Conn, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBytesAndTheEndArriveInOrder(t *testing.T) {
	near, far := connect(t, memnet.New())
	go func() {
		near.Write([]byte("first "))
		near.Write([]byte("second"))
		near.Close()
	}()
	got, err := io.ReadAll(far)
	if err != nil || string(got) != "first second" {
		t.Fatalf("got %q, %v", got, err)
	}
	if _, err := far.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("write to a closed peer: %v", err)
	}
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}

func TestBothSidesMayWriteBeforeReading(t *testing.T) {
	near, far := connect(t, memnet.New())
	big := bytes.Repeat([]byte("x"), 100<<10)
	for _, c := range []net.Conn{near, far} {
		if _, err := c.Write(big); err != nil {
			t.Fatal(err)
		}
	}
	readAll(t, near, len(big))
	readAll(t, far, len(big))
}

func TestAWriterWaitsForRoomUntilItsDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := connect(t, memnet.New())
		near.SetWriteDeadline(time.Now().Add(time.Hour))
		start := time.Now()
		n, err := near.Write(make([]byte, 1<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != time.Hour {
			t.Fatalf("wrote %d after %v: %v", n, time.Since(start), err)
		}
		if len(readAll(t, far, n)) != n {
			t.Fatal("what was written is not there")
		}
	})
}

func TestDeadlinesMoveWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, _ := connect(t, memnet.New())
		start := time.Now()
		near.SetReadDeadline(start.Add(time.Hour))
		go func() {
			time.Sleep(time.Minute)
			near.SetReadDeadline(start.Add(2 * time.Minute))
		}()
		_, err := near.Read(make([]byte, 1))
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() || time.Since(start) != 2*time.Minute {
			t.Fatalf("after %v: %v", time.Since(start), err)
		}
	})
}

func TestLatencyDelaysBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		n.SetLatency(300 * time.Millisecond)
		near, far := connect(t, n)
		start := time.Now()
		near.Write([]byte("x"))
		readAll(t, far, 1)
		if got := time.Since(start); got != 300*time.Millisecond {
			t.Errorf("arrived after %v", got)
		}
	})
}

func TestCutResetsAndRefuses(t *testing.T) {
	n := memnet.New()
	near, far := connect(t, n)
	n.Cut("box", "srv:1")
	for _, c := range []net.Conn{near, far} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("read: %v", err)
		}
		if _, err := c.Write([]byte("x")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("write: %v", err)
		}
	}
	if _, err := n.Dial(t.Context(), "box", "srv:1"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("dial: %v", err)
	}
	n.Heal("box", "srv:1")
	n.CutAll("srv")
	if _, err := n.Dial(t.Context(), "other", "srv:1"); !errors.Is(err, syscall.ENETUNREACH) {
		t.Errorf("dial a host that is cut off: %v", err)
	}
	n.HealAll("srv")
	connect(t, n)
}

func TestBlackholeSwallowsWithoutAWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		near, far := connect(t, n)
		n.Blackhole("box", "srv:1")
		if _, err := near.Write([]byte("lost")); err != nil {
			t.Fatal(err)
		}
		far.Close()
		near.SetReadDeadline(time.Now().Add(time.Hour))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the end of the connection came through: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := n.Dial(ctx, "box", "srv:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("dial: %v", err)
		}
		n.Heal("box", "srv:1")
		if _, err := near.Write([]byte("more")); err != nil {
			t.Errorf("a connection that lost bytes: %v", err)
		}
		connect(t, n)
	})
}

func TestNamesAreTakenOnce(t *testing.T) {
	n := memnet.New()
	l, err := n.Listen("srv:1")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.Listen("srv:1"); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("second listener: %v", err)
	}
	l.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept: %v", err)
	}
	if _, err := n.Dial(t.Context(), "box", "srv:1"); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v", err)
	}
}

func TestTLSRunsInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := connect(t, memnet.New())
		cert, pool := certificate(t)
		server := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{cert}})
		go func() {
			io.Copy(server, server)
			server.Close()
		}()
		client := tls.Client(near, &tls.Config{RootCAs: pool, ServerName: "srv"})
		client.Write([]byte("echo"))
		if got := readAll(t, client, 4); string(got) != "echo" {
			t.Errorf("got %q", got)
		}
		client.Close()
	})
}

func certificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"srv"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}
