package sense

import (
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tree is a box by its files. "dir/{a=1 b=2}" stands for the files a and b.
type tree map[string]string

func (tr tree) plant(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range tr {
		files := map[string]string{path: content}
		if dir, several := strings.CutSuffix(path, "/*"); several {
			delete(files, path)
			for pair := range strings.SplitSeq(content, ";") {
				name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
				files[dir+"/"+name] = value
			}
		}
		for path, content := range files {
			must(t, os.MkdirAll(filepath.Join(root, filepath.Dir(path)), 0o755))
			put(t, root, path, content)
		}
	}
	return root
}

// proc is what every box has.
var proc = tree{
	"proc/loadavg": "1.00 1.00 1.00 1/1 1", "proc/uptime": "10.00 1.00", "proc/stat": "cpu  10 0 0 90 0 0 0 0 0 0",
	"proc/meminfo": "MemTotal: 4000000 kB\nMemAvailable: 2000000 kB",
}

// The boards that differ in where and how they tell the same things, by the
// kernel's and NVIDIA's documents.
func TestBoardsOfTheField(t *testing.T) {
	for name, c := range map[string]struct {
		files tree
		want  map[string]float64
	}{
		"Jetson AGX Orin": {tree{
			"proc/device-tree/model":            "NVIDIA Jetson AGX Orin Developer Kit\x00",
			"sys/class/hwmon/hwmon3/*":          "name=ina3221; in1_label=VDD_GPU_SOC; in1_input=19000; curr1_input=200; in2_label=VDD_CPU_CV; in2_input=19000; curr2_input=100; in3_label=VIN_SYS_5V0; in3_input=5000; curr3_input=1000; in7_label=sum of shunt voltages; in7_input=400",
			"sys/class/hwmon/hwmon4/*":          "name=ina3221; in1_label=NC; in1_input=0; curr1_input=0; in2_label=VDDQ_VDD2_1V8AO; in2_input=19000; curr2_input=50; in3_label=NC; in3_input=0; curr3_input=0",
			"sys/class/thermal/thermal_zone0/*": "type=cpu-thermal; temp=48000",
			"sys/class/thermal/thermal_zone2/*": "type=cv0-thermal; temp=-256000",
			"sys/class/thermal/thermal_zone8/*": "type=tj-thermal; temp=49500",
			"var/lib/nvpmodel/status":           "pmode:0003 fmode:quiet",
		}, map[string]float64{
			"temp_die_celsius": 49.5, "temp_celsius{cpu-thermal}": 48, "power_watts": 3.8 + 1.9 + 5 + 0.95, "power_mode": 3,
			"power_watts{ina3221/VDD_GPU_SOC}": 3.8, "power_watts{ina3221/VDD_CPU_CV}": 1.9, "power_watts{ina3221/VIN_SYS_5V0}": 5,
			"power_watts{ina3221/VDDQ_VDD2_1V8AO}": 0.95,
		}},
		"Jetson Xavier NX, JetPack 5": {tree{
			"proc/device-tree/model":            "NVIDIA Jetson Xavier NX Developer Kit\x00",
			"sys/class/hwmon/hwmon1/*":          "name=ina3221; in1_label=VDD_IN; in1_input=5000; curr1_input=900; in2_label=VDD_CPU_GPU_CV; in2_input=5000; curr2_input=100; in3_label=VDD_SOC; in3_input=5000; curr3_input=200",
			"sys/class/hwmon/hwmon2/*":          "name=pwmfan; pwm1=51",
			"sys/class/hwmon/hwmon3/*":          "name=tegra_tach; rpm=1890",
			"sys/class/thermal/thermal_zone0/*": "type=CPU-therm; temp=33500",
			"sys/class/thermal/thermal_zone1/*": "type=AO-therm; temp=32500",
			"sys/class/thermal/thermal_zone2/*": "type=PMIC-Die; temp=100000",
			"sys/class/thermal/thermal_zone3/*": "type=thermal-fan-est; temp=33450",
		}, map[string]float64{
			"temp_die_celsius": 33.5, "temp_celsius{AO-therm}": 32.5, "fan_rpm": 1890, "fan_duty_ratio": 0.2,
			"power_watts": 4.5, "power_watts{ina3221/VDD_CPU_GPU_CV}": 0.5, "power_watts{ina3221/VDD_SOC}": 1,
		}},
		"Jetson TX2, JetPack 4": {tree{
			"proc/device-tree/model":                            "NVIDIA Jetson TX2\x00",
			"sys/bus/i2c/drivers/ina3221x/0-0040/iio:device0/*": "rail_name_0=VDD_SYS_GPU; in_voltage0_input=19000; in_current0_input=10",
			"sys/bus/i2c/drivers/ina3221x/0-0041/iio:device1/*": "rail_name_0=VDD_IN; in_voltage0_input=19000; in_current0_input=200; rail_name_1=VDD_SYS_CPU; in_voltage1_input=19000; in_current1_input=20",
			"sys/class/thermal/thermal_zone0/*":                 "type=BCPU-therm; temp=37000",
			"sys/class/thermal/thermal_zone1/*":                 "type=MCPU-therm; temp=38000",
			"sys/class/thermal/thermal_zone2/*":                 "type=Tboard_tegra; temp=30000",
			"sys/devices/pwm-fan/*":                             "cur_pwm=102; target_pwm=102; temp_control=1",
		}, map[string]float64{
			"temp_die_celsius": 38, "temp_board_celsius": 30, "fan_duty_ratio": 0.4,
			"power_watts": 3.8, "power_watts{ina3221/VDD_SYS_GPU}": 0.19, "power_watts{ina3221/VDD_SYS_CPU}": 0.38,
		}},
		"Raspberry Pi 4, hot": {tree{
			"sys/class/thermal/thermal_zone0/*":                   "type=cpu-thermal; temp=81300",
			"sys/devices/platform/soc/soc:firmware/get_throttled": "80008",
		}, map[string]float64{"temp_die_celsius": 81.3, "cooling_state_ratio": 1, "throttled_ratio": 1}},
		"Raspberry Pi 5": {tree{
			"proc/device-tree/model":            "Raspberry Pi 5 Model B Rev 1.0\x00",
			"sys/class/thermal/thermal_zone0/*": "type=cpu-thermal; temp=61300",
			"sys/class/hwmon/hwmon0/*":          "name=cpu_thermal; temp1_input=61300",
			"sys/class/hwmon/hwmon1/*":          "name=rp1_adc; temp1_input=55700; in1_input=1470",
			"sys/class/hwmon/hwmon2/*":          "name=pwmfan; fan1_input=2800; pwm1=125; pwm1_enable=1",
			"sys/class/hwmon/hwmon3/*":          "name=rpi_volt; in0_lcrit_alarm=0",
			"sys/devices/platform/soc@107c000000/soc@107c000000:firmware/get_throttled": "20000",
		}, map[string]float64{
			"temp_die_celsius": 61.3, "temp_celsius{rp1_adc/temp1}": 55.7, "temp_celsius{cpu_thermal/temp1}": 61.3,
			"fan_rpm": 2800, "fan_duty_ratio": 125. / 255, "cooling_state_ratio": 0, "throttled_ratio": 0,
		}},
		"AMD Ryzen on a white box": {tree{
			"sys/class/dmi/id/*":       "sys_vendor=Default string; product_name=To be filled by O.E.M.; board_vendor=ACME; board_name=X1; product_serial=00000000; board_serial=Default_string; chassis_type=35",
			"sys/class/hwmon/hwmon0/*": "name=k10temp; temp1_label=Tctl; temp1_input=81000; temp2_label=Tdie; temp2_input=61000; temp3_label=Tccd1; temp3_input=60000",
			"sys/class/hwmon/hwmon1/*": "name=nct6798; temp1_label=SYSTIN; temp1_input=34000; temp2_label=CPUTIN; temp2_input=128000; temp3_label=AUXTIN0; temp3_input=-128000; temp4_label=AUXTIN1; temp4_input=0; fan1_input=65535; fan2_input=900; pwm2=77; fan3_input=0; pwm3=77",
			"sys/class/hwmon/hwmon2/*": "name=acpitz; temp1_input=16800",
		}, map[string]float64{
			"temp_die_celsius": 61, "temp_celsius{k10temp/Tctl}": 81, "temp_celsius{k10temp/Tccd1}": 60, "temp_board_celsius": 34,
			"fan_rpm": 900, "fan_duty_ratio": 77. / 255,
		}},
		"ASRock Z390M-ITX/ac": {tree{
			"sys/class/dmi/id/*":       "sys_vendor=To Be Filled By O.E.M.; product_name=To Be Filled By O.E.M.; board_vendor=ASRock; board_name=Z390M-ITX/ac",
			"sys/class/hwmon/hwmon0/*": "name=nct6793; temp1_label=SYSTIN; temp1_input=99000; temp2_label=CPUTIN; temp2_input=51000; temp3_label=AUXTIN0; temp3_input=36000; temp4_label=AUXTIN1; temp4_input=83000; intrusion0_alarm=0; intrusion1_alarm=1",
		}, map[string]float64{
			"temp_board_celsius": 36, "temp_celsius{nct6793/CPUTIN}": 51, "intrusion_state{nct6793/intrusion0}": 0,
		}},
		"Gigabyte C1037UN-EU": {tree{
			"sys/class/dmi/id/*":       "sys_vendor=Gigabyte Technology Co., Ltd.; product_name=To be filled by O.E.M.; board_name=C1037UN-EU",
			"sys/class/hwmon/hwmon0/*": "name=it8728; temp1_input=40000; temp2_input=55000; temp3_input=48000; intrusion0_alarm=1; fan1_input=1400",
		}, map[string]float64{
			"temp_celsius{it8728/temp1}": 40, "temp_celsius{it8728/temp3}": 48, "fan_rpm": 1400,
		}},
	} {
		t.Run(name, func(t *testing.T) {
			maps.Copy(c.files, proc)
			maps.Copy(c.want, map[string]float64{"load1": 1, "uptime_seconds": 10, "mem_used_ratio": 0.5})
			s := New(Options{Root: c.files.plant(t)}, quiet())
			equal(t, readings(t, s), c.want)
			if b := s.Board(); name == "AMD Ryzen on a white box" && (b.Vendor != "ACME" || b.Product != "X1" || b.Serial != "") {
				t.Errorf("board %+v", b)
			}
		})
	}
}
