package ups

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

const report = `APC      : 001,036,0879
HOSTNAME : shop
VERSION  : 3.14.14 (31 May 2016) debian
UPSNAME  : till
MODEL    : Smart-UPS 750
STATUS   : ONBATT LOWBATT 
LINEV    : 000.0 Volts
LOADPCT  : 24.0 Percent
BCHARGE  : 64.0 Percent
TIMELEFT : 11.5 Minutes
ITEMP    : 31.2 C
NOMPOWER : 500 Watts
STATFLAG : 0x05060010
END APC  : 2026-01-01 00:00:00 +0000  
`

// messages packs lines as apcupsd sends them.
func messages(text string) []byte {
	var b bytes.Buffer
	for line := range strings.Lines(text) {
		binary.Write(&b, binary.BigEndian, uint16(len(line)))
		b.WriteString(line)
	}
	b.Write([]byte{0, 0})
	return b.Bytes()
}

// nis answers one question with bytes.
func nis(t *testing.T, answer []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		question := make([]byte, 8)
		if _, err := io.ReadFull(conn, question); err == nil && string(question) == "\x00\x06status" {
			conn.Write(answer)
		}
		io.Copy(io.Discard, conn) // until the client has enough
	}()
	return l.Addr().String()
}

func TestAPCSaysHowItStands(t *testing.T) {
	with := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(report) }
	for name, c := range map[string]struct{ report, want, err string }{
		"on battery":      {report, "till charge 0.64 load 0.24 runtime 690 celsius 31.2 watts 120 battery true", ""},
		"probe in a room": {with("STATFLAG", "AMBTEMP  : 22.5 C\nSTATFLAG"), "till charge 0.64 load 0.24 runtime 690 celsius 22.5 watts 120 battery true", ""},
		"older words": {with("24.0 Percent", "24.0 Percent Load Capacity", "31.2 C", "31.2 C Internal"),
			"till charge 0.64 load 0.24 runtime 690 celsius 31.2 watts 120 battery true", ""},
		"little is known": {"UPSNAME  : till\nSTATUS   : TRIM ONLINE \nITEMP    : 0.0 C\nTIMELEFT : N/A\n",
			"till charge - load - runtime - celsius - watts - battery false", ""},
		"idle":        {with("24.0 Percent", "0.0 Percent"), "till charge 0.64 load 0 runtime 690 celsius 31.2 watts - battery true", ""},
		"lost supply": {with("ONBATT LOWBATT", "COMMLOST"), "", "COMMLOST"},
		"no status":   {"UPSNAME : till\n", "", "no STATUS"},
		"no line":     {"hello\n", "", "not of apcupsd"},
	} {
		s, err := ReadAPC(t.Context(), nis(t, messages(c.report)))
		switch {
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%s: error %v, want %s", name, err, c.err)
		case c.err == "" && (err != nil || show(s) != c.want):
			t.Errorf("%s: %s (%v)\nwant %s", name, show(s), err, c.want)
		}
	}
}

func TestAPCThatIsSilentOrEndlessIsLeft(t *testing.T) {
	for name, answer := range map[string][]byte{
		"silent": nil, "half a line": []byte("\x00\x20STATUS"), "endless": messages(strings.Repeat("A : b\n", maxLines+1)),
		"long line": append([]byte{0xff, 0xff}, make([]byte, 70_000)...), "no protocol": []byte("HTTP/1.1 400 Bad Request\r\n\r\n"),
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		s, err := ReadAPC(ctx, nis(t, answer))
		cancel()
		if err == nil {
			t.Errorf("%s: %s", name, show(s))
		}
	}
}
