package air

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/internal/assets"
)

func pmsFrame(words ...uint16) []byte {
	f := []byte{0x42, 0x4D, 0, 28}
	for i := range 13 {
		w := uint16(0)
		if i < len(words) {
			w = words[i]
		}
		f = binary.BigEndian.AppendUint16(f, w)
	}
	var sum uint16
	for _, c := range f {
		sum += uint16(c)
	}
	return binary.BigEndian.AppendUint16(f, sum)
}

func sdsFrame(pm25, pm10 uint16) []byte {
	f := []byte{0xAA, 0xC0}
	f = binary.LittleEndian.AppendUint16(f, pm25)
	f = binary.LittleEndian.AppendUint16(f, pm10)
	f = append(f, 0xA1, 0x60)
	var sum byte
	for _, c := range f[2:] {
		sum += c
	}
	return append(f, sum, 0xAB)
}

// spsAnswer frames an answer: as a command, with a state before the length.
func spsAnswer(command byte, data []byte) []byte {
	body := append([]byte{0, command, 0, byte(len(data))}, data...)
	var sum byte
	for _, c := range body {
		sum += c
	}
	out := []byte{0x7E}
	for _, c := range append(body, ^sum) {
		if c == 0x7E || c == 0x7D || c == 0x11 || c == 0x13 {
			out = append(out, 0x7D, c^0x20)
		} else {
			out = append(out, c)
		}
	}
	return append(out, 0x7E)
}

func spsFloats(v ...float32) []byte {
	var b []byte
	for _, f := range v {
		b = binary.BigEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

// pty is a serial line whose far end the test holds.
func pty(t *testing.T) (far *os.File, path string) {
	t.Helper()
	far, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		assets.Absent(t, fmt.Errorf("pseudo terminals: %w", err))
	}
	t.Cleanup(func() { far.Close() })
	raw, err := far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err != nil {
			return
		}
		var n int
		n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		path = fmt.Sprintf("/dev/pts/%d", n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return far, path
}

// feed writes bytes to the far end of a line again and again, in pieces, as a
// sensor that knows no start does.
func feed(t *testing.T, far *os.File, b []byte) {
	done := make(chan struct{})
	t.Cleanup(func() { close(done) })
	go func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i = (i + 7) % len(b) {
			select {
			case <-done:
				return
			case <-tick.C:
				far.Write(b[i:min(i+7, len(b))])
				if i+7 >= len(b) {
					i = -7
				}
			}
		}
	}()
}

func TestSensorsThatSpeakByThemselves(t *testing.T) {
	noise := []byte{0x42, 0x4D, 0xAA, 0xC0, 0, 28, 0xFF}
	broken := pmsFrame(1, 2, 3, 4, 5, 6, 7)
	broken[9]++
	for kind, c := range map[string]struct {
		line []byte
		want string
	}{
		PMS5003: {append(append(noise, broken...), pmsFrame(12, 20, 25, 10, 18, 22, 1500, 400, 80, 9, 2, 1)...), "{10 18 22}"},
		SDS011:  {append(noise, sdsFrame(123, 456)...), "{NaN 12.3 45.6}"},
	} {
		far, path := pty(t)
		feed(t, far, c.line)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		d, err := Serial{Path: path, Kind: kind}.Read(ctx)
		cancel()
		if err != nil || fmt.Sprint(d) != c.want {
			t.Errorf("%s: %v, %v, want %s", kind, d, err, c.want)
		}
	}
}

func TestSPS30IsStartedAndAsked(t *testing.T) {
	far, path := pty(t)
	go func() {
		var held []byte
		buf := make([]byte, 64)
		asked := 0
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			held = append(held, buf[:n]...)
			switch {
			case bytes.Equal(held, shdlc(spsStart, 1, 3)):
				far.Write(spsAnswer(spsStart, nil))
				held = nil
			case bytes.Equal(held, shdlc(spsRead)):
				if asked++; asked == 1 {
					far.Write(spsAnswer(spsRead, nil)) // nothing new yet
				} else {
					far.Write(spsAnswer(spsRead, spsFloats(3.5, 7.25, 8, 9.5, 20, 25, 26, 26, 26.5, 0.6)))
				}
				held = nil
			}
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	d, err := Serial{Path: path, Kind: SPS30}.Read(ctx)
	if err != nil || d != (Dust{3.5, 7.25, 9.5}) {
		t.Errorf("%v, %v", d, err)
	}
}

func TestPeriodOfAnSDS011IsSet(t *testing.T) {
	far, path := pty(t)
	if err := (Serial{Path: path, Kind: SDS011}).Prepare(t.Context()); err != nil {
		t.Error(err)
	}
	if err := (Serial{Path: path, Kind: SDS011, PeriodMinutes: 5}).Prepare(t.Context()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	if n, err := far.Read(buf); err != nil || !bytes.Equal(buf[:n], sdsPeriod(5)) {
		t.Errorf("% X, %v", buf[:n], err)
	}
}

func TestSilentLineEndsAtTheDeadline(t *testing.T) {
	_, path := pty(t)
	for _, kind := range []string{PMS5003, SDS011, SPS30} {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if d, err := (Serial{Path: path, Kind: kind}).Read(ctx); err == nil || d != (Dust{}) {
			t.Errorf("%s: %v, %v", kind, d, err)
		}
		cancel()
	}
	file := t.TempDir() + "/plain"
	if err := os.WriteFile(file, sdsFrame(1, 2), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := (Serial{Path: file, Kind: SDS011}).Read(t.Context()); err == nil || !strings.Contains(err.Error(), "serial port") {
		t.Errorf("plain file: %v", err)
	}
	for _, bad := range []Serial{{Kind: SDS011}, {Path: "x", Kind: "other"}, {Path: "x", Kind: SDS011, PeriodMinutes: 31}} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// A sensor whose fan stands still counts nothing: that is no clean air.
func TestStandingFanIsNoCleanAir(t *testing.T) {
	if d, found, err := pms(pmsFrame(0, 0, 0, 0, 0, 0, 0)); !found || err == nil {
		t.Errorf("PMS5003: %v %v %v", d, found, err)
	}
	if d, found, err := sds(sdsFrame(0, 0)); !found || err == nil {
		t.Errorf("SDS011: %v %v %v", d, found, err)
	}
	if d, err := spsDust(spsFloats(0, 0, 0, 0, 0, 0, 0, 0, 0, 0)); err == nil {
		t.Errorf("SPS30: %v", d)
	}
}

// chip is a device on I²C: what it says to the commands that it was told.
type chip struct {
	says    map[string][][]byte // by command; nil refuses, the last answer stays
	command string
	told    []string
}

func (c *chip) Write(b []byte) (int, error) {
	c.command = string(b)
	c.told = append(c.told, c.command)
	if answers, known := c.says[c.command]; !known || answers == nil {
		return 0, unix.EREMOTEIO
	}
	return len(b), nil
}

func (c *chip) Read(b []byte) (int, error) {
	answers := c.says[c.command]
	if len(answers) == 0 || answers[0] == nil {
		return 0, unix.EREMOTEIO
	}
	n := copy(b, answers[0])
	if len(answers) > 1 {
		c.says[c.command] = answers[1:]
	}
	return n, nil
}

// words adds the checksums.
func words(b []byte) (out []byte) {
	for ; len(b) >= 2; b = b[2:] {
		out = append(out, b[0], b[1], crc8(b[:2]))
	}
	return out
}

func TestSPS30OnI2CIsStartedAndAsked(t *testing.T) {
	values := words(spsFloats(3.5, 7.25, 8, 9.5, 20, 25, 26, 26, 26.5, 0.6))
	broken := bytes.Clone(values)
	broken[4] ^= 1
	for name, c := range map[string]struct {
		says map[string][][]byte
		want Dust
		err  error
	}{
		"begins": {map[string][][]byte{spsBegin: {nil}, spsReady: {words([]byte{0, 0}), words([]byte{0, 1})}, spsValues: {values}}, Dust{3.5, 7.25, 9.5}, nil},
		"runs":   {map[string][][]byte{spsBegin: nil, spsReady: {words([]byte{0, 1})}, spsValues: {broken, values}}, Dust{3.5, 7.25, 9.5}, nil},
		"broken": {map[string][][]byte{spsBegin: nil, spsReady: {words([]byte{0, 1})}, spsValues: {broken}}, Dust{}, errCRC},
		"gone":   {map[string][][]byte{}, Dust{}, unix.EREMOTEIO},
		"never":  {map[string][][]byte{spsBegin: nil, spsReady: {words([]byte{0, 0})}}, Dust{}, errIdle},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			device := &chip{says: c.says}
			if d, err := askSPS30OnI2C(ctx, device); d != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s: %v, %v; want %v, %v", name, d, err, c.want, c.err)
			}
			if n := strings.Count(strings.Join(device.told, " "), spsBegin); n != 1 {
				t.Errorf("%s: begun %d times", name, n)
			}
		})
	}
}

func TestSDPIsAskedUntilItAnswers(t *testing.T) {
	frame := words([]byte{0xFB, 0x50, 0x11, 0x94, 0, 60})
	for name, c := range map[string]struct {
		says [][]byte
		want Pressure
		err  error
	}{"first": {[][]byte{frame}, Pressure{-20, 22.5}, nil}, "third": {[][]byte{{1}, frame[:6], frame}, Pressure{-20, 22.5}, nil},
		"never": {nil, Pressure{}, unix.EREMOTEIO}, "broken": {[][]byte{frame[:8]}, Pressure{}, errCRC}} {
		synctest.Test(t, func(t *testing.T) {
			p, err := askSDP(t.Context(), &chip{says: map[string][][]byte{"\x36\x15": c.says}})
			if p != c.want || !errors.Is(err, c.err) {
				t.Errorf("%s: %v, %v; want %v, %v", name, p, err, c.want, c.err)
			}
		})
	}
}

// The worked examples of the makers' documents.
func TestKnownFrames(t *testing.T) {
	if got := crc8([]byte{0xBE, 0xEF}); got != 0x92 { // Sensirion's example
		t.Errorf("CRC of BEEF is %02X", got)
	}
	if got := crc8([]byte(spsBegin)[2:4]); got != spsBegin[4] {
		t.Errorf("CRC of the word for floats is %02X", got)
	}
	if got, want := shdlc(spsStart, 1, 3), []byte{0x7E, 0, 0, 2, 1, 3, 0xF9, 0x7E}; !bytes.Equal(got, want) {
		t.Errorf("start is % X, want % X", got, want)
	}
	if got, want := shdlc(spsRead), []byte{0x7E, 0, 3, 0, 0xFC, 0x7E}; !bytes.Equal(got, want) {
		t.Errorf("read is % X, want % X", got, want)
	}
	if got, want := sdsPeriod(1), []byte{0xAA, 0xB4, 8, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 8, 0xAB}; !bytes.Equal(got, want) {
		t.Errorf("period is % X, want % X", got, want)
	}
	word := func(v int16) []byte {
		b := binary.BigEndian.AppendUint16(nil, uint16(v))
		return append(b, crc8(b))
	}
	frame := append(append(word(-1200), word(4500)...), word(60)...)
	if p, err := sdp(frame); err != nil || p != (Pressure{-20, 22.5}) {
		t.Errorf("pressure %v, %v", p, err)
	}
	frame[2]++
	if p, err := sdp(frame); err == nil {
		t.Errorf("pressure %v of a broken frame", p)
	}
	for _, bad := range []Serial{{Path: "/dev/i2c-1", Kind: PMS5003, Address: 0x69}, {Path: "/dev/i2c-1", Kind: SPS30, Address: 0x100}} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	if _, err := (Serial{Path: t.TempDir() + "/i2c-9", Kind: SPS30, Address: 0x69}).Read(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a bus that is not there: %v", err)
	}
	for _, bad := range []I2C{{Address: 0x25}, {Path: "/dev/i2c-1"}, {Path: "/dev/i2c-1", Address: 0x77}} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(pmsFrame(12, 20, 25, 10, 18, 22, 1500))
	f.Add(sdsFrame(123, 456))
	f.Add(spsAnswer(spsRead, spsFloats(3.5, 7.25, 8, 9.5, 20, 25, 26, 26, 26.5, 0.6)))
	f.Add([]byte{0, 60, crc8([]byte{0, 60}), 17, 148, crc8([]byte{17, 148}), 0, 60, crc8([]byte{0, 60})})
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range map[string]func([]byte) (Dust, bool, error){PMS5003: pms, SDS011: sds} {
			if d, found, err := decode(b); err != nil && d != (Dust{}) || found && err == nil && !d.plausible() {
				t.Errorf("%s: %v %v of % X", name, d, err, b)
			}
		}
		if data, _, found := unshdlc(b, spsRead); found {
			if again, _, ok := unshdlc(spsAnswer(spsRead, data), spsRead); len(data) <= 250 && (!ok || !bytes.Equal(data, again)) {
				t.Errorf("% X comes back as % X", data, again)
			}
			if d, err := spsDust(data); err == nil && !d.plausible() {
				t.Errorf("SPS30: %v", d)
			}
		}
		if p, err := sdp(b); err == nil && !(math.Abs(p.Pascals) <= 32768 && p.Celsius > -40 && p.Celsius <= 85) {
			t.Errorf("SDP: %v", p)
		}
	})
}
