package store_test

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/models"
)

func planned(id string, age int, states ...fleetapi.TargetState) fleetapi.Rollout {
	r := fleetapi.Rollout{ID: id, State: fleetapi.RolloutRunning, Kind: fleetapi.KindModel, Target: models.Ref{Name: "vad"}, Created: time.UnixMilli(epoch - int64(age)).UTC(), Waves: []fleetapi.Wave{{}}}
	for i, state := range states {
		r.Waves[0].Targets = append(r.Waves[0].Targets, fleetapi.Target{Name: fmt.Sprint("box-", i), State: state})
	}
	return r
}

// TestPagesOfRolloutsMissNoneAndRepeatNone: two of them were made within a millisecond.
func TestPagesOfRolloutsMissNoneAndRepeatNone(t *testing.T) {
	s := fresh(t)
	for i, age := range []int{5, 3, 3, 1, 4} {
		check(t, s.PutRollout(ctx, planned(fmt.Sprint("r-", i), age, fleetapi.TargetSucceeded, fleetapi.TargetFailed)))
	}
	var got []string
	for at := (store.RolloutPlace{}); ; {
		page, total, err := s.RolloutPage(ctx, at, 2, false)
		if err != nil || total != 5 {
			t.Fatalf("%d, %v", total, err)
		}
		for _, r := range page {
			got = append(got, r.ID)
			if c := r.Waves[0].Counts; c[fleetapi.TargetSucceeded] != 1 || c[fleetapi.TargetFailed] != 1 || len(r.Waves[0].Targets) > 0 {
				t.Errorf("%s: %v, %d targets", r.ID, c, len(r.Waves[0].Targets))
			}
		}
		if len(page) < 2 {
			break
		}
		at = store.PlaceOf(page[1])
	}
	if want := []string{"r-3", "r-2", "r-1", "r-4", "r-0"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	whole, _, err := s.RolloutPage(ctx, store.RolloutPlace{}, 9, true)
	check(t, err)
	for _, r := range whole {
		if one, err := s.Rollout(ctx, r.ID); err != nil || !reflect.DeepEqual(one, r) {
			t.Errorf("%+v, alone %+v, %v", r, one, err)
		}
	}
}

// TestCountsOfARolloutFollowItsBoxes, also those of one that was stored before
// headers had counts.
func TestCountsOfARolloutFollowItsBoxes(t *testing.T) {
	s := fresh(t)
	check(t, s.PutRollout(ctx, planned("r-1", 0, fleetapi.TargetScheduled, fleetapi.TargetScheduled)))
	_, err := s.UpdateRollout(ctx, "r-1", func(r fleetapi.Rollout) (store.RolloutStep, error) {
		r.Waves = slices.Clone(r.Waves)
		r.Waves[0].Targets = slices.Clone(r.Waves[0].Targets)
		r.Waves[0].Targets[1].State = fleetapi.TargetCanceled
		return store.RolloutStep{Rollout: r}, nil
	})
	check(t, err)
	want := map[fleetapi.TargetState]int{fleetapi.TargetScheduled: 1, fleetapi.TargetCanceled: 1}
	for _, how := range []string{"as stored now", "as stored before"} {
		page, _, err := s.RolloutPage(ctx, store.RolloutPlace{}, 9, false)
		if err != nil || len(page) != 1 || !reflect.DeepEqual(page[0].Waves[0].Counts, want) {
			t.Errorf("%s: %+v, %v", how, page, err)
		}
		check(t, s.Put(ctx, `UPDATE rollout SET body = replace(body, '"counts"', '"none"')`))
	}
}

func TestARolloutIsOvertakenByALaterOneOfTheSame(t *testing.T) {
	s := fresh(t)
	begun := time.UnixMilli(epoch).UTC()
	first := planned("r-1", 9)
	first.Started = &begun
	check(t, s.PutRollout(ctx, first))
	other := planned("r-2", 8)
	other.Target.Name, other.Started = "ocr", &begun
	check(t, s.PutRollout(ctx, other))
	draft := planned("r-3", 7)
	draft.State = fleetapi.RolloutDraft
	check(t, s.PutRollout(ctx, draft))
	if is, err := s.Overtaken(ctx, first); is || err != nil {
		t.Errorf("by a draft, by another model or by itself: %v, %v", is, err)
	}
	draft.State, draft.Started = fleetapi.RolloutRunning, &begun
	check(t, s.PutRollout(ctx, draft))
	if is, err := s.Overtaken(ctx, first); !is || err != nil {
		t.Errorf("by a later one: %v, %v", is, err)
	}
	if is, err := s.Overtaken(ctx, draft); is || err != nil {
		t.Errorf("the later one: %v, %v", is, err)
	}
}
