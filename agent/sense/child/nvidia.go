package child

import (
	"cmp"
	"encoding/xml"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// NVIDIA returns the arguments that make nvidia-smi print what Cards decodes.
func NVIDIA() []string { return []string{"-q", "-x"} }

// Card is one NVIDIA GPU. Nil means that the card or its driver does not say.
type Card struct {
	UUID, Name, Bus string // Bus is the PCI address, as sysfs writes it: 0000:61:00.0

	DieCelsius, MemoryCelsius *float64
	// SlowCelsius is the die temperature at which it slows down. Cards that
	// only tell their distance to a limit (T.Limit) do not say.
	SlowCelsius *float64
	PowerWatts  *float64
	FanRatio    *float64 // what the card asks for: a seized fan still says 0.6
	BusyRatio   *float64
	MemoryRatio *float64
	ClockHertz  *float64
	// Throttled is whether heat or a power brake slows the card down now.
	Throttled *bool
	// Uncorrected counts memory errors that ECC could not correct, since the
	// card was made; RowsFailed says that it can no longer put rows aside.
	Uncorrected *float64
	RowsFailed  *bool
}

// nvidiaLog is as much as is used of schemas v10 to v13 of the output. Names
// that changed stand side by side.
type nvidiaLog struct {
	XMLName xml.Name    `xml:"nvidia_smi_log"`
	GPUs    []nvidiaGPU `xml:"gpu"`
}

type nvidiaGPU struct {
	Bus         string        `xml:"id,attr"`
	Name        string        `xml:"product_name"`
	UUID        string        `xml:"uuid"`
	Fan         string        `xml:"fan_speed"`
	Reasons     nvidiaReasons `xml:"clocks_event_reasons"`
	OldReasons  nvidiaReasons `xml:"clocks_throttle_reasons"` // to v11
	MemoryTotal string        `xml:"fb_memory_usage>total"`
	MemoryUsed  string        `xml:"fb_memory_usage>used"`
	Busy        string        `xml:"utilization>gpu_util"`
	DRAM        string        `xml:"ecc_errors>aggregate>dram_uncorrectable"`
	SRAM        []string      `xml:"ecc_errors>aggregate>sram_uncorrectable"`
	SRAMParity  string        `xml:"ecc_errors>aggregate>sram_uncorrectable_parity"`
	SRAMSecded  string        `xml:"ecc_errors>aggregate>sram_uncorrectable_secded"`
	RowFailure  string        `xml:"remapped_rows>remapped_row_failure"`
	Die         string        `xml:"temperature>gpu_temp"`
	Slow        string        `xml:"temperature>gpu_temp_slow_threshold"`
	Memory      string        `xml:"temperature>memory_temp"`
	Power       nvidiaPower   `xml:"gpu_power_readings"`
	OldPower    nvidiaPower   `xml:"power_readings"` // to v11
	Clock       string        `xml:"clocks>graphics_clock"`
}

type nvidiaPower struct {
	Draw    string `xml:"power_draw"` // to v12
	Average string `xml:"average_power_draw"`
	Instant string `xml:"instant_power_draw"`
}

type nvidiaReasons struct {
	All []struct {
		XMLName xml.Name
		Value   string `xml:",chardata"`
	} `xml:",any"`
}

// Cards decodes the XML of nvidia-smi -q -x, in the order of the PCI addresses.
func Cards(data []byte) ([]Card, error) {
	var log nvidiaLog
	if err := xml.Unmarshal(data, &log); err != nil {
		return nil, fmt.Errorf("decode what nvidia-smi printed: %w", err)
	}
	cards := make([]Card, 0, len(log.GPUs))
	for _, g := range log.GPUs {
		c := Card{
			UUID: clean(g.UUID), Name: clean(g.Name), Bus: sysfsBus(g.Bus),
			DieCelsius: celsius(g.Die), MemoryCelsius: celsius(g.Memory), SlowCelsius: celsius(g.Slow),
			PowerWatts: figure(cmp.Or(known(g.Power.Average), known(g.Power.Draw), known(g.Power.Instant), known(g.OldPower.Draw)), "W", 1, 0.1, 2000),
			FanRatio:   figure(g.Fan, "%", 100, 0, 1.1), BusyRatio: figure(g.Busy, "%", 100, 0, 1),
			ClockHertz: figure(g.Clock, "MHz", 1e-6, 1e6, 1e10), Throttled: g.throttled(),
			Uncorrected: g.uncorrected(),
		}
		if total, used := figure(g.MemoryTotal, "MiB", 1, 1, 1e9), figure(g.MemoryUsed, "MiB", 1, 0, 1e9); total != nil && used != nil && *used <= *total {
			ratio := *used / *total
			c.MemoryRatio = &ratio
		}
		if failed := clean(g.RowFailure); failed == "Yes" || failed == "No" {
			yes := failed == "Yes"
			c.RowsFailed = &yes
		}
		cards = append(cards, c)
	}
	slices.SortStableFunc(cards, func(x, y Card) int {
		return cmp.Or(strings.Compare(x.Bus, y.Bus), strings.Compare(x.UUID, y.UUID))
	})
	return cards, nil
}

// throttled looks for the reasons that heat and power brakes have: idling, set
// clocks and the cap on power are how a card is meant to work.
func (g nvidiaGPU) throttled() *bool {
	var yes, known bool
	for _, r := range append(slices.Clone(g.Reasons.All), g.OldReasons.All...) {
		name := r.XMLName.Local
		if !strings.HasSuffix(name, "_hw_slowdown") && !strings.HasSuffix(name, "thermal_slowdown") && !strings.HasSuffix(name, "_hw_power_brake_slowdown") {
			continue
		}
		switch clean(r.Value) {
		case "Active":
			yes, known = true, true
		case "Not Active":
			known = true
		}
	}
	if !known {
		return nil
	}
	return &yes
}

func (g nvidiaGPU) uncorrected() *float64 {
	var sum float64
	var known bool
	for _, text := range append([]string{g.DRAM, g.SRAMParity, g.SRAMSecded}, g.SRAM...) {
		if n := figure(text, "", 1, 0, 1e15); n != nil {
			sum, known = sum+*n, true
		}
	}
	if !known {
		return nil
	}
	return &sum
}

// known returns "" for the words that stand where a figure is missing.
func known(s string) string {
	if s = strings.TrimSpace(s); s == "" || s[0] < '0' || s[0] > '9' {
		return ""
	}
	return s
}

// celsius reads "40 C". Zero and what is beyond any working silicon is no
// temperature: a card that fell off the bus says 0 or 255.
func celsius(s string) *float64 {
	v := figure(s, "C", 1, -40, 125)
	if v == nil || *v == 0 || *v == -40 {
		return nil
	}
	return v
}

// figure reads "65 %": a number with its unit. It divides by scale and refuses
// what is outside of lo to hi.
func figure(s, unit string, scale, lo, hi float64) *float64 {
	digits, ok := strings.CutSuffix(strings.TrimSpace(s), unit)
	v, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if v /= scale; !ok || err != nil || math.IsNaN(v) || v < lo || v > hi {
		return nil
	}
	return &v
}

// sysfsBus turns 00000000:61:00.0 into 0000:61:00.0.
func sysfsBus(s string) string {
	s = strings.ToLower(clean(s))
	if domain, rest, ok := strings.Cut(s, ":"); ok && len(domain) == 8 && strings.HasPrefix(domain, "0000") {
		return domain[4:] + ":" + rest
	}
	return s
}

// clean keeps printable ASCII, and not much of it.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, strings.TrimSpace(s))
	return s[:min(len(s), 64)]
}
