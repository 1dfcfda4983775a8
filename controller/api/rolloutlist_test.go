package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// TestRolloutsComePageByPage, and who sees some sites only gets full pages of
// rollouts with a box of theirs.
func TestRolloutsComePageByPage(t *testing.T) {
	w := newWorld(t)
	for _, site := range []string{"a", "b"} {
		w.box("box-"+site, site, "amd64")
	}
	w.push("m", "1.0.0", "x", "y", 2)
	w.grant("tech-a", authz.Tech, "a")
	var all, own []string
	for i, site := range []string{"a", "b", "a", "b", "b", "a"} {
		r, err := w.client("ops").Plan(t.Context(), fleetapi.PlanRequest{Model: "m:1.0.0", Filter: fmt.Sprintf("site = %q", site)})
		must(t, err)
		if all = append(all, r.ID); site == "a" {
			own = append(own, r.ID)
		}
		if i%2 == 1 {
			w.clock.add(time.Second)
		}
	}
	for role, want := range map[string][]string{"viewer": all, "tech-a": own} {
		var got []string
		for token, pages := "", 0; pages < 9; pages++ {
			var list fleetapi.RolloutList
			must(t, json.Unmarshal([]byte(w.ask(role, "GET", "/api/v1/rollouts?page_size=2&page_token="+token, "").body), &list))
			if list.TotalSize != len(want) || len(list.Items) > 2 {
				t.Errorf("%s: %d of %d", role, len(list.Items), list.TotalSize)
			}
			for _, r := range list.Items {
				got = append(got, r.ID)
				if len(r.Waves[0].Targets) > 0 || r.Waves[0].Counts[fleetapi.TargetScheduled] != 1 {
					t.Errorf("%s: %+v", role, r.Waves)
				}
			}
			if token = list.NextPageToken; token == "" {
				break
			}
		}
		slices.Sort(got)
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", role, got, want)
		}
	}
	if got := w.ask("viewer", "GET", "/api/v1/rollouts?page_token=x", ""); got.status != 400 || !strings.Contains(got.problem(t).Hint, "Begin again") {
		t.Errorf("a token of ours it was not: %d %s", got.status, got.body)
	}
}

func TestARolloutSaysThatALaterOneOvertookIt(t *testing.T) {
	w := newWorld(t)
	w.box("box-a", "a", "amd64")
	w.push("m", "1.0.0", "x", "y", 2)
	c := w.client("ops")
	var ids []string
	for range 2 {
		r, err := c.Plan(t.Context(), fleetapi.PlanRequest{Model: "m:1.0.0"})
		must(t, err)
		_, err = c.Act(t.Context(), r.ID, "start")
		must(t, err)
		_, err = c.Act(t.Context(), r.ID, "cancel")
		must(t, err)
		ids = append(ids, r.ID)
		w.clock.add(time.Second)
	}
	for i, want := range []bool{true, false} {
		r, err := c.Rollout(t.Context(), ids[i])
		must(t, err)
		acted, err := c.Act(t.Context(), ids[i], "cancel")
		must(t, err)
		if r.Overtaken != want || acted.Overtaken != want {
			t.Errorf("rollout %d: overtaken %v, after an action %v; want %v", i, r.Overtaken, acted.Overtaken, want)
		}
	}
}

func TestAnIDThatIsNearlyRightIsNamed(t *testing.T) {
	w := newWorld(t)
	w.box("box-a", "a", "amd64")
	w.push("m", "1.0.0", "x", "y", 2)
	r, err := w.client("ops").Plan(t.Context(), fleetapi.PlanRequest{Model: "m:1.0.0"})
	must(t, err)
	for _, id := range []string{r.ID + "x", r.ID[:len(r.ID)-4]} {
		if p := w.ask("viewer", "GET", "/api/v1/rollouts/"+id, "").problem(t); p.Status != 404 || !strings.Contains(p.Hint, "Did you mean "+r.ID+"?") {
			t.Errorf("%s: %+v", id, p)
		}
	}
	if p := w.ask("viewer", "GET", "/api/v1/rollouts/r-none", "").problem(t); strings.Contains(p.Hint, r.ID) {
		t.Errorf("nothing near: %+v", p)
	}
}

// TestAFaultOfOursDoesNotSayThatNothingWasChanged: nobody knows how far it came.
func TestAFaultOfOursDoesNotSayThatNothingWasChanged(t *testing.T) {
	for status, want := range map[int]bool{http.StatusUnprocessableEntity: true, http.StatusInternalServerError: false, http.StatusServiceUnavailable: false} {
		err := huma.NewError(status, "no", &huma.ErrorDetail{Message: "why"})
		if got := strings.Contains(err.Error(), "nothing was changed"); got != want {
			t.Errorf("%d: %v", status, err)
		}
	}
}
