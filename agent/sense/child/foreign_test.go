package child

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// foreign gives f each file of telegraf that pattern names.
func foreign(t *testing.T, pattern string, f func(t *testing.T, data []byte)) {
	t.Helper()
	dir := assets.Module(t, "github.com/influxdata/telegraf")
	files, err := filepath.Glob(filepath.Join(dir, "plugins/inputs", pattern))
	if err != nil || len(files) == 0 {
		t.Fatalf("%s has no %s: %v", dir, pattern, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			f(t, data)
		})
	}
}

// lies checks a figure that may be missing.
func lies(t *testing.T, name string, v *float64, lo, hi float64) {
	t.Helper()
	if v != nil && !(*v >= lo && *v <= hi) {
		t.Errorf("%s = %v", name, *v)
	}
}

// What real cards said is understood: each has a name, an address and a die.
func TestCardsThatOthersRecorded(t *testing.T) {
	foreign(t, "nvidia_smi/testdata/*.xml", func(t *testing.T, data []byte) {
		cards, err := Cards(data)
		if err != nil || len(cards) == 0 {
			t.Fatalf("%d cards, %v", len(cards), err)
		}
		for _, c := range cards {
			if c.Name == "" || c.Bus == "" || c.DieCelsius == nil {
				t.Errorf("%+v", c)
			}
			lies(t, "die", c.DieCelsius, 10, 110)
			lies(t, "memory", c.MemoryCelsius, 10, 120)
			lies(t, "limit", c.SlowCelsius, 60, 120)
			lies(t, "power", c.PowerWatts, 0.5, 800)
			lies(t, "fan", c.FanRatio, 0, 1)
			lies(t, "busy", c.BusyRatio, 0, 1)
			lies(t, "memory in use", c.MemoryRatio, 0, 1)
			lies(t, "clock", c.ClockHertz, 50e6, 4e9)
		}
	})
}

// What real drives said is understood, or refused in words.
func TestDrivesThatOthersRecorded(t *testing.T) {
	foreign(t, "smartctl/testcases_device/*/response.json", func(t *testing.T, data []byte) {
		d, err := DriveOf(data)
		if err != nil {
			t.Fatal(err)
		}
		if d.Model == "" {
			t.Errorf("no model: %+v", d)
		}
		lies(t, "temperature", d.Celsius, 5, 90)
		lies(t, "wear", d.WearRatio, 0, 2.55)
		lies(t, "spare", d.SpareRatio, 0, 1)
		lies(t, "hours", d.PowerOnSeconds, 3600, 20*365*86400)
	})
}
