package accept

import (
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
)

// The facts are what was measured, before anybody judged it. A nil pointer and
// an empty text are unknown.

// roles are the temperatures with a role, by their name in a delivery list.
var roles = map[string]sense.Metric{
	"die": sense.TempDie, "inlet": sense.TempInlet, "board": sense.TempBoard, "ssd": sense.TempSSD, "exhaust": sense.TempExhaust, "room": sense.TempRoom,
}

// roleOrder is how they are told.
var roleOrder = []string{"die", "inlet", "board", "ssd", "exhaust", "room"}

// The kinds of disk.
const (
	kindNVMe = "nvme"
	kindSSD  = "ssd"
	kindHDD  = "hdd"
	kindMMC  = "mmc"
)

type hardware struct {
	cpus         int
	memoryBytes  int64
	accelerators []accelerator
	temps        map[string]float64 // by role
	dieLimit     float64            // °C where the die throttles; 0 unknown
	fans         []fan
	power        *float64
	bmc          bmc
	disks        []disk
	nics         []nic
}

type accelerator struct{ name, driver, version string } // driver and version empty: none is loaded

type fan struct {
	name string
	rpm  float64
}

// bmc says whether there is one, and whether it gave a reading.
type bmc struct{ there, answers bool }

type disk struct {
	name, model, kind string
	bytes             int64
	wear              *float64 // share of the rated life
	failing           bool
}

type nic struct {
	name string
	up   bool
	mbps int // 0 unknown
}

type software struct {
	os, kernel string
	runtime    string // of ONNX
	runner     bool   // it answers
	containers map[string]string
}

// answers is the outcome of the known samples of one model.
type answers struct {
	model         string
	passed, total int
	err           string
}

// loaded is what the load showed.
type loaded struct {
	wanted        time.Duration // how long it should take
	took          time.Duration
	model         string
	runs, wrong   int
	fault         string // the first
	p95           time.Duration
	early, late   float64 // inferences/s of the second and of the last quarter; 0: too short
	dieMax        *float64
	throttled     *float64 // share of the time
	stoppedAt     float64  // °C at which it was ended; 0: it was not
	pressureBytes int64
	pressureErr   string // "" when all bytes came back
	runnerAnswers bool   // while memory was short
	write, read   throughput
}

type throughput struct {
	bytes int64
	took  time.Duration
	err   string
	tight bool // too little room, so nothing was measured
}

// perSecond is in bytes.
func (t throughput) perSecond() float64 {
	if t.took <= 0 {
		return 0
	}
	return float64(t.bytes) / t.took.Seconds()
}

type network struct {
	up, down throughput
	rtt      time.Duration
	rttErr   string
}

type operation struct {
	vendor, product, serial string
	agent, runner           string
	models                  []string // name:version that serve
	configSHA256            string   // "" without a file
	clockSet, clockKept     bool
	reach                   time.Duration
	reachErr                string
	offset                  time.Duration
}
