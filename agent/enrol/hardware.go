package enrol

import (
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/enrol"
)

// readHardware reads what tells this machine from others. What cannot be read is
// left empty: a board without serial numbers, or an agent that is not root.
func readHardware(root string) enrol.Hardware {
	word := func(elem ...string) string { return readWord(filepath.Join(append([]string{root}, elem...)...)) }
	h := enrol.Hardware{
		DMIUUID: word("sys/class/dmi/id/product_uuid"), BoardSerial: word("sys/class/dmi/id/board_serial"),
		DTSerial: word("proc/device-tree/serial-number"), Arch: runtime.GOARCH,
		Model: word("sys/class/dmi/id/product_name"),
	}
	if model := word("proc/device-tree/model"); model != "" {
		h.Model = model
	}
	h.MACs = builtInPorts(root)
	// The first disk of the usual kinds: boxes have one.
	for _, pattern := range []string{"sys/block/nvme*/device/serial", "sys/block/mmcblk*/device/serial", "sys/block/sd*/device/serial", "sys/block/vd*/serial"} {
		if found, err := filepath.Glob(filepath.Join(root, pattern)); err == nil && len(found) > 0 {
			h.DiskSerial = readWord(found[0])
			break
		}
	}
	return h
}

// maxWord is what the controller takes of one word.
const maxWord = 128

// fillers are what makers write where a serial number should be.
var fillers = []string{"", "none", "default string", "to be filled by o.e.m.", "system serial number", "not specified", "0123456789"}

func readWord(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	word := strings.TrimSpace(strings.Trim(string(text), "\x00"))
	if slices.Contains(fillers, strings.ToLower(word)) {
		return ""
	}
	return word[:min(len(word), maxWord)]
}

// builtInPorts are the addresses of network ports that are hardware and not on
// USB: a dongle moves from box to box.
func builtInPorts(root string) []string {
	dirs, err := filepath.Glob(filepath.Join(root, "sys/class/net/*"))
	if err != nil {
		return nil
	}
	var macs []string
	for _, dir := range dirs {
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err != nil || strings.Contains(device, "/usb") {
			continue
		}
		if mac := readWord(filepath.Join(dir, "address")); mac != "" && mac != "00:00:00:00:00:00" {
			macs = append(macs, mac)
		}
	}
	slices.Sort(macs)
	return macs[:min(len(macs), 32)]
}
