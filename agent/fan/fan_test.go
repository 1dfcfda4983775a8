package fan

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

var policy = Policy{SKU: "ACME X1", Chip: "nct6798", PWM: 2, Raise: []Point{{50, 0.5}, {75, 0.9}}}

// board is a chip with a firmware of its own, and a fan that may misbehave.
type board struct {
	t    *testing.T
	root string
	dir  string
	die  float64
	at   time.Duration
	fan  *Fan
	said []Change

	curve        func(die float64) float64
	deaf, seized bool
	guards       []*tame
	noGuard      error
}

// tame is a guard in this process.
type tame struct {
	io.WriteCloser
	done chan error
}

func newBoard(t *testing.T) *board {
	b := &board{t: t, root: t.TempDir(), die: 40, at: time.Hour}
	b.dir = filepath.Join(b.root, "sys/class/hwmon/hwmon4")
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	b.put("name", "nct6798")
	b.put("pwm2_enable", "5")
	b.turn()
	return b
}

func (b *board) put(name, value string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), []byte(value+"\n"), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

func (b *board) get(name string) float64 { return number(filepath.Join(b.dir, name)) }

// firmware is the board's own curve: 20 % and 1 % a kelvin from 40 °C on.
func (b *board) firmware() float64 {
	if b.curve != nil {
		return b.curve(b.die)
	}
	return min(max(0.2+0.01*(b.die-40), 0.2), 1)
}

// turn is what the hardware does in the time of a step.
func (b *board) turn() {
	if b.get("pwm2_enable") >= 2 {
		b.put("pwm2", strconv.Itoa(int(math.Round(b.firmware()*255))))
	}
	rpm := 40 * math.Round(b.get("pwm2")/255*100)
	switch {
	case b.seized:
		rpm = 0
	case b.deaf:
		rpm = 40 * math.Round(b.firmware()*100)
	}
	b.put("fan2_input", strconv.Itoa(int(rpm)))
}

func (b *board) open() error {
	var err error
	b.fan, err = Open(Options{
		Root: b.root, Journal: filepath.Join(b.root, "fan.json"), Boot: "boot", SKU: "ACME X1", Policy: policy,
		Guard: b.guard, OnChange: func(c Change) { b.said = append(b.said, c) },
	}, slog.New(slog.DiscardHandler))
	return err
}

func (b *board) mustOpen() {
	b.t.Helper()
	if err := b.open(); err != nil {
		b.t.Fatal(err)
	}
}

func (b *board) guard(order []byte) (io.WriteCloser, error) {
	if b.noGuard != nil {
		return nil, b.noGuard
	}
	r, w := io.Pipe()
	g := &tame{w, make(chan error, 1)}
	go func() { g.done <- Guard(context.Background(), r) }()
	_, err := w.Write(order)
	b.guards = append(b.guards, g)
	return g, err
}

// run lets time pass at a temperature of the die, in steps of 10 s, and of a
// minute where it is long.
func (b *board) run(d time.Duration, die float64) {
	step := 10 * time.Second
	if d >= 25*time.Minute {
		step = time.Minute
	}
	for end := b.at + d; b.at < end; {
		b.at += step
		b.die = die
		wobble := 0.1 * float64(int(b.at/step)%2)
		b.turn()
		b.fan.Step(b.at, die+wobble, 95)
	}
}

// learnt is a board whose firmware was watched up to 74 °C.
func learnt(t *testing.T) *board {
	b := newBoard(t)
	b.mustOpen()
	b.run(2*time.Minute, 74)
	b.run(8*time.Minute, 45)
	return b
}

func (b *board) mustBeFirmwares(why string) {
	b.t.Helper()
	if mode := b.get("pwm2_enable"); mode != 5 {
		b.t.Errorf("mode %v, want the firmware's 5", mode)
	}
	if n := len(b.said); n == 0 || b.said[n-1].Raised || !strings.Contains(b.said[n-1].Reason, why) {
		b.t.Errorf("said %+v, want back to the firmware: %q", b.said, why)
	}
	if _, err := os.Stat(b.fan.opts.Journal); !errors.Is(err, os.ErrNotExist) {
		b.t.Errorf("fan.json is still there: %v", err)
	}
}

func TestAFanIsRaisedAndGivenBack(t *testing.T) {
	b := learnt(t)
	if b.get("pwm2_enable") != 5 || len(b.said) > 0 {
		t.Fatalf("touched while the firmware is watched: %+v", b.said)
	}
	b.run(time.Minute, 60)
	if b.get("pwm2_enable") != 1 || math.Abs(b.get("pwm2")/255-0.66) > 0.02 {
		t.Fatalf("mode %v, duty %.2f, want 1 and 0.66", b.get("pwm2_enable"), b.get("pwm2")/255)
	}
	// On the way down: 3 K later, and a step a minute.
	b.run(50*time.Second, 55)
	if d := b.get("pwm2") / 255; d < 0.6 {
		t.Errorf("%.2f after 50 s of 55 °C: too fast", d)
	}
	b.run(20*time.Minute, 55)
	if d := b.get("pwm2") / 255; math.Abs(d-0.63) > 0.02 { // of 58 °C
		t.Errorf("%.2f after 20 min of 55 °C, want 0.63", d)
	}
	b.run(20*time.Minute, 40)
	b.mustBeFirmwares("as much")
	if err := <-b.guards[0].done; err != nil {
		t.Error(err)
	}
	b.run(2*time.Minute, 65)
	if b.get("pwm2_enable") != 1 {
		t.Error("not raised a second time")
	}
	b.fan.Close()
	b.mustBeFirmwares("stops")
}

func TestARaisedFanNeverTurnsSlowerThanTheFirmwareWould(t *testing.T) {
	b := learnt(t)
	for _, die := range []float64{52, 70, 74, 60, 51, 73, 55, 45, 65} {
		for range 12 {
			b.run(20*time.Second, die)
			if d, f := b.get("pwm2")/255, b.firmware(); d < f-0.03 && b.at-b.fan.state.asked > followBy {
				t.Errorf("%v °C: duty %.2f, firmware %.2f", die, d, f)
			}
			if b.get("pwm2") < leastDuty*255-1 {
				t.Errorf("duty %v", b.get("pwm2"))
			}
		}
	}
}

func TestAFirmwareThatWantsMoreThanThePolicyGetsIt(t *testing.T) {
	b := newBoard(t)
	b.curve = func(die float64) float64 {
		if die < 65 {
			return 0.25
		}
		return 0.95
	}
	b.mustOpen()
	b.run(2*time.Minute, 72)
	b.run(10*time.Minute, 60)
	if b.get("pwm2_enable") != 1 {
		t.Fatal("not raised")
	}
	for range 8 { // never less than the firmware for longer than the steps up take
		b.run(time.Minute, 70)
		if d := b.get("pwm2") / 255; d < 0.93 {
			t.Errorf("duty %.2f at 70 °C, the firmware would give 0.95", d)
		}
	}
}

func TestADoubtGivesTheFanBackAndLocksIt(t *testing.T) {
	for _, c := range []struct {
		name, why string
		breakIt   func(b *board)
	}{
		{"die missing", "missing", func(b *board) { b.run(5*time.Second, math.NaN()) }},
		{"die stuck", "does not move", func(b *board) {
			for range 200 {
				b.at += 10 * time.Second
				b.turn()
				b.fan.Step(b.at, 60, 95)
			}
		}},
		{"fan stands", "stands still", func(b *board) { b.seized = true; b.run(10*time.Second, 60) }},
		{"tachometer gone", "does not say", func(b *board) {
			os.Remove(filepath.Join(b.dir, "fan2_input"))
			b.at += 5 * time.Second
			b.fan.Step(b.at, 60, 95)
		}},
		{"close to the limit", "close to its limit", func(b *board) { b.run(5*time.Second, 86) }},
		{"hotter than was learnt", "hotter", func(b *board) { b.run(5*time.Second, 79) }},
		{"someone else writes", "something else", func(b *board) {
			b.run(20*time.Second, 60)
			b.at += 5 * time.Second
			b.put("pwm2", "70")
			b.fan.Step(b.at, 60, 95)
		}},
		{"the guard is killed", "guard", func(b *board) {
			b.guards[0].Close()
			<-b.guards[0].done // it has restored the fan, which a killed one would not
			b.put("pwm2_enable", "1")
			b.run(5*time.Second, 60)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := learnt(t)
			b.run(30*time.Second, 60)
			if b.get("pwm2_enable") != 1 {
				t.Fatal("not raised")
			}
			c.breakIt(b)
			b.mustBeFirmwares(c.why)
			b.seized = false
			b.turn()
			b.run(50*time.Minute, 60)
			if b.get("pwm2_enable") != 5 {
				t.Error("raised again within the hour")
			}
			b.run(25*time.Minute, 60)
			if b.get("pwm2_enable") != 1 {
				t.Error("locked for ever")
			}
			b.fan.Close()
		})
	}
}

func TestAFanThatDoesNotFollowIsGivenBack(t *testing.T) {
	b := learnt(t)
	b.deaf = true
	b.run(time.Minute, 60)
	b.mustBeFirmwares("does not follow")
}

func TestNothingIsWrittenWithoutAGuard(t *testing.T) {
	b := learnt(t)
	b.noGuard = errors.New("no such program")
	b.run(3*time.Hour, 60)
	if _, err := os.Stat(b.fan.opts.Journal); b.get("pwm2_enable") != 5 || len(b.said) > 0 || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("mode %v, said %+v, fan.json: %v", b.get("pwm2_enable"), b.said, err)
	}
}

// TestAModeThatIsRefusedIsWrittenAgain: no hour at full speed, and no fan that
// stays raised because one write failed.
func TestAModeThatIsRefusedIsWrittenAgain(t *testing.T) {
	b := learnt(t)
	b.run(30*time.Second, 60)
	enable := b.fan.order.Enable
	hidden := enable + "_hidden"
	if err := os.Rename(enable, hidden); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(enable, 0o755); err != nil { // refuses writes
		t.Fatal(err)
	}
	for range 3 {
		b.at += 10 * time.Second
		b.fan.Step(b.at, math.NaN(), 95)
	}
	if n := len(b.said); b.get("pwm2") != 255 || n == 0 || !b.said[n-1].Raised || b.said[n-1].Duty != 1 || n > 2 {
		t.Errorf("duty %v, said %+v, want full speed, said once", b.get("pwm2"), b.said)
	}
	if err := errors.Join(os.Remove(enable), os.Rename(hidden, enable)); err != nil {
		t.Fatal(err)
	}
	b.at += 10 * time.Second
	b.fan.Step(b.at, 60, 95)
	b.mustBeFirmwares("writes again")
}

// TestGivingBackHasTheLastWord: a write that hung comes to its end before it.
func TestGivingBackHasTheLastWord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := learnt(t)
		b.run(30*time.Second, 60)
		hung := make(chan struct{})
		err := b.fan.within(func() error {
			<-hung
			b.put("pwm2_enable", "1")
			return nil
		})
		if err == nil || !b.fan.dead {
			t.Fatalf("a driver that hangs was waited for: %v", err)
		}
		b.fan.Close()
		b.put("pwm2_enable", "5") // as the guard does
		close(hung)
		synctest.Wait()
		if b.get("pwm2_enable") != 5 {
			t.Error("a write that hung raised the fan for good")
		}
	})
}

func TestADriverThatIsLoadedAnewGetsItsOwnFanBack(t *testing.T) {
	b := newBoard(t)
	device := filepath.Join(b.root, "sys/devices/platform/nct6775.656/hwmon/hwmon4")
	if err := errors.Join(os.MkdirAll(filepath.Dir(device), 0o755), os.Rename(b.dir, device), os.Symlink(device, b.dir)); err != nil {
		t.Fatal(err)
	}
	b.mustOpen()
	b.run(2*time.Minute, 74)
	b.run(9*time.Minute, 60)
	if b.get("pwm2_enable") != 1 {
		t.Fatal("not raised")
	}
	// Its number goes to another chip.
	other := filepath.Join(b.root, "sys/devices/platform/other/hwmon/hwmon4")
	moved := filepath.Join(filepath.Dir(device), "hwmon7")
	if err := errors.Join(os.Rename(device, moved), os.MkdirAll(other, 0o755), os.Remove(b.dir), os.Symlink(other, b.dir)); err != nil {
		t.Fatal(err)
	}
	b.put("pwm2_enable", "2")
	b.put("pwm2", "99")
	b.put("fan2_input", "900")
	b.at += 10 * time.Second
	b.fan.Step(b.at, 60, 95)
	if b.get("pwm2_enable") != 2 || b.get("pwm2") != 99 {
		t.Error("the fan of another chip was written to")
	}
	if mode := number(filepath.Join(moved, "pwm2_enable")); mode != 5 {
		t.Errorf("mode %v of the fan that was raised, want 5", mode)
	}
}

// TestTemperaturesThatWereNotSeenAreTakenFromAbove: the firmware's curve between
// two temperatures that it was seen at is not known.
func TestTemperaturesThatWereNotSeenAreTakenFromAbove(t *testing.T) {
	b := newBoard(t)
	b.curve = func(die float64) float64 { // steep where it was not watched
		if die < 55 {
			return 0.25
		}
		return 0.8
	}
	b.mustOpen()
	b.run(2*time.Minute, 72)
	b.run(10*time.Minute, 52)
	if b.get("pwm2_enable") != 1 {
		t.Fatal("not raised")
	}
	b.run(time.Minute, 58)
	if d := b.get("pwm2") / 255; d < 0.79 {
		t.Errorf("duty %.2f at 58 °C, the firmware would give 0.80", d)
	}
}

func TestAFanThatIsNotTheFirmwaresIsLeftAlone(t *testing.T) {
	for _, mode := range []string{"0", "1"} {
		b := learnt(t)
		b.put("pwm2_enable", mode)
		b.put("pwm2", "80")
		b.run(time.Minute, 60)
		if b.get("pwm2_enable") == 1 && mode != "1" || b.get("pwm2") != 80 {
			t.Errorf("mode %s: the fan was touched", mode)
		}
	}
}

func TestPoliciesOfOtherBoxesAndOfOtherChipsAreNotFollowed(t *testing.T) {
	b := newBoard(t)
	open := func(sku string, change func(*Policy)) error {
		p := policy
		change(&p)
		_, err := Open(Options{Root: b.root, Journal: filepath.Join(b.root, "fan.json"), Boot: "boot", SKU: sku, Policy: p, Guard: b.guard}, slog.New(slog.DiscardHandler))
		return err
	}
	same := func(*Policy) {}
	if err := open("ACME X2", same); !errors.Is(err, ErrOther) {
		t.Errorf("other box: %v", err)
	}
	if err := open("ACME X1", func(p *Policy) { p.Chip = "it87" }); err == nil || !strings.Contains(err.Error(), "0 chips are called it87") {
		t.Errorf("other chip: %v", err)
	}
	if err := open("ACME X1", func(p *Policy) { p.PWM = 3 }); err == nil {
		t.Error("a fan that is not there was accepted")
	}
	for _, raise := range [][]Point{nil, {{50, 0.1}}, {{50, 1.1}}, {{10, 0.5}}, {{50, 0.5}, {50, 0.6}}, {{50, 0.5}, {60, 0.4}}, {{math.NaN(), 0.5}}} {
		if err := open("ACME X1", func(p *Policy) { p.Raise = raise }); err == nil {
			t.Errorf("curve %v was accepted", raise)
		}
	}
}

func TestACrashIsCuredByTheNextStartAndByTheStopOfTheUnit(t *testing.T) {
	b := learnt(t)
	b.run(30*time.Second, 60)
	if b.get("pwm2_enable") != 1 {
		t.Fatal("not raised")
	}
	if err := Restore(b.fan.opts.Journal, "next boot"); err != nil || b.get("pwm2_enable") != 1 {
		t.Errorf("another boot's fan was written to: %v", err)
	}
	b = learnt(t)
	b.run(30*time.Second, 60)
	b.mustOpen()
	if b.get("pwm2_enable") != 5 {
		t.Error("the next agent left the fan raised")
	}
	if err := os.WriteFile(b.fan.opts.Journal, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Restore(b.fan.opts.Journal, "boot"); err == nil {
		t.Error("a journal that cannot be read was passed over")
	}
	if err := Restore(b.fan.opts.Journal, "boot"); err != nil {
		t.Errorf("it keeps the agent from starting for ever: %v", err)
	}
}

func TestAModeThatDoesNotComeBackMeansFullSpeed(t *testing.T) {
	b := newBoard(t)
	// A chip that does not know the mode any more: a directory refuses the write.
	o := Order{PWM: filepath.Join(b.dir, "pwm2"), Enable: filepath.Join(b.dir, "gone", "pwm2_enable"), Mode: "5"}
	if err := o.restore(); err == nil || b.get("pwm2") != 255 {
		t.Errorf("duty %v, %v", b.get("pwm2"), err)
	}
}

func TestTheGuardRestoresWhatIsSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBoard(t)
		for _, c := range []struct {
			name string
			end  func(w io.WriteCloser, stop func())
			want float64
		}{
			{"silence", func(io.WriteCloser, func()) {}, 5},
			{"end of the pipe", func(w io.WriteCloser, _ func()) { w.Close() }, 5},
			{"told to stop", func(_ io.WriteCloser, stop func()) { stop() }, 5},
			{"goodbye", func(w io.WriteCloser, _ func()) { io.WriteString(w, goodbye); w.Close() }, 1},
		} {
			b.put("pwm2_enable", "1")
			ctx, stop := context.WithCancel(context.Background())
			r, w := io.Pipe()
			done := make(chan error, 1)
			go func() { done <- Guard(ctx, r) }()
			fmt.Fprintf(w, `{"pwm":%q,"enable":%q,"mode":"5"}`+"\n", filepath.Join(b.dir, "pwm2"), filepath.Join(b.dir, "pwm2_enable"))
			for range 10 { // signs of life
				time.Sleep(20 * time.Second)
				w.Write([]byte("\n"))
			}
			if b.get("pwm2_enable") != 1 {
				t.Errorf("%s: restored under an agent that lives", c.name)
			}
			c.end(w, stop)
			time.Sleep(guardSilence + time.Second)
			if err := <-done; err != nil || b.get("pwm2_enable") != c.want {
				t.Errorf("%s: mode %v, %v", c.name, b.get("pwm2_enable"), err)
			}
			stop()
			w.Close()
		}
		if err := Guard(context.Background(), strings.NewReader("nonsense\n")); err == nil {
			t.Error("an order that is none was taken")
		}
	})
}

// TestMain lets this program be the agent and the guard of the next test.
func TestMain(m *testing.M) {
	switch os.Getenv("FAN_TEST") {
	case "guard":
		if err := Guard(context.Background(), os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case "agent":
		beAgent()
	}
	os.Exit(m.Run())
}

// beAgent takes a fan over with a guard of its own process, says so, and lives on.
func beAgent() {
	var order Order
	order.PWM, order.Enable, order.Mode = os.Getenv("FAN_PWM"), os.Getenv("FAN_PWM")+"_enable", "5"
	f := &Fan{opts: Options{Journal: os.Getenv("FAN_JOURNAL"), Boot: "boot", Guard: startGuard}, order: order, log: slog.New(slog.DiscardHandler)}
	if err := f.set(0.8, true); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("raised")
	select {}
}

func startGuard(order []byte) (io.WriteCloser, error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FAN_TEST=guard")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	w, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	_, err = w.Write(order)
	return w, err
}

func TestKillNineOfTheAgentGivesTheFanBack(t *testing.T) {
	b := newBoard(t)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "FAN_TEST=agent", "FAN_PWM="+filepath.Join(b.dir, "pwm2"), "FAN_JOURNAL="+filepath.Join(b.root, "fan.json"))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, _ := bufio.NewReader(out).ReadString('\n'); line != "raised\n" {
		t.Fatalf("the agent says %q", line)
	}
	if b.get("pwm2_enable") != 1 || b.get("pwm2") != 204 {
		t.Fatalf("mode %v, duty %v", b.get("pwm2_enable"), b.get("pwm2"))
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(time.Minute)
	for b.get("pwm2_enable") != 5 {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("the fan is still raised")
		}
	}
}
