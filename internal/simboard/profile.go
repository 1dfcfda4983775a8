package simboard

import "time"

// profile is one kind of board: its physics and the files it shows.
type profile struct {
	physics
	cpus        int
	memKB       int64
	baseKHz     float64
	raplWrap    float64               // µJ at which the energy counter starts again; 0 without one
	fixed       func(b *Board) []file // written once
	links       [][2]string           // name, target
	live        func(b *Board) []file // written anew when refresh has passed
	vendor      string
	productName string
	chassis     string // SMBIOS chassis type
}

type file struct{ path, content string }

func profileOf(name string) (profile, bool) {
	switch name {
	case WallMount:
		return wallMount(), true
	case ITX:
		return itx(), true
	case Jetson:
		return jetson(), true
	}
	return profile{}, false
}

// wallMount is a sealed-looking box on a shop-floor wall: a 28 W mobile CPU
// behind a front filter.
func wallMount() profile {
	return profile{
		physics: physics{
			idleWatts: 9, busyWatts: 26, dieJPerK: 18, sinkJPerK: 260, coldPlate: 0.35, fins: 0.55,
			airWPerK: 9, filterDust: 2.2, fanMaxRPM: 4200, fanFloor: 0.3, fanFrom: 45, fanFull: 85,
			limitCelsius: 95, noiseKelvin: 0.4, fanLag: 6 * time.Second,
		},
		cpus: 8, memKB: 16 << 20, baseKHz: 3_400_000, raplWrap: 262143328850,
		vendor: "edgeherd", productName: "Simulated wall-mount box", chassis: "34",
		links: append(x86Links("platform/coretemp.0", "bus/platform"), [][2]string{
			{"sys/class/hwmon/hwmon3/device", "../../../devices/pci0000:00/0000:00:1d.0/0000:01:00.0/nvme/nvme0"},
			{"sys/devices/pci0000:00/0000:00:1d.0/0000:01:00.0/nvme/nvme0/subsystem", "../../../../../../class/nvme"},
			{"sys/devices/pci0000:00/0000:00:1d.0/0000:01:00.0/subsystem", "../../../../bus/pci"},
		}...),
		fixed: func(b *Board) []file {
			return append(x86Fixed(b), []file{
				{"sys/class/hwmon/hwmon0/name", "coretemp"},
				{"sys/class/hwmon/hwmon0/temp1_label", "Package id 0"},
				{"sys/class/hwmon/hwmon0/temp1_max", "85000"},
				{"sys/class/hwmon/hwmon0/temp1_crit", milli(b.profile.limitCelsius)},
				{"sys/class/hwmon/hwmon2/name", "sht3x"},
				{"sys/class/hwmon/hwmon3/name", "nvme"},
				{"sys/class/hwmon/hwmon3/temp1_label", "Composite"},
				{"sys/class/powercap/intel-rapl:0/name", "package-0"},
				{"sys/class/powercap/intel-rapl:0/max_energy_range_uj", count(b.profile.raplWrap)},
			}...)
		},
		live: func(b *Board) []file {
			m := &b.model
			return append(x86Live(b), []file{
				{"sys/class/hwmon/hwmon0/temp1_input", b.temp(m.die, 1)},
				{"sys/class/hwmon/hwmon2/temp1_input", b.temp(m.inlet, 0.01)},
				{"sys/class/hwmon/hwmon3/temp1_input", b.temp(m.inlet+6+0.35*(m.sink-m.inlet), 1)},
				{"sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count", count(m.throttles)},
			}...)
		},
	}
}

// itx is a Mini-ITX desktop board in furniture, with a probe of the 1-wire bus
// at its intake. Like every Ryzen it has no throttle counter.
func itx() profile {
	return profile{
		physics: physics{
			idleWatts: 14, busyWatts: 51, dieJPerK: 25, sinkJPerK: 420, coldPlate: 0.28, fins: 0.30,
			airWPerK: 14, filterDust: 1.4, fanMaxRPM: 2500, fanFloor: 0.25, fanFrom: 50, fanFull: 85,
			limitCelsius: 95, noiseKelvin: 0.5, fanLag: 8 * time.Second,
		},
		cpus: 12, memKB: 32 << 20, baseKHz: 4_000_000, raplWrap: 65532610987,
		vendor: "edgeherd", productName: "Simulated Mini-ITX box", chassis: "35",
		links: append(x86Links("pci0000:00/0000:00:18.3", "bus/pci"), [][2]string{
			{"sys/class/hwmon/hwmon2/device", "../../../devices/w1_bus_master1/28-00000de0ad01"},
			{"sys/devices/w1_bus_master1/28-00000de0ad01/subsystem", "../../../bus/w1"},
		}...),
		fixed: func(b *Board) []file {
			return append(x86Fixed(b), []file{
				{"sys/class/hwmon/hwmon0/name", "k10temp"},
				{"sys/class/hwmon/hwmon0/temp1_label", "Tctl"},
				{"sys/class/hwmon/hwmon2/name", "w1_slave_temp"},
				{"sys/class/powercap/intel-rapl:0/name", "package-0"},
				{"sys/class/powercap/intel-rapl:0/max_energy_range_uj", count(b.profile.raplWrap)},
			}...)
		},
		live: func(b *Board) []file {
			m := &b.model
			return append(x86Live(b), []file{
				{"sys/class/hwmon/hwmon0/temp1_input", b.temp(m.die, 0.125)},
				{"sys/class/hwmon/hwmon2/temp1_input", b.temp(m.inlet, 0.0625)},
			}...)
		},
	}
}

// jetson is an Orin NX on a carrier board. Its cv zones are missing, as if the
// vision accelerators had never been powered, and it has no inlet sensor.
func jetson() profile {
	const fan, tach, ina = "sys/class/hwmon/hwmon0/", "sys/class/hwmon/hwmon1/", "sys/class/hwmon/hwmon2/"
	zones := []string{0: "cpu-thermal", 1: "gpu-thermal", 5: "soc0-thermal", 6: "soc1-thermal", 7: "soc2-thermal", 8: "tj-thermal"}
	return profile{
		physics: physics{
			idleWatts: 6, busyWatts: 17, dieJPerK: 12, sinkJPerK: 150, coldPlate: 0.5, fins: 0.7,
			airWPerK: 5, filterDust: 1.2, fanMaxRPM: 5200, fanFloor: 0.2, fanFrom: 48, fanFull: 90,
			limitCelsius: 97, noiseKelvin: 0.2, fanLag: 5 * time.Second,
		},
		cpus: 8, memKB: 15 << 20, baseKHz: 1_984_000,
		links: [][2]string{
			{fan + "device", "../../../devices/platform/pwm-fan"},
			{"sys/devices/platform/pwm-fan/subsystem", "../../../bus/platform"},
			{tach + "device", "../../../devices/platform/39c0000.tachometer"},
			{"sys/devices/platform/39c0000.tachometer/subsystem", "../../../bus/platform"},
			{ina + "device", "../../../devices/platform/c240000.i2c/i2c-1/1-0040"},
			{"sys/devices/platform/c240000.i2c/i2c-1/1-0040/subsystem", "../../../../../bus/i2c"},
		},
		fixed: func(b *Board) []file {
			files := []file{
				{"proc/device-tree/model", "NVIDIA Jetson Orin NX (simulated)\x00"},
				{"proc/device-tree/compatible", "nvidia,p3768-0000+p3767-0000\x00nvidia,tegra234\x00"},
				{"proc/device-tree/serial-number", serial(b.opts.Name) + "\x00"},
				{fan + "name", "pwmfan"}, {tach + "name", "pwm_tach"}, {ina + "name", "ina3221"},
				{ina + "in1_label", "VDD_IN"}, {ina + "in2_label", "VDD_CPU_GPU_CV"}, {ina + "in3_label", "VDD_SOC"},
				{ina + "in7_label", "sum of shunt voltages"},
				{"sys/class/thermal/cooling_device0/type", "cpu-throttle-alert"},
				{"sys/class/thermal/cooling_device0/max_state", count(maxSlowed)},
				{"sys/class/thermal/thermal_zone8/trip_point_0_type", "passive"},
				{"sys/class/thermal/thermal_zone8/trip_point_0_temp", milli(b.profile.limitCelsius)},
			}
			for i, zone := range zones {
				if zone != "" {
					files = append(files, file{zonePath(i, "type"), zone})
				}
			}
			return files
		},
		live: func(b *Board) []file {
			m := &b.model
			files := []file{
				{fan + "pwm1", count(m.duty * 255)}, {tach + "fan1_input", count(m.rpm() * (1 + 0.005*b.rng.NormFloat64()))},
				{"sys/class/thermal/cooling_device0/cur_state", count(m.slowed)},
			}
			for n, share := range []float64{1, 0.55, 0.2} { // VDD_IN feeds the other two
				files = append(files, b.railFiles(ina, n+1, m.power*share)...)
			}
			for i, zone := range zones {
				if zone != "" {
					below := map[string]float64{"tj-thermal": 0, "cpu-thermal": 0.3, "gpu-thermal": 2}[zone]
					files = append(files, file{zonePath(i, "temp"), b.temp(m.die-below, 0.031)})
				}
			}
			return append(files, b.cpuFiles()...)
		},
	}
}
