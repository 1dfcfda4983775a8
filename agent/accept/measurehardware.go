package accept

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
)

// settle is how often sensors are read before they are judged: rates need two
// reads, and programs such as nvidia-smi some seconds.
const settle = 4

// measureHardware looks at what is built in. It reads the sensors settle times,
// pause apart.
func (t *test) measureHardware(ctx context.Context) (h hardware) {
	var readings []sense.Reading
	for i := range settle {
		if i > 0 && !wait(ctx, t.opts.Pause) {
			return h
		}
		readings, _ = t.sampler.Read(ctx) // what is missing is judged
		t.tell(Event{Level: t.level, Step: "sensors", Done: float64(i+1) / settle})
	}
	board := t.sampler.Board()
	h.cpus, h.memoryBytes = board.CPUs, board.MemBytes
	h.dieLimit, _ = t.sampler.DieLimitCelsius()
	h.accelerators = t.tree.accelerators()
	h.temps = map[string]float64{}
	failing, wear := map[string]bool{}, map[string]float64{}
	for _, r := range readings {
		name, label, _ := strings.Cut(strings.TrimSuffix(r.Metric, "}"), "{")
		switch sense.Metric(name) {
		case sense.FanRPM:
			h.fans = append(h.fans, fan{label, r.Value})
		case sense.DiskFailing:
			failing[label] = r.Value != 0
		case sense.DiskWear:
			wear[label] = r.Value
		case sense.Power:
			if label == "" {
				h.power = &r.Value
			}
		}
	}
	for role, metric := range roles {
		if i := slices.IndexFunc(readings, func(r sense.Reading) bool { return r.Metric == string(metric) }); i >= 0 {
			h.temps[role] = readings[i].Value
		}
	}
	h.bmc.there = t.tree.is("dev/ipmi0") || t.opts.Outside.Redfish.URL != ""
	h.bmc.answers = slices.ContainsFunc(t.sampler.Sensors(), func(s sense.Sensor) bool { return strings.HasPrefix(s.Key, "bmc/") })
	h.disks = t.tree.disks(failing, wear)
	h.nics = t.tree.nics()
	return h
}

// wait waits unless ctx ends.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// makers of PCI devices that compute (pci-ids.ucw.cz). Graphics of BMCs and of
// virtual machines compute nothing and are left out by not being here.
var makers = map[string]string{"0x10de": "NVIDIA", "0x1002": "AMD", "0x8086": "Intel", "0x1e60": "Hailo", "0x1ac1": "Google Coral", "0x1da3": "Habana"}

// accelerators are what may compute inference besides the processor.
func (t tree) accelerators() (out []accelerator) {
	kernel := t.kernel()
	for _, at := range t.names("sys/bus/pci/devices") {
		dir := "sys/bus/pci/devices/" + at
		class, maker := t.text(dir, "class"), makers[t.text(dir, "vendor")]
		// PCI classes: display controllers 03, processing accelerators 12; Coral
		// and Hailo call themselves others.
		graphics := strings.HasPrefix(class, "0x03") || strings.HasPrefix(class, "0x12")
		if maker == "" || !graphics && maker != "Google Coral" && maker != "Hailo" {
			continue
		}
		a := accelerator{name: maker + " " + t.text(dir, "device"), driver: t.link(dir, "driver")}
		if model := t.nvidiaModel(at); model != "" {
			a.name = model
		}
		if a.version = t.text("sys/module", a.driver, "version"); a.version == "" {
			a.version = kernel // a driver of the kernel has its version
		}
		out = append(out, a)
	}
	for _, name := range t.names("sys/class/devfreq") {
		if strings.HasSuffix(name, ".gpu") || strings.HasSuffix(name, "ga10b") || strings.HasSuffix(name, "gv11b") {
			out = append(out, accelerator{"NVIDIA Tegra GPU", "nvgpu", kernel})
			break
		}
	}
	return out
}

// nvidiaModel is what NVIDIA's driver calls the card at a PCI address.
func (t tree) nvidiaModel(at string) string {
	for line := range strings.Lines(t.text("proc/driver/nvidia/gpus", at, "information")) {
		if model, ok := strings.CutPrefix(line, "Model:"); ok {
			return strings.TrimSpace(model)
		}
	}
	return ""
}

// notDisks begin the names of block devices that are no disks.
var notDisks = []string{"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd", "mtd", "drbd", "rbd"}

func (t tree) disks(failing map[string]bool, wear map[string]float64) (out []disk) {
	for _, name := range t.names("sys/block") {
		sectors, _ := t.number("sys/block", name, "size")
		if sectors == 0 || slices.ContainsFunc(notDisks, func(p string) bool { return strings.HasPrefix(name, p) }) ||
			strings.HasPrefix(name, "mmcblk") && (strings.Contains(name, "boot") || strings.Contains(name, "rpmb")) {
			continue
		}
		serial := t.text("sys/block", name, "device/serial")
		k := disk{name: name, model: t.text("sys/block", name, "device/model"), bytes: 512 * sectors, failing: failing[serial]}
		if w, known := wear[serial]; known && serial != "" {
			k.wear = &w
		}
		switch {
		case strings.HasPrefix(name, "nvme"):
			k.kind = kindNVMe
		case strings.HasPrefix(name, "mmcblk"):
			k.kind = kindMMC
		case t.text("sys/block", name, "queue/rotational") == "1":
			k.kind = kindHDD
		default:
			k.kind = kindSSD
		}
		out = append(out, k)
	}
	return out
}

// nics are ports that are devices; bridges and tunnels are not.
func (t tree) nics() (out []nic) {
	for _, name := range t.names("sys/class/net") {
		if !t.is("sys/class/net", name, "device") {
			continue
		}
		n := nic{name: name, up: t.text("sys/class/net", name, "operstate") == "up"}
		if mbps, ok := t.number("sys/class/net", name, "speed"); ok && mbps > 0 {
			n.mbps = int(mbps)
		}
		out = append(out, n)
	}
	return out
}
