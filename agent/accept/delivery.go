package accept

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Delivery is what was ordered: a file of YAML. A key that is missing expects
// nothing, and what it is about is judged as plausible only.
type Delivery struct {
	Name    string `yaml:"name"`    // of the list, for the report; default the name of the file
	Product string `yaml:"product"` // part of what the board says
	Serial  string `yaml:"serial"`
	// Offline says that the box will work without a controller.
	Offline bool `yaml:"offline"`

	CPUs         int        `yaml:"cpus"`         // exactly
	MemoryGiB    float64    `yaml:"memory_gib"`   // as it is sold; a tenth may be the firmware's
	Accelerators []string   `yaml:"accelerators"` // each part of one name
	Temperatures []string   `yaml:"temperatures"` // die, inlet, board, ssd, exhaust, room
	Fans         int        `yaml:"fans"`         // at least
	Power        bool       `yaml:"power"`        // a sensor of the box's power
	BMC          bool       `yaml:"bmc"`
	Disks        []DiskWant `yaml:"disks"`
	NICs         []NICWant  `yaml:"nics"`

	OS          string            `yaml:"os"`     // part of the name
	Kernel      string            `yaml:"kernel"` // beginning of the version, as are those below
	Drivers     map[string]string `yaml:"drivers"`
	ONNXRuntime string            `yaml:"onnxruntime"`
	Containers  map[string]string `yaml:"containers"` // docker, containerd, podman, k3s

	Agent        string   `yaml:"agent"`
	Runner       string   `yaml:"runner"`
	Models       []string `yaml:"models"`        // name:version, or a name
	ConfigSHA256 string   `yaml:"config_sha256"` // of agent.yaml

	Limits Limits `yaml:"limits"`
}

// DiskWant is one disk of a delivery list.
type DiskWant struct {
	Kind  string  `yaml:"kind"`   // nvme, ssd, hdd or mmc; default any
	MinGB float64 `yaml:"min_gb"` // 10⁹ bytes, as disks are sold
}

// NICWant is one network port of a delivery list.
type NICWant struct {
	Name    string `yaml:"name"`     // of the kernel; default any that is left
	MinMbps int    `yaml:"min_mbps"` // of its link; default: no link is expected
}

// Limits are the bounds of the level load, 0 the default that is named.
type Limits struct {
	DieMax       float64 `yaml:"die_max_celsius"`      // default 5 K below where it throttles, or 90
	RateMin      float64 `yaml:"inferences_per_s_min"` // default none
	LatencyMax   float64 `yaml:"latency_p95_ms_max"`   // default none
	DiskWriteMin float64 `yaml:"disk_write_mbps_min"`  // MB/s; default 20, a warning
	DiskReadMin  float64 `yaml:"disk_read_mbps_min"`   // MB/s; default 40, a warning
	NetUpMin     float64 `yaml:"net_up_mbps_min"`      // Mbit/s; default none
	NetDownMin   float64 `yaml:"net_down_mbps_min"`    // Mbit/s; default none
	RTTMax       float64 `yaml:"rtt_ms_max"`           // default 1000, a warning
}

// maxDelivery bounds a delivery list: it is written by hand.
const maxDelivery = 64 << 10

// ReadDelivery reads a delivery list.
func ReadDelivery(path string) (Delivery, error) {
	f, err := os.Open(path)
	if err != nil {
		return Delivery{}, fmt.Errorf("read delivery list: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDelivery+1))
	if err != nil {
		return Delivery{}, fmt.Errorf("read delivery list: %w", err)
	}
	d, err := ParseDelivery(data)
	if err != nil {
		return Delivery{}, fmt.Errorf("delivery list %s: %w", path, err)
	}
	if d.Name == "" {
		d.Name = f.Name()[strings.LastIndexByte(f.Name(), '/')+1:]
	}
	return d, nil
}

// ParseDelivery reads the YAML of a delivery list and names its first fault.
func ParseDelivery(data []byte) (Delivery, error) {
	var d Delivery
	if len(data) > maxDelivery {
		return d, fmt.Errorf("longer than %d bytes", maxDelivery)
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&d); err != nil && !errors.Is(err, io.EOF) {
		text := strings.TrimPrefix(strings.TrimPrefix(err.Error(), "yaml: "), "unmarshal errors:\n  ")
		for kind, name := range map[string]string{
			"accept.Delivery": "a delivery list", "accept.DiskWant": "a disk: kind, min_gb", "accept.NICWant": "a port: name, min_mbps", "accept.Limits": "limits",
		} {
			text = strings.ReplaceAll(text, " not found in type "+kind, " is not a key of "+name)
		}
		return Delivery{}, errors.New(strings.ReplaceAll(text, "\n  ", "; "))
	}
	for _, role := range d.Temperatures {
		if _, known := roles[role]; !known {
			return Delivery{}, fmt.Errorf("temperatures: %q is none of die, inlet, board, ssd, exhaust, room", role)
		}
	}
	for _, k := range d.Disks {
		if k.Kind != "" && k.Kind != kindNVMe && k.Kind != kindSSD && k.Kind != kindHDD && k.Kind != kindMMC {
			return Delivery{}, fmt.Errorf("disks: kind %q is none of nvme, ssd, hdd, mmc", k.Kind)
		}
	}
	return d, nil
}

// given says whether anything is expected at all.
func (d Delivery) given() bool { return d.Name != "" }
