package fleetapi

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Drift tells how far what a model sees and answers has moved from its first
// week on each box.
type Drift struct {
	Model   string      `json:"model"`
	Version string      `json:"version"`
	Box     identity.ID `json:"box,omitempty"`
	Site    string      `json:"site,omitempty"`
	// From is when the hours that are compared begin.
	From time.Time `json:"from"`
	Days int       `json:"days"`
	// Inputs are those that are compared, of Boxes boxes; Waiting are inputs
	// whose first week is not over, or that showed nothing since From.
	Inputs  int `json:"inputs"`
	Boxes   int `json:"boxes"`
	Waiting int `json:"waiting"`
	// Line says what moved, for people; empty: nothing that tells.
	Line string `json:"line,omitempty"`
	// Shifts are of all inputs together.
	Shifts []DriftShift `json:"shifts"`
	// Moved are the inputs that moved most, at most 50, the furthest first.
	Moved []DriftInput `json:"moved"`
}

// DriftShift is how far one aspect moved.
type DriftShift struct {
	Aspect string `json:"aspect" enum:"score,entropy,class,found,brightness,sharpness"`
	// PSI is the population stability index: above 0.25 something happened.
	PSI float64 `json:"psi"`
	// JensenShannon is the divergence in bits, 0 to 1.
	JensenShannon float64 `json:"jensen_shannon"`
	// Reference and Now are how many counts either side rests on.
	Reference uint64 `json:"reference"`
	Now       uint64 `json:"now"`
	// Moved says that the shift rests on enough, and is one.
	Moved bool `json:"moved"`
}

// DriftInput is one input of one box that moved.
type DriftInput struct {
	Box    identity.ID  `json:"box"`
	Name   string       `json:"name"`
	Site   string       `json:"site"`
	Input  string       `json:"input"`
	Line   string       `json:"line"`
	Shifts []DriftShift `json:"shifts"`
}

// DriftQuery chooses what is compared. Empty fields: the newest version that
// runs, all boxes, 7 days.
type DriftQuery struct {
	Version string
	Box     identity.ID
	Site    string
	Days    int
}

// Drift returns how far a model has moved.
func (c *Client) Drift(ctx context.Context, model string, q DriftQuery) (Drift, error) {
	v := url.Values{}
	for name, text := range map[string]string{"version": q.Version, "box": string(q.Box), "site": q.Site} {
		if text != "" {
			v.Set(name, text)
		}
	}
	if q.Days != 0 {
		v.Set("days", strconv.Itoa(q.Days))
	}
	return call[Drift](ctx, c, http.MethodGet, "/models/"+url.PathEscape(model)+"/drift?"+v.Encode(), nil)
}
