package sense

import (
	"os"
	"path/filepath"
	"testing"
)

func TestSavingIsSaidWhereTheBoxTells(t *testing.T) {
	const conf = "# modes\n< POWER_MODEL ID=0 NAME=MAXN >\n< POWER_MODEL ID=1 NAME=MODE_7W >\n< POWER_MODEL ID=2 NAME=15W >\nCPU_ONLINE CORE_0 1\n< PM_CONFIG DEFAULT=2 >\n"
	for _, c := range []struct {
		name     string
		files    map[string]string
		readings []Reading
		want     string
	}{
		{"nothing to ask", nil, nil, ""},
		{"a UPS on battery", nil, []Reading{{Metric: `ups_on_battery_state{label="rack"}`, Value: 1}}, "the box runs on the battery of a UPS"},
		{"a UPS on the line", nil, []Reading{{Metric: "ups_on_battery_state", Value: 0}}, ""},
		{"mains lost", map[string]string{"sys/class/power_supply/AC/type": "Mains", "sys/class/power_supply/AC/online": "0", "sys/class/power_supply/BAT0/type": "Battery"}, nil, "the box runs on its battery"},
		{"one of two mains", map[string]string{"sys/class/power_supply/A/type": "Mains", "sys/class/power_supply/A/online": "0", "sys/class/power_supply/B/type": "Mains", "sys/class/power_supply/B/online": "1"}, nil, ""},
		{"a profile that saves", map[string]string{"sys/firmware/acpi/platform_profile": "low-power\n"}, nil, "the power profile is low-power"},
		{"a balanced profile", map[string]string{"sys/firmware/acpi/platform_profile": "balanced\n"}, nil, ""},
		{"a Jetson in a lower mode", map[string]string{"var/lib/nvpmodel/status": "pmode:0001", "etc/nvpmodel.conf": conf}, nil, "the power mode is MODE_7W"},
		{"a Jetson in the mode it starts in", map[string]string{"var/lib/nvpmodel/status": "pmode:0002", "etc/nvpmodel.conf": conf}, nil, ""},
		{"a Jetson in a higher mode", map[string]string{"var/lib/nvpmodel/status": "pmode:0000", "etc/nvpmodel.conf": conf}, nil, ""},
		{"a Jetson without its table", map[string]string{"var/lib/nvpmodel/status": "pmode:0001"}, nil, ""},
		{"a mode that no table has", map[string]string{"var/lib/nvpmodel/status": "pmode:0009", "etc/nvpmodel.conf": conf}, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range c.files {
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			s := &Sampler{opts: Options{Root: root}}
			if got := s.Saving(c.readings); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
