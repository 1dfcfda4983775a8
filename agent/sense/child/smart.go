package child

import (
	"encoding/json"
	"fmt"
)

// SMART returns the arguments that make smartctl print what DriveOf decodes.
// A disk that sleeps is not woken: smartctl then ends with an error.
func SMART(device string) []string { return []string{"-j", "-a", "-n", "standby", device} }

// Drive is the health of one disk. Nil means that the disk does not say.
type Drive struct {
	Model, Serial string

	Celsius *float64
	// WearRatio is how much of the rated life is used; may exceed 1.
	WearRatio *float64
	// SpareRatio is what is left of the spare blocks, SpareLimitRatio when to worry.
	SpareRatio, SpareLimitRatio *float64
	MediaErrors                 *float64 // sectors or blocks that could not be read
	UnsafeShutdowns             *float64
	HotSeconds, CriticalSeconds *float64 // time above the drive's own limits: NVMe only
	PowerOnSeconds              *float64
	// Failing is the drive's own verdict: a critical warning of an NVMe drive,
	// a SMART status that is not passed.
	Failing *bool
}

type smartLog struct {
	Model   string `json:"model_name"`
	SCSI    string `json:"scsi_model_name"`
	Turns   *int   `json:"rotation_rate"` // 0 for an SSD
	Serial  string `json:"serial_number"`
	Control struct {
		Messages []struct {
			Text     string `json:"string"`
			Severity string `json:"severity"`
		} `json:"messages"`
	} `json:"smartctl"`
	Status *struct {
		Passed *bool `json:"passed"`
	} `json:"smart_status"`
	Temperature *struct {
		Current *float64 `json:"current"`
	} `json:"temperature"`
	PowerOn *struct {
		Hours *float64 `json:"hours"`
	} `json:"power_on_time"`
	NVMe *struct {
		Warning     *float64 `json:"critical_warning"`
		Celsius     *float64 `json:"temperature"`
		Spare       *float64 `json:"available_spare"`
		SpareLimit  *float64 `json:"available_spare_threshold"`
		Used        *float64 `json:"percentage_used"`
		MediaErrors *float64 `json:"media_errors"`
		Unsafe      *float64 `json:"unsafe_shutdowns"`
		HotMin      *float64 `json:"warning_temp_time"`
		CriticalMin *float64 `json:"critical_comp_time"`
	} `json:"nvme_smart_health_information_log"`
	ATA *struct {
		Table []ataAttribute `json:"table"`
	} `json:"ata_smart_attributes"`
	Endurance *struct { // smartctl 7.4 and later
		Used *float64 `json:"current_percent"`
	} `json:"endurance_used"`
	SCSIUsed    *float64 `json:"scsi_percentage_used_endurance_indicator"`
	SCSIDefects *float64 `json:"scsi_grown_defect_list"`
}

type ataAttribute struct {
	ID    int      `json:"id"`
	Value *float64 `json:"value"`
	Raw   struct {
		Value *float64 `json:"value"`
	} `json:"raw"`
}

// DriveOf decodes the JSON of smartctl. An answer without a model is that of a
// device that could not be opened, and an error with smartctl's reason.
func DriveOf(data []byte) (Drive, error) {
	var log smartLog
	if err := json.Unmarshal(data, &log); err != nil {
		return Drive{}, fmt.Errorf("decode what smartctl printed: %w", err)
	}
	d := Drive{Model: clean(log.Model), Serial: clean(log.Serial)}
	if d.Model == "" {
		d.Model = clean(log.SCSI)
	}
	if d.Model == "" && d.Serial == "" {
		for _, m := range log.Control.Messages {
			if m.Severity == "error" {
				return Drive{}, fmt.Errorf("smartctl: %s", clean(m.Text))
			}
		}
		return Drive{}, fmt.Errorf("smartctl said nothing of the drive")
	}
	if log.Temperature != nil {
		d.Celsius = within(log.Temperature.Current, 1, -39, 125)
	}
	if log.PowerOn != nil {
		d.PowerOnSeconds = within(log.PowerOn.Hours, 1.0/3600, 0, 1e10)
	}
	if log.Status != nil && log.Status.Passed != nil {
		failing := !*log.Status.Passed
		d.Failing = &failing
	}
	if log.Endurance != nil {
		d.WearRatio = within(log.Endurance.Used, 100, 0, 2.55)
	}
	if log.SCSIUsed != nil {
		d.WearRatio = within(log.SCSIUsed, 100, 0, 2.55)
	}
	d.MediaErrors = within(log.SCSIDefects, 1, 0, 1e15)
	if log.ATA != nil {
		d.ata(log.ATA.Table, log.Turns != nil && *log.Turns == 0)
	}
	d.nvme(&log)
	if d.Celsius != nil && *d.Celsius == 0 { // what drives without a sensor say
		d.Celsius = nil
	}
	return d, nil
}

func (d *Drive) nvme(log *smartLog) {
	n := log.NVMe
	if n == nil {
		return
	}
	if d.Celsius == nil {
		d.Celsius = within(n.Celsius, 1, -39, 125)
	}
	d.WearRatio = within(n.Used, 100, 0, 2.55)
	d.SpareRatio, d.SpareLimitRatio = within(n.Spare, 100, 0, 1), within(n.SpareLimit, 100, 0, 1)
	d.MediaErrors, d.UnsafeShutdowns = within(n.MediaErrors, 1, 0, 1e15), within(n.Unsafe, 1, 0, 1e9)
	d.HotSeconds, d.CriticalSeconds = within(n.HotMin, 1.0/60, 0, 1e10), within(n.CriticalMin, 1.0/60, 0, 1e10)
	if n.Warning != nil {
		failing := *n.Warning != 0 || d.Failing != nil && *d.Failing
		d.Failing = &failing
	}
}

// ata reads the attributes whose meaning makers agree on. Those of wear mean
// other things on a disk that turns.
func (d *Drive) ata(table []ataAttribute, ssd bool) {
	for _, a := range table {
		switch a.ID {
		case 5, 197, 198: // reallocated, pending, uncorrectable sectors
			if n := within(a.Raw.Value, 1, 0, 1e9); n != nil {
				sum := *n
				if d.MediaErrors != nil {
					sum += *d.MediaErrors
				}
				d.MediaErrors = &sum
			}
		case 231, 233, 177, 202: // what is left of an SSD, normalised from 100 down to 0
			if left := within(a.Value, 1, 0, 100); left != nil && ssd && d.WearRatio == nil {
				used := (100 - *left) / 100
				d.WearRatio = &used
			}
		}
	}
}

// within divides by scale and returns nil for what is missing or outside.
func within(v *float64, scale, lo, hi float64) *float64 {
	if v == nil {
		return nil
	}
	w := *v / scale
	if !(w >= lo && w <= hi) {
		return nil
	}
	return &w
}
