package peer

import (
	"net"
	"testing"
)

// TestOneMachineDoesNotTakeAllConnections: what is beyond the bounds is closed,
// and who leaves makes room.
func TestOneMachineDoesNotTakeAllConnections(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := limit(inner)
	defer l.Close()
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", inner.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	var first net.Conn
	for range maxConnsEach {
		dial()
		first = <-accepted
		defer first.Close()
	}
	if _, err := dial().Read(make([]byte, 1)); err == nil { // no deadline: it is closed, or the test hangs
		t.Error("one too many is held")
	}
	first.Close()
	first.Close() // counts once
	dial()
	again := <-accepted
	defer again.Close()
	if l.total != maxConnsEach || len(l.each) != 1 {
		t.Errorf("%d connections of %v", l.total, l.each)
	}
	for i := l.total; i < maxConns; i++ {
		if !l.enter(string(rune('a' + i))) {
			t.Fatalf("connection %d of another address is refused", i)
		}
	}
	if l.enter("192.0.2.1") {
		t.Error("more connections than the bound")
	}
}
