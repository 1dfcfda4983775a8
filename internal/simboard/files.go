package simboard

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"os"
	"path"
	"time"
)

// mark is the file by which programs know a simulated board.
const mark = "etc/edgeherd-simulated"

// refresh is how old a reading may be. Real chips convert every second or two;
// file systems such as ext4 start a disk write at each rename over an old file.
const refresh = 5 * time.Second

// write brings the files below the root up to date: all of them when refresh
// has passed, the energy counter at each step, since its reader makes a rate of it.
func (b *Board) write(now time.Time, busy float64) error {
	var files []file
	if b.profile.raplWrap > 0 {
		files = append(files, file{"sys/class/powercap/intel-rapl:0/energy_uj", b.raplCounter()})
	}
	if since := now.Sub(b.refreshed); since >= refresh || since < 0 || b.root == nil {
		b.refreshed = now
		files = append(append(files, b.profile.live(b)...), b.procFiles(now, busy)...)
	}
	if b.root == nil {
		if err := b.open(); err != nil {
			return err
		}
		files = append(append(files, b.profile.fixed(b)...), b.bootFiles()...)
	}
	for _, f := range files {
		if err := b.put(f); err != nil {
			return fmt.Errorf("write %s: %w", f.path, err)
		}
	}
	return nil
}

func (b *Board) open() error {
	if err := os.MkdirAll(b.opts.Root, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(b.opts.Root)
	if err != nil {
		return err
	}
	b.root = root
	for _, link := range b.profile.links {
		name, target := link[0], link[1]
		if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return err
		}
		if err := root.MkdirAll(path.Join(path.Dir(name), target), 0o755); err != nil {
			return err
		}
		if err := root.Symlink(target, name); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// put replaces one file if its content changed.
func (b *Board) put(f file) error {
	old, known := b.written[f.path]
	if known && old == f.content {
		return nil
	}
	const draft = ".simboard-draft" // in the root itself, where no reader looks
	if err := b.root.WriteFile(draft, []byte(f.content+"\n"), 0o644); err != nil {
		return err
	}
	if !known {
		if err := b.root.MkdirAll(path.Dir(f.path), 0o755); err != nil {
			return err
		}
	}
	if err := b.root.Rename(draft, f.path); err != nil {
		return err
	}
	b.written[f.path] = f.content
	return nil
}

// bootFiles are written once per start of the board.
func (b *Board) bootFiles() []file {
	h := fnv.New128a()
	fmt.Fprint(h, b.opts.Name, b.opts.Seed, b.started.UnixNano()) // a new one at each start
	id := h.Sum(nil)
	boot := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	return []file{
		{mark, fmt.Sprintf("profile: %s\nname: %s", b.opts.Profile, b.opts.Name)},
		{"proc/sys/kernel/random/boot_id", boot},
		{"proc/vmstat", "nr_free_pages 1\noom_kill 0\nnuma_hit 1"},
		{"sys/devices/system/cpu/online", fmt.Sprintf("0-%d", b.profile.cpus-1)},
		{"etc/os-release", "PRETTY_NAME=\"Simulated Linux 1\""},
		{"proc/sys/kernel/osrelease", "6.1.0-simulated"},
		{"sys/class/net/eno1/operstate", "up"},
		{"sys/class/net/eno1/speed", "1000"},
		{"sys/class/net/eno1/device/vendor", "0x0000"},
		{"sys/block/nvme0n1/size", "500118192"}, // of 512 bytes
		{"sys/block/nvme0n1/device/model", "Simulated NVMe 256GB"},
		{"sys/block/nvme0n1/device/serial", serial(b.opts.Name)},
	}
}

// procFiles imitate /proc. A tenth of the CPU is busy besides the load.
func (b *Board) procFiles(now time.Time, busy float64) []file {
	const hertz = 100 // USER_HZ
	up := now.Sub(b.started).Seconds()
	total := up * float64(b.profile.cpus) * hertz
	used := math.Min(b.busySum*hertz*0.9+0.1*total, total)
	return []file{
		{"proc/stat", fmt.Sprintf("cpu  %.0f 0 0 %.0f 0 0 0 0 0 0\nbtime %d", used, total-used,
			b.started.Add(b.opts.ClockOffset).Unix())},
		{"proc/uptime", fmt.Sprintf("%.2f %.2f", up, (total-used)/hertz)},
		{"proc/loadavg", fmt.Sprintf("%.2f %.2f %.2f 1/200 4242", busy*float64(b.profile.cpus), busy, busy)},
		{"proc/meminfo", fmt.Sprintf("MemTotal:       %d kB\nMemFree:        %d kB\nMemAvailable:   %d kB",
			b.profile.memKB, b.profile.memKB/2, int64(float64(b.profile.memKB)*(0.75-0.2*busy)))},
	}
}

// x86Links ties hwmon0 to the die's device (of a bus) and hwmon1 to the
// Super-I/O chip.
func x86Links(die, bus string) [][2]string {
	return [][2]string{
		{"sys/class/hwmon/hwmon0/device", "../../../devices/" + die},
		{"sys/devices/" + die + "/subsystem", "../../../" + bus},
		{"sys/class/hwmon/hwmon1/device", "../../../devices/platform/nct6775.656"},
		{"sys/devices/platform/nct6775.656/subsystem", "../../../bus/platform"},
	}
}

func x86Fixed(b *Board) []file {
	files := []file{
		{"sys/class/dmi/id/sys_vendor", b.profile.vendor},
		{"sys/class/dmi/id/product_name", b.profile.productName},
		{"sys/class/dmi/id/product_serial", serial(b.opts.Name)},
		{"sys/class/dmi/id/chassis_type", b.profile.chassis},
		{"sys/class/dmi/id/bios_version", "SIM-1.0"},
		{"sys/class/hwmon/hwmon1/name", "nct6798"},
		{"sys/class/hwmon/hwmon1/temp1_label", "SYSTIN"},
		{"sys/class/hwmon/hwmon1/temp3_label", "AUXTIN0"},
		{"sys/class/hwmon/hwmon1/temp3_input", "127000"}, // not connected, as on most boards
		{"sys/class/hwmon/hwmon1/fan1_input", "0"},       // a header without a fan
		{"sys/class/hwmon/hwmon1/pwm1", "255"},
		{"sys/devices/system/cpu/cpu0/topology/physical_package_id", "0"},
	}
	for i := range b.profile.cpus {
		files = append(files,
			file{fmt.Sprintf("sys/class/thermal/cooling_device%d/type", i), "Processor"},
			file{fmt.Sprintf("sys/class/thermal/cooling_device%d/max_state", i), count(maxSlowed)})
	}
	return files
}

func x86Live(b *Board) []file {
	m := &b.model
	files := []file{
		{"sys/class/hwmon/hwmon1/temp1_input", b.temp(m.inlet+4+0.2*(m.sink-m.inlet), 0.5)},
		{"sys/class/hwmon/hwmon1/fan2_input", count(m.rpm() * (1 + 0.005*b.rng.NormFloat64()))},
		{"sys/class/hwmon/hwmon1/pwm2", count(m.duty * 255)},
	}
	for i := range b.profile.cpus {
		files = append(files, file{fmt.Sprintf("sys/class/thermal/cooling_device%d/cur_state", i), count(m.slowed)})
	}
	return append(files, b.cpuFiles()...)
}

// cpuFiles show the frequency: it rises with the load and falls with throttling.
func (b *Board) cpuFiles() []file {
	khz := b.profile.baseKHz * (0.4 + 0.6*b.model.busy) * (1 - 0.05*b.model.slowed)
	return []file{{"sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", count(khz/1000) + "000"}}
}

// railFiles are one channel of an INA3221 at 5 V, in mV and mA.
func (b *Board) railFiles(chip string, n int, watts float64) []file {
	const millivolt = 5008
	return []file{
		{fmt.Sprintf("%sin%d_input", chip, n), count(millivolt)},
		{fmt.Sprintf("%scurr%d_input", chip, n), count(watts * (1 + 0.01*b.rng.NormFloat64()) / millivolt * 1e6)},
	}
}

// raplCounter is in µJ and wraps as the real one does. It grows with the
// host's seconds, as does the clock of whoever reads it.
func (b *Board) raplCounter() string {
	return count(math.Mod(b.model.energy/b.opts.TimeScale*1e6, b.profile.raplWrap))
}

// temp is a reading in m°C: with noise, in steps of the sensor.
func (b *Board) temp(celsius, step float64) string {
	noisy := celsius + b.profile.noiseKelvin*b.rng.NormFloat64()
	return milli(math.Round(noisy/step) * step)
}

func milli(celsius float64) string { return count(celsius * 1000) }

func count(n float64) string { return fmt.Sprintf("%.0f", math.Round(n)) }

func zonePath(i int, name string) string {
	return fmt.Sprintf("sys/class/thermal/thermal_zone%d/%s", i, name)
}

// serial is a number that is the same at every start.
func serial(name string) string {
	h := fnv.New32a()
	h.Write([]byte(name))
	return fmt.Sprintf("SIM%010d", h.Sum32())
}
