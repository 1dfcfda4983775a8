package bmc

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/freeport"
)

// record is a Full Sensor Record (IPMI 2.0, 43.1) whose reading is raw × m.
func record(id, entity, kind, unit, m byte, name string) string {
	b := []byte{0x20, 0, id, entity, 1, 0x7F, 0x68, kind, 1, 0, 0, 0, 0, 0, 0, 0, unit, 0, 0, m, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF,
		0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xC0 | byte(len(name))}
	b = append(b, name...)
	b = append([]byte{id, 0, 0x51, 0x01, byte(len(b))}, b...)
	var s strings.Builder
	for _, c := range b {
		fmt.Fprintf(&s, " 0x%02x", c)
	}
	return s.String()
}

// The real ipmitool reads OpenIPMI's simulated controller. The records are ours, all that goes over the wire is theirs.
func TestRealController(t *testing.T) {
	tool, simulator := assets.Program(t, "ipmitool"), assets.Program(t, "ipmi_sim")
	address, err := freeport.Address()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(address)
	emulator := "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nsel_enable 0x20 1000 0x0a\n"
	for i, s := range []struct {
		entity, kind, unit, m, raw byte
		name                       string
	}{{7, 1, 1, 1, 23, "Inlet Temp"}, {3, 1, 1, 1, 46, "CPU1 Temp"}, {7, 4, 18, 100, 58, "Fan1A"},
		{7, 0x0B, 6, 5, 34, "Pwr Consumption"}, {7, 1, 1, 1, 0, "Dead Temp"}, {7, 0x0B, 6, 10, 255, "Glitch"}} {
		id := byte(i + 1)
		emulator += fmt.Sprintf("sensor_add 0x20 0 %d 0x%02x 0x01\nsensor_set_event_support 0x20 0 %d enable scanning per-state%s\n"+
			"sensor_set_value 0x20 0 %d 0x%02x 0\nmain_sdr_add 0x20%s\n",
			id, s.kind, id, strings.Repeat(" 000000000000000", 4), id, s.raw, record(id, s.entity, s.kind, s.unit, s.m, s.name))
	}
	lan := fmt.Sprintf("name \"eh\"\nset_working_mc 0x20\nstartlan 1\naddr 127.0.0.1 %s\npriv_limit admin\n"+
		"allowed_auths_user none md2 md5 straight\nallowed_auths_admin none md2 md5 straight\n"+
		"guid a123456789abcdefa123456789abcdef\nendlan\nuser 2 true \"look\" \"secret\" admin 10 none md2 md5 straight\n", port)
	dir := t.TempDir()
	for name, text := range map[string]string{"sim.emu": emulator + "mc_enable 0x20\n", "lan.conf": lan} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(simulator, "-c", "lan.conf", "-f", "sim.emu", "-s", filepath.Join(dir, "state"), "-n")
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	extra := []string{"-I", "lanplus", "-C", "3", "-L", "user", "-N", "1", "-R", "1", "-H", "127.0.0.1", "-p", port, "-U", "look", "-P", "secret"}
	want := []Sensor{{"CPU1 Temp", Celsius, "", 46}, {"Inlet Temp", Celsius, Inlet, 23}, {"Fan1A", RPM, "", 5800}, {"Pwr Consumption", Watts, System, 170}}
	for begin := time.Now(); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		got, err := IPMI(ctx, tool, extra...)
		cancel()
		if slices.Equal(got, want) && err == nil {
			return
		}
		if time.Since(begin) > 5*time.Minute {
			t.Fatalf("got %v, %v\nwant %v", got, err, want)
		}
	}
}
