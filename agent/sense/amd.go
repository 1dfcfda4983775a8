package sense

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
)

// amdHeat are the bits of indep_throttle_status that mean heat: temperatures
// (32 to 43), hot voltage regulators and PROCHOT (44 to 47). Below are limits of
// power and current (kernel, amdgpu_smu.h).
const amdHeat = uint64(0xFFFF) << 32

// amdThrottle adds whether an AMD GPU, or the processor that it is a part of, is
// slowed down by heat. It is in a binary table; its file is asked for once a
// Read and answers EPERM while the card sleeps.
func (b *builder) amdThrottle(dir, key, label string) {
	path := filepath.Join(dir, "device/gpu_metrics")
	if !exists(path) {
		return
	}
	at := b.probeFunc(path, func(buf []byte) (sample, error) {
		n, err := b.read(path, buf)
		if errors.Is(err, syscall.EPERM) {
			err = errNoValue
		}
		if err != nil {
			return sample{}, err
		}
		return parseAMDTable(buf[:n])
	})
	b.output(Sensor{Key: key + "/" + string(Throttled), Metric: Throttled, Label: label}, false, last, at)
}

// parseAMDTable reads the word of a table that means the same on all chips: a
// table begins with its size, format and revision. Cards have it since 1.3,
// processors with graphics since 2.2 (kernel, kgd_pp_interface.h). All bits set
// is a word that the firmware does not fill in.
func parseAMDTable(b []byte) (sample, error) {
	if len(b) < 4 || int(binary.LittleEndian.Uint16(b)) > len(b) {
		return sample{}, errFormat
	}
	at := 0
	switch format, revision := b[2], b[3]; {
	case format == 1 && revision == 3:
		at = 112
	case format == 2 && revision >= 2:
		at = 120
	default:
		return sample{}, fmt.Errorf("%w: table of format %d.%d", errNoValue, format, revision)
	}
	if len(b) < at+8 {
		return sample{}, errFormat
	}
	status := binary.LittleEndian.Uint64(b[at:])
	switch {
	case status == ^uint64(0):
		return sample{}, errNoValue
	case status&amdHeat != 0:
		return sample{a: 1}, nil
	}
	return sample{}, nil
}
