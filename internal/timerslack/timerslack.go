// Package timerslack lets Go's scheduler sleep in processes that call the
// kernel, or C, often and for short times.
//
// The monitor thread of the scheduler wakes up after 20 µs, some sixty times,
// whenever a thread comes back from a system call to a program that was idle.
// In a server of models that took more CPU time than all else around the model:
// 100 µs a request on a small virtual machine. Timer slack is how late the
// kernel may wake a thread, to do it together with others. No thread may set it
// for another without privileges, but processes and threads inherit it, so the
// monitor gets it from the thread that starts the program.
//
// The price: timers of the process are late by up to as much when nothing else
// wakes the processor. Hence children that are programs of others get the usual
// slack back.
package timerslack

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	Usual  = 50 * time.Microsecond // the kernel's default
	Server = 4 * time.Millisecond  // timeouts of a server of models are longer by far
	Worker = 10 * time.Millisecond // a worker has no timers; the monitor asks for no longer sleeps
)

// Set is for this thread and for threads and processes that it creates.
func Set(d time.Duration) error {
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(d), 0, 0, 0); err != nil {
		return fmt.Errorf("set timer slack: %w", err)
	}
	return nil
}

// Start is cmd.Start with a slack for the process.
func Start(cmd *exec.Cmd, d time.Duration) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err == nil && was > 0 && Set(d) == nil { // it only saves: not a reason not to start
		defer func() { _ = Set(time.Duration(was)) }()
	}
	return cmd.Start()
}

// Restart executes this program anew, in the same process, unless the thread
// has the slack already. It comes first in main, before anything is open. It
// returns when there is nothing to do, or when that is not possible here: the
// program works as well without it.
func Restart(d time.Duration) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	was, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || was >= int(d) || Set(d) != nil {
		return
	}
	// Threads with real-time priority have none, whatever they ask for.
	if now, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err == nil && now >= int(d) {
		if path, err := os.Executable(); err == nil { // /proc/self/exe would change the name that ps shows
			restore := kernelEnds()
			_ = syscall.Exec(path, os.Args, os.Environ())
			restore()
		}
	}
	_ = Set(time.Duration(was))
}

// kernelEnds has the kernel end the program at a signal that asks for it, instead
// of Go's handler, until restore: that handler may run on one thread while another
// executes the program anew, and would be gone together with the signal.
func kernelEnds() (restore func()) {
	// The kernel's struct sigaction is a handler, flags, a restorer and the mask;
	// zeros are SIG_DFL.
	type action [4]uint64
	change := func(signal syscall.Signal, to, was *action) {
		// It fails for signals that do not exist only.
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(signal), uintptr(unsafe.Pointer(to)), uintptr(unsafe.Pointer(was)), 8, 0, 0)
	}
	signals := [...]syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM}
	var was [len(signals)]action
	for i, signal := range signals {
		change(signal, nil, &was[i])
		const ignored = 1 // SIG_IGN: nohup, or a shell's background job
		if was[i][0] != ignored {
			change(signal, &action{}, nil)
		}
	}
	time.Sleep(time.Millisecond) // a handler that has begun ends the program by then
	return func() {
		for i, signal := range signals {
			change(signal, &was[i], nil)
		}
	}
}
