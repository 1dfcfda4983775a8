package child

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
)

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// shows compares by JSON, which shows what pointers point to.
func shows(t *testing.T, got, want any) {
	t.Helper()
	g, err1 := json.MarshalIndent(got, "", " ")
	w, err2 := json.MarshalIndent(want, "", " ")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	if string(g) != string(w) {
		t.Errorf("got %s\nwant %s", g, w)
	}
}

func TestCardsOfOldAndNewDrivers(t *testing.T) {
	p := func(v float64) *float64 { return &v }
	yes, no := true, false
	for file, want := range map[string][]Card{
		"nvidia-v11.xml": {{UUID: "GPU-00000000-0000-4000-8000-000000000011", Name: "Tesla T4", Bus: "0000:00:1e.0",
			DieCelsius: p(85), SlowCelsius: p(93), PowerWatts: p(69.81), BusyRatio: p(0.98), MemoryRatio: p(0.25),
			ClockHertz: p(1050e6), Throttled: &yes, Uncorrected: p(3)}},
		"nvidia-v13.xml": {{UUID: "GPU-00000000-0000-4000-8000-000000000021", Name: "One that fell off the bus", Bus: "0000:21:00.0"},
			{UUID: "GPU-00000000-0000-4000-8000-000000000061", Name: "Second of two", Bus: "0000:61:00.0",
				DieCelsius: p(24), MemoryCelsius: p(31), PowerWatts: p(3.97), FanRatio: p(0.3), BusyRatio: p(0),
				ClockHertz: p(180e6), Throttled: &no, RowsFailed: &yes}},
	} {
		got, err := Cards(fixture(t, file))
		if err != nil {
			t.Fatal(err)
		}
		shows(t, got, want)
	}
}

func TestDrives(t *testing.T) {
	p := func(v float64) *float64 { return &v }
	yes, no := true, false
	for file, want := range map[string]Drive{
		"smart-nvme.json": {Model: "Example NVMe 1TB", Serial: "S000NVME1", Celsius: p(61), WearRatio: p(1.12), SpareRatio: p(0.97),
			SpareLimitRatio: p(0.1), MediaErrors: p(3), UnsafeShutdowns: p(14), HotSeconds: p(1500), CriticalSeconds: p(0),
			PowerOnSeconds: p(9000 * 3600), Failing: &no},
		"smart-sata.json": {Model: "Example SSD 240G", Serial: "S000SATA1", Celsius: p(38), WearRatio: p(1 - 0.81), MediaErrors: p(10), Failing: &yes},
	} {
		got, err := DriveOf(fixture(t, file))
		if err != nil {
			t.Fatal(err)
		}
		shows(t, got, want)
	}
	if d, err := DriveOf(fixture(t, "smart-none.json")); err == nil || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("drive %+v, error %v", d, err)
	}
}

// The answer of the real program to a device that is not there is the only one
// that every machine gives.
func TestRealSmartctlIsUnderstood(t *testing.T) {
	out, err := Output(t.Context(), assets.Program(t, "smartctl"), SMART("/dev/there-is-none")...)
	if err == nil {
		t.Error("no error from smartctl")
	}
	if _, err := DriveOf(out); err == nil || !strings.Contains(err.Error(), "/dev/there-is-none") {
		t.Errorf("%v from %s", err, out)
	}
}

func TestChildThatHangsIsEndedWithAllItStarted(t *testing.T) {
	pid := filepath.Join(t.TempDir(), "pid")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := Output(ctx, "/bin/sh", "-c", "sleep 600 & echo $! >"+pid+".new; mv "+pid+".new "+pid+"; wait")
		ended <- err
	}()
	deadline, tick := time.Now().Add(5*time.Minute), time.NewTicker(10*time.Millisecond)
	defer tick.Stop()
	number, err := os.ReadFile(pid)
	for ; err != nil; number, err = os.ReadFile(pid) {
		if time.Now().After(deadline) {
			t.Fatalf("the shell started no child: %v", err)
		}
		<-tick.C
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	for {
		state, err := os.ReadFile("/proc/" + strings.TrimSpace(string(number)) + "/stat")
		if err != nil || strings.Contains(string(state), ") Z ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the grandchild still runs: %s", state)
		}
		<-tick.C
	}
}

func TestChildThatFailsTellsWhy(t *testing.T) {
	out, err := Output(t.Context(), "/bin/sh", "-c", "echo findings; echo no driver >&2; exit 9")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 9 || !strings.Contains(err.Error(), "no driver") || string(out) != "findings\n" {
		t.Errorf("%q, %v", out, err)
	}
}

func TestEndlessOutputIsRefused(t *testing.T) {
	if _, err := Output(t.Context(), "/bin/sh", "-c", "head -c 9000000 /dev/zero"); !errors.Is(err, ErrTooMuch) {
		t.Errorf("error %v", err)
	}
}

// What decodes is plausible, whatever the bytes were.
func FuzzPrograms(f *testing.F) {
	for _, name := range []string{"nvidia-v11.xml", "nvidia-v13.xml", "smart-nvme.json", "smart-sata.json", "smart-none.json"} {
		f.Add(fixture(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		between := func(what string, v *float64, lo, hi float64) {
			if v != nil && !(*v >= lo && *v <= hi) {
				t.Errorf("%s %v", what, *v)
			}
		}
		cards, err := Cards(data)
		if err != nil && cards != nil {
			t.Error("cards beside an error")
		}
		for _, c := range cards {
			between("die", c.DieCelsius, -40, 125)
			between("power", c.PowerWatts, 0.1, 2000)
			between("fan", c.FanRatio, 0, 1.1)
			between("memory", c.MemoryRatio, 0, 1)
			if c.DieCelsius != nil && *c.DieCelsius == 0 {
				t.Error("a die at 0 °C")
			}
		}
		d, err := DriveOf(data)
		if err != nil && d != (Drive{}) {
			t.Error("a drive beside an error")
		}
		between("drive", d.Celsius, -40, 125)
		between("wear", d.WearRatio, 0, 2.55)
		between("spare", d.SpareRatio, 0, 1)
	})
}
