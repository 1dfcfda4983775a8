package care

import (
	"encoding/json"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/health"
)

// Heat is what lists of boxes show of the judgement of a box's hours.
type Heat struct {
	SKU       string                 `json:"sku,omitempty"`
	Judged    bool                   `json:"judged"` // it has a clean box to be compared with
	Percent   *float64               `json:"percent,omitempty"`
	Sigma     *float64               `json:"sigma,omitempty"`
	Reference string                 `json:"reference,omitempty"`
	LastHour  int64                  `json:"last_hour"` // Unix seconds
	FirstHour int64                  `json:"first_hour"`
	Learning  *health.Learning       `json:"learning,omitempty"` // while it is learnt
	Forecast  *fleetapi.HeatForecast `json:"forecast,omitempty"`
	InletC    *float64               `json:"inlet,omitempty"` // of the last hour
	RoomC     *float64               `json:"room,omitempty"`
	// Stand is how far it stands above its clean self, ln, for others of its site
	// to be compared with; BlindFans that none of its fans tells its speed.
	Stand     *float64 `json:"stand,omitempty"`
	BlindFans bool     `json:"blind_fans,omitempty"`
	// DustRate is how fast it clogs, and how unsure that is; see health.Box.
	DustRate  *float64 `json:"dust_rate,omitempty"`
	DustSigma float64  `json:"dust_sigma,omitempty"`
	// Cooling is how warm its work makes it, for rollouts to ask.
	Cooling *fleetapi.Cooling `json:"cooling,omitempty"`
}

// ReadHeat reads a stored Heat; false: there is none that can be read.
func ReadHeat(body []byte) (Heat, bool) {
	var h Heat
	if len(body) == 0 || json.Unmarshal(body, &h) != nil {
		return Heat{}, false
	}
	return h, true
}
