package sense

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// found is one hwmon attribute or thermal zone before its role is decided.
type found struct {
	key   string                       // as in Sensor.Key
	chip  string                       // hwmon name; "" for a thermal zone
	label string                       // the driver's label or "" ; for a zone its type
	kind  string                       // temp, fan, pwm, power, energy, in, curr, intrusion
	n     int                          // number of the attribute in its chip
	dir   string                       // directory of the chip or zone
	path  string                       // file to read
	fault string                       // file that says 1 when the value means nothing; "" when there is none
	parse func([]byte) (sample, error) // nil for the parser of the kind

	dummies []float64 // see quirks.go
	above   float64
	means   string
}

// probe adds what reads f. A fault file comes second; one that cannot be read
// says nothing against the value.
func (b *builder) probesOf(f found, usual func([]byte) (sample, error)) []int {
	if f.parse != nil {
		usual = f.parse
	}
	from := []int{b.probe(f.path, f.refuse(usual))}
	if f.fault != "" {
		from = append(from, b.probeFunc(f.fault, func(buf []byte) (sample, error) {
			n, err := b.read(f.fault, buf)
			if err != nil {
				return sample{}, nil
			}
			v, _ := parseInt(buf[:n])
			return sample{a: float64(v)}, nil
		}))
	}
	return from
}

// metricLabel is what stands in braces: chip and label, or the zone's type.
func (f found) metricLabel() string {
	name := f.label
	if name == "" {
		name = filepath.Base(f.key)
	}
	if f.chip == "" {
		return cleanLabel(name)
	}
	return cleanLabel(f.chip) + "/" + cleanLabel(name)
}

// chip is one hwmon directory.
type chip struct {
	dir, name, key string
	files          []string
}

// discover looks for sensors.
func (b *builder) discover(opts Options) *plan {
	chips := b.chips()
	var all []found
	for _, c := range chips {
		all = append(all, b.attributes(c)...)
	}
	all = append(all, b.zones()...)
	all = append(all, b.iioTemps()...)
	all = append(all, b.oldJetsonFan()...)
	all = append(all, b.apex()...)
	all = withQuirks([]string{readBoard(b.root).Product, text(b.path("sys/class/dmi/id/board_name"))}, all)
	all = slices.DeleteFunc(all, func(f found) bool { return b.roles[f.key] == "none" })
	b.temps(all)
	b.fans(all)
	b.powers(all, chips)
	b.electrics(all)
	b.graphics()
	b.air()
	b.boot(all)
	b.throttle(chips)
	b.cpu()
	b.system(opts.StateDir)
	b.plan.sources = b.sources(opts.Outside)
	return &b.plan
}

func (b *builder) path(elem ...string) string {
	return filepath.Join(append([]string{b.root}, elem...)...)
}

// text reads a short attribute, "" when it cannot be read, or not soon: a file
// that hangs must not keep all others from being found. It is not asked again
// before it has come back.
func (b *builder) text(path string) string {
	if b.tracks == nil { // not a discovery
		return text(path)
	}
	asked := b.tracks.get("discover " + path)
	if b.tracks.get(path).busy.Load() || !asked.busy.CompareAndSwap(false, true) {
		return ""
	}
	said := make(chan string, 1)
	go func() {
		buf := make([]byte, 256)
		n, err := b.read(path, buf)
		if err != nil {
			n = 0
		}
		asked.busy.Store(false) // before the answer: who has it may ask again
		said <- strings.TrimSpace(strings.TrimRight(string(buf[:n]), "\x00"))
	}()
	select {
	case s := <-said:
		return s
	case <-time.After(b.patience):
		return ""
	}
}

// text reads a short attribute, "" when it cannot be read.
func text(path string) string {
	buf := make([]byte, 256)
	n, err := rawRead(path, buf)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(strings.TrimRight(string(buf[:n]), "\x00"))
}

// dirNames lists a directory in natural order, so that cpu2 precedes cpu10.
func dirNames(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil // the class does not exist on this kernel
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	slices.SortFunc(names, func(x, y string) int {
		if c := len(x) - len(y); c != 0 {
			return c
		}
		return strings.Compare(x, y)
	})
	return names
}

// chips lists the hwmon directories by their stable keys. Those that mirror a
// thermal zone are left out: the zone itself is read.
func (b *builder) chips() []chip {
	var list []chip
	for _, name := range dirNames(b.path("sys/class/hwmon")) {
		dir := b.path("sys/class/hwmon", name)
		device, err := filepath.EvalSymlinks(filepath.Join(dir, "device"))
		if err == nil && strings.Contains(device, "/thermal_zone") {
			continue
		}
		c := chip{dir: dir, name: b.text(filepath.Join(dir, "name")), files: dirNames(dir)}
		if old := filepath.Join(dir, "device"); c.name == "" && exists(filepath.Join(old, "name")) {
			// Drivers of the old kind (applesmc) put their files there.
			c = chip{dir: old, name: b.text(filepath.Join(old, "name")), files: dirNames(old)}
		}
		if c.name == "" {
			c.name = "unnamed"
		}
		c.key = "hwmon/" + cleanLabel(c.name) + "/" + deviceKey(device, err)
		list = append(list, c)
	}
	slices.SortStableFunc(list, func(x, y chip) int { return strings.Compare(x.key, y.key) })
	for i := range list { // chips without a device: the kernel's order tells them apart
		if i > 0 && list[i].key == strings.TrimRight(list[i-1].key, "+") {
			list[i].key = list[i-1].key + "+"
		}
	}
	return list
}

// deviceKey names a device by bus and address: "pci:0000:00:18.3". An NVMe
// drive is named by its PCI address, since nvme0 and nvme1 may swap at boot; so
// may the hosts of SATA disks, which have names of their own, and the numbers
// of HID devices, which hang on a port of USB.
func deviceKey(device string, err error) string {
	if err != nil {
		return "virtual"
	}
	bus := subsystem(device)
	switch bus {
	case "nvme":
		device = filepath.Dir(filepath.Dir(device)) // .../0000:01:00.0/nvme/nvme0
		bus = subsystem(device)
	case "scsi":
		if id := strings.Join(strings.Fields(text(filepath.Join(device, "wwid"))), "_"); id != "" { // naa.… or maker, model and serial number
			device = strings.ReplaceAll(id, "/", "_")
		}
	case "hid":
		if port := filepath.Dir(device); subsystem(port) == "usb" { // .../1-5:1.0/0003:1B1C:0C10.0004
			device, bus = port, "usb"
		}
	}
	return cleanLabel(bus + ":" + filepath.Base(device))
}

func subsystem(device string) string {
	target, err := os.Readlink(filepath.Join(device, "subsystem"))
	if err != nil {
		return "device"
	}
	return filepath.Base(target)
}

func (b *builder) attributes(c chip) []found {
	var list []found
	for _, name := range c.files {
		if name == "rpm" && strings.Contains(c.name, "tach") { // of a Jetson
			list = append(list, found{key: c.key + "/fan1", chip: c.name, kind: "fan", n: 1, dir: c.dir, path: filepath.Join(c.dir, name)})
		}
		kind, n, attr, ok := splitAttr(name)
		if !ok || !wanted(kind, attr, c, n) {
			continue
		}
		stem := strings.TrimSuffix(name, "_"+attr)
		f := found{
			key: c.key + "/" + stem, chip: c.name, kind: kind, n: n, dir: c.dir,
			label: b.text(filepath.Join(c.dir, stem+"_label")),
			path:  filepath.Join(c.dir, name),
		}
		if slices.Contains(c.files, stem+"_fault") {
			f.fault = filepath.Join(c.dir, stem+"_fault")
		}
		list = append(list, f)
	}
	return list
}

func wanted(kind, attr string, c chip, n int) bool {
	switch kind {
	case "temp", "fan":
		return attr == "input"
	case "pwm":
		return attr == ""
	case "power":
		// average is the better of the two where a chip has both
		return attr == "average" || attr == "input" && !slices.Contains(c.files, attrName(kind, n, "average"))
	case "energy":
		return attr == "input" && !slices.Contains(c.files, attrName("power", n, "input")) &&
			!slices.Contains(c.files, attrName("power", n, "average"))
	case "in", "curr":
		// A Super-I/O chip sees voltages behind dividers that only the board's
		// maker knows. Who measures current has its own shunt: its driver scales.
		return attr == "input" && c.name != "ina3221" && slices.ContainsFunc(c.files, func(name string) bool {
			kind, _, attr, ok := splitAttr(name)
			return ok && kind == "curr" && attr == "input"
		})
	case "intrusion":
		return attr == "alarm"
	}
	return false
}

func (b *builder) zones() []found {
	var list []found
	for _, name := range dirNames(b.path("sys/class/thermal")) {
		if !strings.HasPrefix(name, "thermal_zone") {
			continue
		}
		dir := b.path("sys/class/thermal", name)
		label := b.text(filepath.Join(dir, "type"))
		if label == "" {
			continue
		}
		list = append(list, found{
			key: "thermal/" + cleanLabel(label), kind: "temp", label: label, dir: dir,
			path: filepath.Join(dir, "temp"),
		})
	}
	slices.SortStableFunc(list, func(x, y found) int { return strings.Compare(x.key, y.key) })
	for i := 1; i < len(list); i++ { // types may repeat; the kernel's order tells them apart
		if list[i].label == list[i-1].label {
			list[i].key = list[i-1].key + "+"
		}
	}
	return list
}

// cpu adds frequency, use and load.
func (b *builder) cpu() {
	// Eight policies tell the mean well enough; a server has one per thread,
	// and each read may wake that core.
	var freq []int
	var highest float64
	dir := b.path("sys/devices/system/cpu/cpufreq")
	for _, name := range dirNames(dir) {
		path := filepath.Join(dir, name, "scaling_cur_freq")
		if strings.HasPrefix(name, "policy") && len(freq) < 8 && exists(path) {
			freq = append(freq, b.probe(path, number(1e-3, 1e6, 1e11))) // kHz
			if s, err := number(1e-3, 1e6, 1e11)([]byte(b.text(filepath.Join(dir, name, "scaling_max_freq")))); err == nil {
				highest += s.a
			}
		}
	}
	if len(freq) > 0 {
		b.plan.maxHertz = highest / float64(len(freq))
		b.output(Sensor{Key: "cpufreq", Metric: CPUFreq}, false, mean, freq...)
	}
	stat := b.probe(b.path("proc/stat"), parseStat)
	b.output(Sensor{Key: "proc/stat", Metric: CPUBusy}, false, busyRatio, stat)
	load := b.probe(b.path("proc/loadavg"), parseFirstFloat)
	b.output(Sensor{Key: "proc/loadavg", Metric: Load1}, false, last, load)
}

func (b *builder) system(stateDir string) {
	mem := b.probe(b.path("proc/meminfo"), parseMeminfo)
	b.output(Sensor{Key: "proc/meminfo", Metric: MemUsed}, false, usedRatio, mem)
	up := b.probe(b.path("proc/uptime"), parseFirstFloat)
	b.output(Sensor{Key: "proc/uptime", Metric: Uptime}, false, last, up)
	if stateDir == "" {
		return
	}
	free := b.probeFunc(stateDir, func([]byte) (sample, error) {
		var fs syscall.Statfs_t
		_, err := retry(func() (int, error) { return 0, syscall.Statfs(stateDir, &fs) })
		return sample{a: float64(fs.Bavail) * float64(fs.Bsize)}, err
	})
	b.output(Sensor{Key: "disk/state", Metric: DiskFree}, false, last, free)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
