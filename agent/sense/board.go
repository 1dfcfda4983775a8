package sense

import (
	"cmp"
	"os"
	"runtime"
	"strings"
)

// Board is what a box says of itself.
type Board struct {
	Vendor   string // "" when unknown; white boxes that say "Default string" count as unknown
	Product  string
	Serial   string // DMI serials are readable by root only
	Class    string // one of the Class constants: a guess from DMI, see chassisClass
	Arch     string // of this program: amd64, arm64
	CPUs     int    // online; 0 when unknown
	MemBytes int64  // 0 when unknown
	// Simulated is true on a board of internal/simboard.
	Simulated bool
	BootID    string // changes at every boot
}

// The board classes.
const (
	ClassWallMount = "wall-mount"
	ClassITX       = "itx"
	ClassJetson    = "jetson"
	ClassServer    = "server"
	ClassUnknown   = "unknown"
)

// SimulatedMark is the file below the root that marks a simulated board.
const SimulatedMark = "etc/edgeherd-simulated"

// Board describes the box. The files are read once.
func (s *Sampler) Board() Board {
	s.boardOnce.Do(func() { s.boardFound = readBoard(s.opts.Root) })
	return s.boardFound
}

func readBoard(root string) Board {
	b := &builder{root: root}
	dmi := func(name string) string { return realName(text(b.path("sys/class/dmi/id", name))) }
	board := Board{
		Vendor: dmi("sys_vendor"), Product: dmi("product_name"), Serial: dmi("product_serial"),
		Class: chassisClass(dmi("chassis_type")), Arch: runtime.GOARCH,
		BootID: text(b.path("proc/sys/kernel/random/boot_id")),
	}
	// White boxes fill in the board and leave the system at "Default string".
	board.Vendor = cmp.Or(board.Vendor, dmi("board_vendor"))
	board.Product = cmp.Or(board.Product, dmi("board_name"))
	board.Serial = cmp.Or(board.Serial, dmi("board_serial"))
	if model := text(b.path("proc/device-tree/model")); model != "" {
		board.Product = model
		board.Vendor, _, _ = strings.Cut(model, " ")
		board.Serial = text(b.path("proc/device-tree/serial-number"))
		board.Class = ClassUnknown
		if strings.Contains(text(b.path("proc/device-tree/compatible")), "nvidia,tegra") || strings.Contains(model, "Jetson") {
			board.Class = ClassJetson
		}
	}
	if n, ok := parseCPUList(text(b.path("sys/devices/system/cpu/online"))); ok {
		board.CPUs = n
	}
	if mem, err := parseMeminfo([]byte(text(b.path("proc/meminfo")))); err == nil {
		board.MemBytes = int64(mem.b)
	}
	_, err := os.Stat(b.path(SimulatedMark))
	board.Simulated = err == nil
	return board
}

// realName drops what vendors leave in DMI fields they did not fill in.
func realName(s string) string {
	switch strings.ToLower(s) {
	case "default string", "default_string", "to be filled by o.e.m.", "to be filled by o.e.m", "o.e.m.", "oem", "system manufacturer",
		"system product name", "system serial number", "base board serial number", "not specified", "not applicable", "not available",
		"n/a", "na", "none", "unknown", "invalid", "empty", "serial number", "123456789", "0123456789", "1234567890", "xxxxxxxx":
		return ""
	}
	if strings.Trim(s, "0. -") == "" { // "00000000" is no serial number
		return ""
	}
	return s
}

// chassisClass maps the SMBIOS chassis type (DSP0134, table "System Enclosure
// or Chassis Types"). DMI cannot tell whether a box hangs on a wall: embedded
// PCs, gateways and sealed cases are counted as such.
func chassisClass(kind string) string {
	switch kind {
	case "24", "33", "34": // sealed-case PC, IoT gateway, embedded PC
		return ClassWallMount
	case "3", "4", "5", "6", "7", "13", "15", "16", "35", "36": // desktop to stick PC
		return ClassITX
	case "17", "23", "25", "28", "29": // main server, rack mount, multi-system, blade
		return ClassServer
	}
	return ClassUnknown
}
