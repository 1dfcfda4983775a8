package inputs

import (
	"bufio"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net"
	"net/textproto"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/internal/assets"
)

// rtspCamera is as much of an RTSP server (RFC 2326) as one camera needs that
// sends its packets over the same connection. The packets come from ffmpeg.
type rtspCamera struct {
	t       *testing.T
	packets net.PacketConn

	mu       sync.Mutex // guards all below
	requests []string   // method, URL and transport of each that was allowed
}

func (c *rtspCamera) serve(conn net.Conn) {
	defer conn.Close()
	in := textproto.NewReader(bufio.NewReader(conn))
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		head, err := in.ReadMIMEHeader()
		if err != nil {
			return
		}
		method, rest, _ := strings.Cut(line, " ")
		url, _, _ := strings.Cut(rest, " ")
		answer := func(status string, lines ...string) {
			fmt.Fprintf(conn, "RTSP/1.0 %s\r\nCSeq: %s\r\n%s\r\n", status, head.Get("CSeq"), strings.Join(append(lines, ""), "\r\n"))
		}
		want := "Basic " + base64.StdEncoding.EncodeToString([]byte("me:"+streamPassword))
		if method != "OPTIONS" && head.Get("Authorization") != want {
			answer("401 Unauthorized", `WWW-Authenticate: Basic realm="cam"`)
			continue
		}
		c.mu.Lock()
		c.requests = append(c.requests, method+" "+url+" "+head.Get("Transport"))
		c.mu.Unlock()
		switch method {
		case "OPTIONS":
			answer("200 OK", "Public: DESCRIBE, SETUP, PLAY, TEARDOWN")
		case "DESCRIBE":
			sdp := "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=cam\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\nm=video 0 RTP/AVP 32\r\na=control:track0\r\n"
			answer("200 OK", "Content-Type: application/sdp", fmt.Sprintf("Content-Length: %d", len(sdp)))
			fmt.Fprint(conn, sdp)
		case "SETUP":
			answer("200 OK", "Session: 1", "Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
		case "PLAY":
			answer("200 OK", "Session: 1")
			c.play(conn)
			return
		default:
			answer("200 OK", "Session: 1")
		}
	}
}

// play sends packets until the other side has enough.
func (c *rtspCamera) play(conn net.Conn) {
	buf := make([]byte, 2048)
	for {
		n, _, err := c.packets.ReadFrom(buf)
		if err != nil {
			return
		}
		frame := append(binary.BigEndian.AppendUint16([]byte{'$', 0}, uint16(n)), buf[:n]...)
		if _, err := conn.Write(frame); err != nil {
			return
		}
	}
}

// TestRTSPCameraIsFollowed: over TCP, with its password, by a real ffmpeg.
func TestRTSPCameraIsFollowed(t *testing.T) {
	t.Parallel()
	ffmpeg := assets.Program(t, "ffmpeg")
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	sender := exec.CommandContext(t.Context(), ffmpeg, "-loglevel", "error", "-re", "-f", "lavfi", "-i", "testsrc=size=320x240:rate=10",
		"-c:v", "mpeg2video", "-g", "5", "-threads", "1", "-f", "rtp", "rtp://"+packets.LocalAddr().String()+"?pkt_size=1200")
	if err := sender.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sender.Process.Kill(); _ = sender.Wait() }()
	cam := &rtspCamera{t: t, packets: packets}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { cam.serve(conn) })
		}
	})
	defer wg.Wait()
	defer packets.Close()
	defer l.Close()
	cfg, err := Source{Name: "cam", Kind: "stream", Pipeline: "look", URL: "rtsp://" + l.Addr().String() + "/live?channel=1", FFmpeg: ffmpeg,
		Username: "me", PasswordFile: secretFile(t, streamPassword)}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	s := newStream(cfg, pipeline.New("look", nil, looker{}), time.Now, testLog())
	stop := runStream(t, s)
	defer stop()
	for range 3 {
		it, err := s.next(t.Context())
		if err != nil || it.frame.W != 64 || it.frame.H != 48 {
			t.Fatalf("frame of %d × %d, %v; want 64 × 48", it.frame.W, it.frame.H, err)
		}
	}
	cam.mu.Lock()
	defer cam.mu.Unlock()
	asked := strings.Join(cam.requests, "\n")
	if !strings.Contains(asked, "SETUP") || !strings.Contains(asked, "RTP/AVP/TCP") || strings.Contains(asked, "RTP/AVP/UDP") ||
		!strings.Contains(asked, "/live?channel=1") || strings.Contains(asked, "tcp ") || strings.Contains(asked, "s3c") {
		t.Errorf("camera was asked:\n%s", asked)
	}
}
