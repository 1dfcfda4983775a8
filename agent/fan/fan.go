// Package fan raises a fan above the firmware's curve, where the configuration
// allows it for this kind of box. It is off by default, never lowers what the
// firmware does, and runs no tests of its own.
//
//	STATE/fan.json   what to give back to the firmware; there while we drive
//
// Vocabulary: the firmware drives unless a fan is raised. Its curve is learnt by
// watching, and a raised fan never turns slower than that. A doubt (a reading is
// missing or stuck, the fan does not follow or stands still, the die is within
// 10 K of its limit or hotter than the firmware was ever seen at, someone else
// writes) gives the fan back and locks it for an hour. The guard is a process of
// its own: it gives the fan back when the agent is gone, however it went, or has
// not been heard of for 30 s.
//
// Before the first write the chip's mode is in fan.json and with the guard, so
// that a crash of either, a stop of the unit and the next start all end with
// the firmware. Where its mode cannot be restored the fan runs at full speed.
//
// The one rule a caller can break: end a Fan with Close, on its goroutine.
package fan

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
)

// Options of a Fan. Journal, Boot and Guard are required.
type Options struct {
	Root    string // where sys is; default "/"
	Journal string // path of fan.json
	Boot    string // names this boot: the firmware begins anew with each
	SKU     string // of this box; a policy for another one is not followed
	Policy  Policy
	// Guard starts the guard for an order. It is closed to end it; it restores
	// then, unless it was told goodbye.
	Guard func(order []byte) (io.WriteCloser, error)
	// OnChange tells that somebody else drives the fan now; default nothing.
	OnChange func(Change)
}

// Change is who drives a fan now.
type Change struct {
	Fan    string // chip/pwmN
	Raised bool
	Duty   float64 // when raised
	Reason string
}

// Order is what a guard restores.
type Order struct {
	PWM    string `json:"pwm"`    // path
	Enable string `json:"enable"` // path
	Mode   string `json:"mode"`   // of the firmware
}

// fanFile is fan.json.
type fanFile struct {
	Boot  string `json:"boot"`
	Order Order  `json:"order"`
}

// fileVersion of fan.json. History: 1 first.
const fileVersion = 1

// Fan drives one fan.
type Fan struct {
	opts  Options
	log   *slog.Logger
	order Order
	tach  string
	name  string
	state State
	guard io.WriteCloser // while raised
	busy  chan struct{}  // closed when the driver has done what was asked last; nil: never asked
	dead  bool           // the driver hung: never again in this process
	owed  bool           // the firmware's mode could not be written back yet
	told  bool           // OnChange was told that we drive
	said  string         // why the fan was not raised, so that it is said once
}

// ErrOther says that the policy is for another kind of box.
var ErrOther = errors.New("fan policy is for another kind of box")

// Open finds the fan of the policy and gives back what a crash left raised.
// It touches nothing else before the first raise.
func Open(opts Options, log *slog.Logger) (*Fan, error) {
	if opts.Root == "" {
		opts.Root = "/"
	}
	if opts.OnChange == nil {
		opts.OnChange = func(Change) {}
	}
	if err := Restore(opts.Journal, opts.Boot); err != nil {
		return nil, err
	}
	p := opts.Policy
	if err := p.Check(); err != nil {
		return nil, fmt.Errorf("fan policy for %s: %w", p.SKU, err)
	}
	if p.SKU != opts.SKU {
		return nil, fmt.Errorf("%w: %s, this is %s", ErrOther, p.SKU, opts.SKU)
	}
	dir, err := chipDir(opts.Root, p.Chip)
	if err != nil {
		return nil, err
	}
	f := &Fan{opts: opts, log: log, name: fmt.Sprintf("%s/pwm%d", p.Chip, p.PWM), tach: filepath.Join(dir, fmt.Sprintf("fan%d_input", p.PWM))}
	f.order.PWM = filepath.Join(dir, fmt.Sprintf("pwm%d", p.PWM))
	f.order.Enable = f.order.PWM + "_enable"
	for _, path := range []string{f.order.PWM, f.order.Enable, f.tach} {
		if _, err := read(path); err != nil {
			return nil, fmt.Errorf("fan policy for %s: %w", p.SKU, err)
		}
	}
	for _, path := range []string{f.order.PWM, f.order.Enable} {
		if err := syscall.Access(path, 2); err != nil { // W_OK
			return nil, fmt.Errorf("fan policy for %s: write to %s: %w; let the agent's user, by a udev rule", p.SKU, path, err)
		}
	}
	return f, nil
}

// chipDir finds the one chip of that name; numbers of hwmon change with a boot.
func chipDir(root, chip string) (string, error) {
	names, _ := filepath.Glob(filepath.Join(root, "sys/class/hwmon/hwmon*/name")) // well formed
	var found []string
	for _, path := range names {
		if name, err := read(path); err == nil && name == chip {
			// By its device: the number may go to another chip within a boot, when
			// drivers are loaded anew.
			dir, err := filepath.EvalSymlinks(filepath.Dir(path))
			if err != nil {
				return "", fmt.Errorf("fan policy: %w", err)
			}
			found = append(found, dir)
		}
	}
	if len(found) != 1 {
		return "", fmt.Errorf("fan policy: %d chips are called %s, want one; see /sys/class/hwmon/hwmon*/name", len(found), chip)
	}
	return found[0], nil
}

// Step reads the fan and does what the policy wants. Call it each sense period.
func (f *Fan) Step(at time.Duration, dieC, limitC float64) {
	if f.dead {
		return
	}
	if f.owed {
		if f.giveBack("its driver takes writes again"); f.owed {
			return
		}
	}
	if f.guard != nil {
		if _, err := f.guard.Write([]byte{'\n'}); err != nil {
			f.lock(at, "the guard of the fan is gone")
			return
		}
	}
	r, err := f.look(Reading{At: at, DieC: dieC, LimitC: limitC})
	if err != nil {
		f.lock(at, err.Error())
		return
	}
	was := f.state.Mode
	var act Action
	f.state, act = f.opts.Policy.Next(f.state, r)
	switch {
	case act.Restore:
		f.giveBack(act.Reason)
	case act.Set > 0:
		if err := f.set(act.Set, was != raised); err != nil {
			if f.said != err.Error() { // it comes again each hour
				f.said = err.Error()
				f.log.Warn("fan not raised", "fan", f.name, "err", err)
			}
			f.lock(at, err.Error())
			return
		}
		if was != raised {
			f.said = ""
			f.log.Info("fan raised above the firmware's curve", "fan", f.name, "duty", act.Set)
			f.tell(Change{Fan: f.name, Raised: true, Duty: act.Set, Reason: act.Reason})
		}
	}
}

// look reads what the chip says.
func (f *Fan) look(r Reading) (Reading, error) {
	seen := r
	err := f.within(func() error {
		seen.Duty, seen.RPM = number(f.order.PWM)/255, number(f.tach)
		return nil
	})
	if err != nil { // seen is still the driver's
		return r, err
	}
	return seen, nil
}

// lock gives the fan back and leaves it alone for an hour.
func (f *Fan) lock(at time.Duration, reason string) {
	f.state.Mode, f.state.Until = locked, at+lockFor
	f.giveBack(reason)
}

// tell tells who drives. That the firmware does is news only after we did.
func (f *Fan) tell(c Change) {
	if c.Raised || f.told {
		f.opts.OnChange(c)
	}
	f.told = c.Raised
}

// set writes a duty; the first one takes the fan over.
func (f *Fan) set(duty float64, first bool) error {
	value := strconv.Itoa(int(math.Round(min(max(duty, leastDuty), 1) * 255)))
	if !first {
		return f.within(func() error { return write(f.order.PWM, value) })
	}
	var mode string
	if err := f.within(func() (err error) { mode, err = read(f.order.Enable); return err }); err != nil {
		return err
	}
	if n, err := strconv.Atoi(mode); err != nil || n < 2 {
		return fmt.Errorf("the fan's mode is %s, not one of the firmware's: left alone", mode)
	}
	order := f.order
	order.Mode = mode
	if err := f.journal().Save(fanFile{f.opts.Boot, order}); err != nil {
		return err // nothing was touched
	}
	f.order.Mode = mode
	line, err := json.Marshal(order)
	if err != nil {
		return err
	}
	if f.guard, err = f.opts.Guard(append(line, '\n')); err != nil {
		return fmt.Errorf("start the guard of the fan: %w", err)
	}
	return f.within(func() error {
		// Some chips keep the duty of an earlier manual mode, which may be 0: it
		// is set before as well, which others refuse.
		_ = write(f.order.PWM, value)
		if err := write(f.order.Enable, "1"); err != nil {
			return err
		}
		return write(f.order.PWM, value)
	})
}

// giveBack restores the firmware's mode, if we had taken it. Where that fails,
// the guard tries as well, the next Step does again, and fan.json stays for the
// next start.
func (f *Fan) giveBack(reason string) {
	if f.order.Mode == "" {
		return
	}
	err := f.within(f.order.restore)
	if f.guard != nil {
		if err == nil {
			_, _ = io.WriteString(f.guard, goodbye) // a guard that is gone is gone
		}
		f.guard.Close() // without goodbye it restores as well
		f.guard = nil
	}
	if err != nil {
		if !f.owed {
			f.owed = true
			f.log.Error("fan not given back to the firmware, tried again", "fan", f.name, "err", err)
			f.tell(Change{Fan: f.name, Raised: true, Duty: 1, Reason: "it cannot be given back: " + err.Error()})
		}
		return
	}
	if err := durable.Remove(f.opts.Journal); err != nil {
		f.log.Warn("journal of the fan not removed", "err", err)
	}
	f.order.Mode, f.owed = "", false
	if f.told {
		f.log.Info("fan given back to the firmware", "fan", f.name, "reason", reason)
	}
	f.tell(Change{Fan: f.name, Reason: reason})
}

// Close gives the fan back.
func (f *Fan) Close() { f.giveBack("the agent stops") }

func (f *Fan) journal() durable.Journal {
	return durable.Journal{Path: f.opts.Journal, Version: fileVersion}
}

// patience with a driver; embedded controllers take some tens of milliseconds.
const patience = 2 * time.Second

// within does not wait for a driver that hangs. What hangs is never used again;
// but what was begun before goes first, so that giving back has the last word.
func (f *Fan) within(do func() error) error {
	before, over := f.busy, make(chan struct{})
	f.busy = over
	done := make(chan error, 1)
	go func() {
		defer close(over)
		if before != nil {
			<-before
		}
		done <- do()
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-timer.C:
		f.dead = true
		return fmt.Errorf("the driver of the fan hangs for %s", patience)
	}
}

// Restore gives back what fan.json says was raised in this boot. It is for the
// start of an agent and for what runs after its end.
func Restore(journal, boot string) error {
	var file fanFile
	j := durable.Journal{Path: journal, Version: fileVersion}
	found, err := j.Load(&file)
	if err != nil {
		// It cannot be known which fan: the firmware's next boot cures it.
		return errors.Join(fmt.Errorf("fan that was raised not given back: %w", err), durable.Remove(journal))
	}
	if !found {
		return nil
	}
	if file.Boot == boot {
		if err := file.Order.restore(); err != nil {
			return fmt.Errorf("give fan back to the firmware: %w", err)
		}
	}
	return durable.Remove(journal)
}

// restore writes the firmware's mode back and looks whether it took; full speed
// otherwise.
func (o Order) restore() error {
	o = o.today()
	err := write(o.Enable, o.Mode)
	if err == nil {
		var now string
		if now, err = read(o.Enable); err == nil && now != o.Mode {
			err = fmt.Errorf("its mode stays %s, want %s", now, o.Mode)
		}
	}
	if err == nil {
		return nil
	}
	return errors.Join(err, write(o.Enable, "1"), write(o.PWM, "255"))
}

// today is the order for a device whose number of hwmon has changed.
func (o Order) today() Order {
	if _, err := os.Stat(o.Enable); !errors.Is(err, fs.ErrNotExist) {
		return o
	}
	device, name := filepath.Dir(filepath.Dir(o.Enable)), filepath.Base(o.Enable)
	if found, _ := filepath.Glob(filepath.Join(device, "hwmon*", name)); len(found) == 1 {
		o.Enable, o.PWM = found[0], strings.TrimSuffix(found[0], "_enable")
	}
	return o
}

// read and write use no poller of Go's: files of sysfs may answer EAGAIN, and
// the poller would wait for ever.
func read(path string) (string, error) {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	buf := make([]byte, 64)
	n, err := syscall.Read(fd, buf)
	if err != nil {
		return "", &os.PathError{Op: "read", Path: path, Err: err}
	}
	return strings.TrimSpace(string(buf[:max(n, 0)])), nil
}

func write(path, value string) error {
	fd, err := syscall.Open(path, syscall.O_WRONLY|syscall.O_TRUNC|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer syscall.Close(fd)
	if _, err := syscall.Write(fd, []byte(value+"\n")); err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// number is NaN for what cannot be read.
func number(path string) float64 {
	text, err := read(path)
	if err != nil {
		return math.NaN()
	}
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return math.NaN()
	}
	return v
}
