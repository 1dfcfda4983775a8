package ups

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

const variables = `BEGIN LIST VAR rack
VAR rack battery.charge "87"
VAR rack battery.runtime "1440"
VAR rack device.mfr "Maker \"of\" supplies"
VAR rack ups.load "23.5"
VAR rack ups.realpower "180"
VAR rack ups.status "OB DISCHRG"
VAR rack ups.temperature "31.5"
VAR rack ambient.temperature "22.5"
END LIST VAR rack
`

// server speaks the protocol as RFC 9271 has it and answers what it is told.
func server(t testing.TB, answers map[string]string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for lines := bufio.NewScanner(conn); lines.Scan(); {
					answer, known := answers[lines.Text()]
					if !known {
						answer = "ERR UNKNOWN-COMMAND\n"
					}
					fmt.Fprint(conn, answer)
				}
			}()
		}
	}()
	return l.Addr().String()
}

func show(s Supply) string {
	f := func(v *float64) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprint(*v)
	}
	battery := "-"
	if s.OnBattery != nil {
		battery = fmt.Sprint(*s.OnBattery)
	}
	return fmt.Sprintf("%s charge %s load %s runtime %s celsius %s watts %s battery %s", s.Name, f(s.ChargeRatio), f(s.LoadRatio),
		f(s.RuntimeSeconds), f(s.Celsius), f(s.Watts), battery)
}

func TestSupplySaysHowItStands(t *testing.T) {
	address := server(t, map[string]string{
		"LIST UPS":      "BEGIN LIST UPS\nUPS rack \"in the rack\"\nUPS gone \"unplugged\"\nEND LIST UPS\n",
		"LIST VAR rack": variables, "LIST VAR gone": "ERR DRIVER-NOT-CONNECTED\n", "LOGOUT": "OK Goodbye\n",
	})
	list, err := Read(t.Context(), address, "")
	if err == nil || !strings.Contains(err.Error(), "gone: upsd says DRIVER-NOT-CONNECTED") {
		t.Errorf("error %v", err)
	}
	if want := "rack charge 0.87 load 0.235 runtime 1440 celsius 22.5 watts 180 battery true"; len(list) != 1 || show(list[0]) != want {
		t.Errorf("got %v, want %s", list, want)
	}
	if _, err := Read(t.Context(), address, "no such\nLIST"); err == nil {
		t.Error("a name with a line break is sent")
	}
}

func TestServerThatIsSilentOrEndlessIsLeft(t *testing.T) {
	for name, answer := range map[string]string{
		"silent": "", "endless": strings.Repeat("UPS a \"b\"\n", 3000), "long line": strings.Repeat("x", 10_000) + "\n",
		"no protocol": "220 mail ready\n", "quote": "UPS a \"b\n",
	} {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		list, err := Read(ctx, server(t, map[string]string{"LIST UPS": answer}), "")
		cancel()
		if err == nil || list != nil {
			t.Errorf("%s: %v, %v", name, list, err)
		}
	}
}

// The real server with its own dummy driver.
func TestRealServer(t *testing.T) {
	// Debian's /usr/sbin/upsd is a script that wants to be a service.
	upsd, driver := "/lib/nut/upsd", "/lib/nut/dummy-ups"
	for _, program := range []string{upsd, driver} {
		if _, err := os.Stat(program); err != nil {
			assets.Absent(t, fmt.Errorf("nut-server: %w", err))
		}
	}
	dir, err := os.MkdirTemp("", "eh") // the driver's socket needs a short name
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	for name, text := range map[string]string{
		"ups.conf":   "user = root\n[rack]\ndriver = dummy-ups\nport = rack.dev\ndesc = \"in the rack\"\n",
		"upsd.conf":  "LISTEN 127.0.0.1 " + port + "\n",
		"upsd.users": "",
		"rack.dev":   "battery.charge: 87\nbattery.runtime: 1440\nups.load: 23.5\nups.realpower: 180\nups.status: OL\nups.temperature: 31.5\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	run := func(program string, args ...string) {
		cmd := exec.Command(program, args...)
		cmd.Env = append(os.Environ(), "NUT_CONFPATH="+dir, "NUT_STATEPATH="+dir, "NUT_ALTPIDPATH="+dir, "NUT_PIDPATH="+dir)
		cmd.Dir = dir
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	run(driver, "-a", "rack", "-F", "-u", "root")
	run(upsd, "-F", "-u", "root")
	deadline, tick := time.Now().Add(5*time.Minute), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		list, err := Read(ctx, address, "")
		cancel()
		if err == nil && len(list) == 1 && list[0].ChargeRatio != nil {
			if got, want := show(list[0]), "rack charge 0.87 load 0.235 runtime 1440 celsius 31.5 watts 180 battery false"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no answer: %v, %v", list, err)
		}
		<-tick.C
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(variables)
	f.Add("BEGIN LIST UPS\nUPS a \"\\\"\"\nEND LIST UPS\n")
	f.Add(string(messages(report)))
	f.Add("\x00\x05A : B\xff\xff")
	f.Fuzz(func(t *testing.T, text string) {
		if lines, err := nisReport(strings.NewReader(text)); err == nil {
			if s, err := apc(lines); err == nil && (s.Celsius != nil && *s.Celsius == 0 || s.ChargeRatio != nil && !(*s.ChargeRatio <= 1) || s.Watts != nil && !(*s.Watts > 0)) {
				t.Errorf("%q: %s", text, show(s))
			}
		}
		for line := range strings.Lines(text) {
			w, err := words(strings.TrimRight(line, "\r\n"))
			if err != nil && w != nil || err == nil && len(w) == 0 {
				t.Errorf("%q: %q, %v", line, w, err)
			}
			if len(w) < 4 {
				continue
			}
			s := supply("x", [][]string{w[2:4]})
			if s.Celsius != nil && (*s.Celsius == 0 || *s.Celsius < -40 || *s.Celsius > 100) || s.ChargeRatio != nil && !(*s.ChargeRatio <= 1) {
				t.Errorf("%q: %s", line, show(s))
			}
		}
	})
}
