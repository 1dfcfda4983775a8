package mqttws

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"testing"
)

// hijacked is the answer to a request whose connection is taken over.
type hijacked struct {
	http.ResponseWriter
	conn net.Conn
}

func (h hijacked) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return h.conn, bufio.NewReadWriter(bufio.NewReader(h.conn), bufio.NewWriter(h.conn)), nil
}

// FuzzFrames: whatever a box sends after the upgrade, the stream gives no more
// than came, ends with an error and stays ended.
func FuzzFrames(f *testing.F) {
	mask := []byte{1, 2, 3, 4}
	frame := func(head byte, payload string) []byte {
		b := append([]byte{head, 0x80 | byte(len(payload))}, mask...)
		for i := range len(payload) {
			b = append(b, payload[i]^mask[i%4])
		}
		return b
	}
	f.Add(frame(0x82, "one"))
	f.Add(append(frame(0x02, "par"), frame(0x80, "ts")...))
	f.Add(append(frame(0x89, "ping"), frame(0x82, "")...))
	f.Add(append(frame(0x88, "\x03\xe8"), frame(0x82, "late")...))
	f.Add(frame(0x81, "text"))
	f.Add([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		near, far := net.Pipe()
		go func() {
			far.Write(data)
			far.Close()
		}()
		go io.Copy(io.Discard, far)
		header := http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
			"Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="}, "Sec-Websocket-Protocol": {subprotocol}}
		conn, err := Accept(hijacked{conn: near}, (&http.Request{Method: http.MethodGet, Header: header, Host: "ctl"}).WithContext(t.Context()))
		if err != nil {
			near.Close()
			return // the other side was gone before the answer
		}
		defer conn.Close()
		got, _ := io.ReadAll(conn)
		if len(got) > len(data) {
			t.Errorf("%d bytes of %d", len(got), len(data))
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("after its end it gives %d bytes, %v", n, err)
		}
	})
}

// FuzzUpgradeAnswer: what comes in place of 101 is an error, and closes the
// connection. No answer here can be right: its key is drawn by Client.
func FuzzUpgradeAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 302 Found\r\nLocation: http://portal\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n<html>"))
	f.Add([]byte("\x15\x03\x03\x00\x02\x02\x28"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer far.Close()
			if _, err := http.ReadRequest(bufio.NewReader(far)); err == nil {
				far.Write(answer)
			}
		}()
		conn, err := Client(context.Background(), near, "ctl:8443")
		if conn != nil || err == nil {
			t.Errorf("%v, %v", conn, err)
		}
		<-done // the connection was closed, or all was read
		if _, err := near.Write([]byte("x")); err == nil {
			t.Error("the connection is open")
		}
	})
}
