package air

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	// Address is that of an SPS30 on I²C, 0x69, and Path then the bus, such as
	// /dev/i2c-1; 0 for a serial line.
	Address int `yaml:"address"`
}

// Check tells what is wrong with the options.
func (s Serial) Check() error {
	switch {
	case s.Path == "":
		return errors.New("serial sensor without a path")
	case s.Kind != PMS5003 && s.Kind != SDS011 && s.Kind != SPS30:
		return fmt.Errorf("serial sensor on %s: kind %q, want %s, %s or %s", s.Path, s.Kind, PMS5003, SDS011, SPS30)
	case s.Address != 0 && (s.Kind != SPS30 || s.Address < 0x08 || s.Address > 0x77):
		return fmt.Errorf("sensor on %s at 0x%02x: only an %s has an address, 0x69", s.Path, s.Address, SPS30)
	case s.PeriodMinutes < 0 || s.PeriodMinutes > 30:
		return fmt.Errorf("serial sensor on %s: period of %d minutes, want 0 to 30", s.Path, s.PeriodMinutes)
	}
	return nil
}

// Read waits for one reading.
func (s Serial) Read(ctx context.Context) (d Dust, err error) {
	if s.Address != 0 {
		if err = s.Check(); err == nil {
			err = onI2C(s.Path, s.Address, func(bus io.ReadWriter) (err error) {
				d, err = askSPS30OnI2C(ctx, bus)
				return err
			})
		}
		if err != nil {
			return Dust{}, fmt.Errorf("read %s at 0x%02x on %s: %w", s.Kind, s.Address, s.Path, err)
		}
		return d, nil
	}
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

// Read measures once. The first reading after the start command takes 8 ms; the
// sensor does not answer before it is there.
func (i I2C) Read(ctx context.Context) (Pressure, error) {
	if err := i.Check(); err != nil {
		return Pressure{}, err
	}
	var p Pressure
	err := onI2C(i.Path, i.Address, func(bus io.ReadWriter) (err error) {
		p, err = askSDP(ctx, bus)
		return err
	})
	if err != nil {
		return Pressure{}, fmt.Errorf("read pressure sensor 0x%02x on %s: %w", i.Address, i.Path, err)
	}
	return p, nil
}

// i2cDevice is one device of a bus: each Read and Write is a message of its own.
type i2cDevice int

func (d i2cDevice) Read(b []byte) (int, error)  { return unix.Read(int(d), b) }
func (d i2cDevice) Write(b []byte) (int, error) { return unix.Write(int(d), b) }

// onI2C opens a device for one use.
func onI2C(path string, address int, use func(bus io.ReadWriter) error) error {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.IoctlSetInt(fd, i2cSlave, address); err != nil {
		return err
	}
	return use(i2cDevice(fd))
}

// refused tells that a device did not acknowledge: a command that it does not
// take now, or a reading that is not there yet.
func refused(err error) bool {
	return errors.Is(err, unix.EREMOTEIO) || errors.Is(err, unix.EIO) || errors.Is(err, unix.ENXIO)
}

// askSDP measures once. Started already is refused, and then it measures.
func askSDP(ctx context.Context, bus io.ReadWriter) (p Pressure, err error) {
	if _, err := bus.Write([]byte{0x36, 0x15}); err != nil && !refused(err) {
		return p, err
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	buf := make([]byte, 9)
	for range 5 {
		select {
		case <-ctx.Done():
			return p, ctx.Err()
		case <-tick.C:
		}
		n, readErr := bus.Read(buf)
		if err = readErr; err == nil {
			if p, err = sdp(buf[:n]); err == nil {
				return p, nil
			}
		}
	}
	return Pressure{}, err
}

// askSPS30OnI2C starts the measurement with floats, which is refused when it
// runs already, and asks each second until there is a reading. A command is two
// bytes, of which the higher goes first; each word of data has its checksum.
func askSPS30OnI2C(ctx context.Context, bus io.ReadWriter) (Dust, error) {
	if _, err := bus.Write([]byte(spsBegin)); err != nil && !refused(err) {
		return Dust{}, err
	}
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		d, err := spsOnI2C(bus)
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

func spsOnI2C(bus io.ReadWriter) (Dust, error) {
	ask := func(command string, words int) ([]byte, error) {
		if _, err := bus.Write([]byte(command)); err != nil {
			return nil, err
		}
		buf := make([]byte, 3*words)
		n, err := bus.Read(buf)
		if err != nil {
			return nil, err
		}
		return sensirionWords(buf[:n], words)
	}
	ready, err := ask(spsReady, 1)
	if err != nil {
		return Dust{}, err
	}
	if ready[1] != 1 {
		return Dust{}, errIdle
	}
	data, err := ask(spsValues, 20)
	if err != nil {
		return Dust{}, err
	}
	return spsDust(data)
}
