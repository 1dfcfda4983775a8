package air

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Serial says which sensor is on which port.
type Serial struct {
	Path string `yaml:"path"` // such as /dev/serial/by-id/usb-1a86_USB_Serial-if00-port0
	Kind string `yaml:"kind"` // PMS5003, SDS011 or SPS30
	// PeriodMinutes makes an SDS011 rest between measurements, 1 to 30; 0 leaves
	// it as it is. Only SDS011.
	PeriodMinutes int `yaml:"period_minutes"`
}

// Check tells what is wrong with the options.
func (s Serial) Check() error {
	switch {
	case s.Path == "":
		return errors.New("serial sensor without a path")
	case s.Kind != PMS5003 && s.Kind != SDS011 && s.Kind != SPS30:
		return fmt.Errorf("serial sensor on %s: kind %q, want %s, %s or %s", s.Path, s.Kind, PMS5003, SDS011, SPS30)
	case s.PeriodMinutes < 0 || s.PeriodMinutes > 30:
		return fmt.Errorf("serial sensor on %s: period of %d minutes, want 0 to 30", s.Path, s.PeriodMinutes)
	}
	return nil
}

// Read waits for one reading.
func (s Serial) Read(ctx context.Context) (d Dust, err error) {
	err = s.with(ctx, func(port *os.File) error {
		if s.Kind == SPS30 {
			d, err = askSPS30(ctx, port)
		} else {
			d, err = listen(port, map[string]func([]byte) (Dust, bool, error){PMS5003: pms, SDS011: sds}[s.Kind])
		}
		return err
	})
	return d, err
}

// Prepare sets the period of an SDS011, if the options name one. It keeps it
// in flash: do so once and not at each Read.
func (s Serial) Prepare(ctx context.Context) error {
	if s.Kind != SDS011 || s.PeriodMinutes == 0 {
		return nil
	}
	return s.with(ctx, func(port *os.File) error {
		_, err := port.Write(sdsPeriod(byte(s.PeriodMinutes)))
		return err
	})
}

// with opens the port for one use.
func (s Serial) with(ctx context.Context, use func(port *os.File) error) error {
	err := s.Check()
	if err == nil {
		err = s.open(ctx, use)
	}
	if err != nil {
		return fmt.Errorf("read %s on %s: %w", s.Kind, s.Path, err)
	}
	return nil
}

func (s Serial) open(ctx context.Context, use func(port *os.File) error) error {
	speed := uint32(unix.B9600)
	if s.Kind == SPS30 {
		speed = unix.B115200
	}
	port, err := openPort(s.Path, speed)
	if err != nil {
		return err
	}
	defer port.Close()
	defer context.AfterFunc(ctx, func() { port.SetDeadline(time.Unix(1, 0)) })()
	if deadline, ok := ctx.Deadline(); ok {
		if err := port.SetDeadline(deadline); err != nil {
			return err
		}
	}
	return use(port)
}

// listen reads until a frame is whole. The buffer holds a few frames, so that
// noise on the line costs the one that it hits.
func listen(port *os.File, decode func([]byte) (Dust, bool, error)) (Dust, error) {
	var held []byte
	buf := make([]byte, 64)
	for {
		n, err := port.Read(buf)
		if err != nil {
			return Dust{}, err
		}
		held = append(held, buf[:n]...)
		if d, found, err := decode(held); found {
			return d, err
		}
		held = held[max(0, len(held)-256):]
	}
}

// askSPS30 starts the measurement, which is refused when it runs already, and
// asks each second until there is one.
func askSPS30(ctx context.Context, port *os.File) (Dust, error) {
	if _, err := port.Write(shdlc(spsStart, 0x01, 0x03)); err != nil { // big-endian floats
		return Dust{}, err
	}
	if _, err := answer(port, spsStart); err != nil {
		return Dust{}, err
	}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		if _, err := port.Write(shdlc(spsRead)); err != nil {
			return Dust{}, err
		}
		data, err := answer(port, spsRead)
		if err != nil {
			return Dust{}, err
		}
		d, err := spsDust(data)
		if err == nil {
			return d, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return Dust{}, err
		}
	}
}

func answer(port *os.File, command byte) ([]byte, error) {
	var held []byte
	buf := make([]byte, 64)
	for {
		n, err := port.Read(buf)
		if err != nil {
			return nil, err
		}
		held = append(held, buf[:n]...)
		data, rest, found := unshdlc(held, command)
		if found {
			return data, nil
		}
		held = rest[max(0, len(rest)-512):]
	}
}

// openPort opens a serial port for raw bytes: 8 data bits, no parity, one stop bit.
// O_NONBLOCK keeps a port without carrier from blocking and lets deadlines work.
func openPort(path string, speed uint32) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	t := unix.Termios{Cflag: unix.CS8 | unix.CREAD | unix.CLOCAL | speed, Ispeed: speed, Ospeed: speed}
	t.Cc[unix.VMIN] = 1
	err = unix.IoctlSetTermios(fd, unix.TCSETS, &t)
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TIOCEXCL, 0) // no second program mixes in
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) // what is old is of no use
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set up as a serial port: %w", err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// I2C says where an SDP8xx is.
type I2C struct {
	Path    string `yaml:"path"`    // such as /dev/i2c-1
	Address int    `yaml:"address"` // 0x25 for SDP8x0, 0x26 for SDP8x1
}

// Check tells what is wrong with the options.
func (i I2C) Check() error {
	if i.Path == "" || i.Address < 0x21 || i.Address > 0x26 {
		return fmt.Errorf("pressure sensor on %q at 0x%02x: want a path and an address from 0x21 to 0x26", i.Path, i.Address)
	}
	return nil
}

const i2cSlave = 0x0703 // I2C_SLAVE of linux/i2c-dev.h; refused when a kernel driver has the device

// Read measures once. The first reading after the start command takes 8 ms;
// the sensor does not answer before it is there.
func (i I2C) Read(ctx context.Context) (Pressure, error) {
	if err := i.Check(); err != nil {
		return Pressure{}, err
	}
	fail := func(err error) (Pressure, error) {
		return Pressure{}, fmt.Errorf("read pressure sensor 0x%02x on %s: %w", i.Address, i.Path, err)
	}
	fd, err := unix.Open(i.Path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, i2cSlave, i.Address); err != nil {
		return fail(err)
	}
	// Started already is refused, and then it measures.
	if _, err := unix.Write(fd, []byte{0x36, 0x15}); err != nil && !errors.Is(err, unix.EREMOTEIO) && !errors.Is(err, unix.EIO) {
		return fail(err)
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	buf := make([]byte, 9)
	for range 5 {
		select {
		case <-ctx.Done():
			return fail(ctx.Err())
		case <-tick.C:
		}
		n, readErr := unix.Read(fd, buf)
		if err = readErr; err == nil {
			var p Pressure
			if p, err = sdp(buf[:n]); err == nil && !math.IsNaN(p.Pascals) {
				return p, nil
			}
		}
	}
	return fail(err)
}
