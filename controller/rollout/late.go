package rollout

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// Late is how boxes that come later get what a rollout brought: by its policy,
// but that nobody is asked again and nobody is waited for.
func Late(req fleetapi.PlanRequest) (fleetapi.PlanRequest, error) {
	var policy map[string]any
	if err := yaml.Unmarshal([]byte(req.Policy), &policy); err != nil {
		return req, fmt.Errorf("read the policy of before: %w", err)
	}
	for _, key := range []string{"approve", "four_eyes", "late_joiners", "stragglers"} {
		delete(policy, key)
	}
	req.Policy = ""
	if len(policy) > 0 {
		text, err := yaml.Marshal(policy)
		if err != nil {
			return req, fmt.Errorf("write the policy of before: %w", err)
		}
		req.Policy = string(text)
	}
	return req, nil
}

// Whole says whether the waves of a request take every box: a rollout to some
// says nothing about those that come later.
func Whole(req fleetapi.PlanRequest) bool {
	p, err := PolicyOf(req)
	if err != nil {
		return false
	}
	sum := 0.0
	for _, w := range p.Waves {
		if w == "rest" {
			return true
		}
		if share, ok := strings.CutSuffix(w, "%"); ok {
			f, _ := strconv.ParseFloat(share, 64) // it was planned with it
			sum += f
		}
	}
	return sum > 100-1e-6 // tenths have no exact sum
}

// NewID draws 50 random bits.
func NewID() string {
	var raw [7]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	return "r-" + strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))[:10]
}
