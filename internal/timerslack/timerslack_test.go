package timerslack

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain makes this binary a program that starts itself anew.
func TestMain(m *testing.M) {
	if os.Getenv("TIMERSLACK_TEST") == "restart" {
		Restart(Server)
		slack, err := os.ReadFile("/proc/self/timerslack_ns")
		if err != nil {
			panic(err)
		}
		os.Stdout.WriteString(strings.TrimSpace(string(slack)) + " " + strings.Join(os.Args[1:], " "))
		return
	}
	os.Exit(m.Run())
}

// TestSlackIsThatOfTheWholeProgram: the monitor thread started before main, and
// reads what its program was started with.
func TestSlackIsThatOfTheWholeProgram(t *testing.T) {
	for _, c := range []struct {
		name  string
		first time.Duration
		want  string
	}{
		{"set once", Usual, "4000000 a b"},
		{"there already", Worker, "10000000 a b"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "a", "b")
			cmd.Env = append(os.Environ(), "TIMERSLACK_TEST=restart")
			var out strings.Builder
			cmd.Stdout = &out
			if err := Start(cmd, c.first); err != nil {
				t.Fatal(err)
			}
			if err := cmd.Wait(); err != nil || out.String() != c.want {
				t.Errorf("%v, printed %q, want %q", err, out.String(), c.want)
			}
		})
	}
}

// TestSignalsComeBack: where the program could not be executed anew it goes on,
// and is told of signals as before.
func TestSignalsComeBack(t *testing.T) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGHUP)
	defer signal.Stop(told)
	kernelEnds()()
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil { // else this program ends
		t.Fatal(err)
	}
	<-told
}
