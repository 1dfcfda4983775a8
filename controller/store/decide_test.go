package store_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

func sign(payload []byte) ([]byte, error) { return append([]byte("signed "), payload...), nil }

func want(version string) func(*wire.Desired) error {
	return func(d *wire.Desired) error {
		d.Models = []wire.DesiredModel{{Name: "m", Version: version}}
		return nil
	}
}

// TestGenerationsGrowOnlyWhenSomethingChanges covers the desired state.
func TestGenerationsGrowOnlyWhenSomethingChanges(t *testing.T) {
	s := fresh(t)
	enrolTwo(t, s)
	broken := errors.New("broken")
	nothing := func(*wire.Desired) error { return nil }
	for _, c := range []struct {
		name   string
		change func(*wire.Desired) error
		sign   func([]byte) ([]byte, error)
		told   bool
		err    error
		gen    uint64
	}{
		{"nothing on an empty state", nothing, sign, false, nil, 0},
		{"the first wish", want("1"), sign, true, nil, 1},
		{"the same again", want("1"), sign, false, nil, 1},
		{"nothing", nothing, sign, false, nil, 1},
		{"a change that fails", func(d *wire.Desired) error { d.Models = nil; return broken }, sign, false, broken, 1},
		{"a signer that fails", want("2"), func([]byte) ([]byte, error) { return []byte("half"), broken }, false, broken, 1},
		{"the next wish", want("2"), sign, true, nil, 2},
		{"a change that meddles", func(d *wire.Desired) error { d.Generation, d.Box, d.V, d.Models = 0, boxB, 7, nil; return nil }, sign, true, nil, 3},
		{"back to the first", want("1"), sign, true, nil, 4},
	} {
		env, err := s.SetDesired(ctx, boxA, c.change, c.sign)
		if !errors.Is(err, c.err) || (err == nil) != (c.err == nil) || (env != nil) != c.told {
			t.Errorf("%s: envelope %q, error %v", c.name, env, err)
		}
		d := box(t, s, boxA).Desired
		stored, err := s.DesiredEnvelope(ctx, boxA)
		if d.Generation != c.gen || err != nil || (c.gen > 0) != (stored != nil) || c.told && string(stored) != string(env) {
			t.Errorf("%s: generation %d, want %d; stored %q, %v", c.name, d.Generation, c.gen, stored, err)
		}
		if c.gen > 0 {
			signed, err := wire.DecodeDesired([]byte(strings.TrimPrefix(string(stored), "signed ")))
			if err != nil || !reflect.DeepEqual(signed, d) || d.Box != boxA || d.V != wire.DesiredVersion {
				t.Errorf("%s: signed %+v, stored %+v, %v", c.name, signed, d, err)
			}
		}
	}
	if _, err := s.SetDesired(ctx, "d-ccccccccccccc", want("1"), sign); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown box: %v", err)
	}
	if _, err := s.DesiredEnvelope(ctx, "d-ccccccccccccc"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("envelope of an unknown box: %v", err)
	}
}

func TestGenerationsAreNeverSignedTwice(t *testing.T) {
	s := fresh(t)
	enrolTwo(t, s)
	var wg sync.WaitGroup
	var mu sync.Mutex
	signed := map[uint64]int{}
	for i := range 8 {
		wg.Go(func() {
			_, err := s.SetDesired(ctx, boxA, want(fmt.Sprint(i)), func(p []byte) ([]byte, error) {
				d, err := wire.DecodeDesired(p)
				mu.Lock()
				signed[d.Generation]++
				mu.Unlock()
				return p, err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for g := uint64(1); g <= 8; g++ {
		if signed[g] != 1 {
			t.Errorf("generation %d was signed %d times", g, signed[g])
		}
	}
}

// TestTokens: a secret is good for its kind until it expires.
func TestTokens(t *testing.T) {
	var now atomic.Int64
	now.Store(epoch)
	s, err := store.Open(ctx, store.Options{Path: filepath.Join(t.TempDir(), "store.db"), WallClock: func() time.Time { return time.UnixMilli(now.Load()) }})
	check(t, err)
	defer s.Close()
	until := time.UnixMilli(epoch + 1000)
	for _, k := range []store.TokenKind{store.TokenLogin, store.TokenSession, store.TokenAPI} {
		check(t, s.AddToken(ctx, string(k), store.Token{Name: "n", Role: "ops", Kind: k, Expires: until}))
	}
	for _, c := range []struct {
		secret string
		kinds  []store.TokenKind
		ok     bool
	}{
		{"api", []store.TokenKind{store.TokenAPI}, true},
		{"session", []store.TokenKind{store.TokenAPI, store.TokenSession}, true},
		{"session", []store.TokenKind{store.TokenAPI}, false},
		{"login", []store.TokenKind{store.TokenAPI, store.TokenSession}, false},
		{"api", nil, false},
		{"", []store.TokenKind{store.TokenAPI}, false},
		{"API", []store.TokenKind{store.TokenAPI}, false},
	} {
		got, err := s.Token(ctx, c.secret, c.kinds...)
		if (err == nil) != c.ok || !c.ok && (!errors.Is(err, store.ErrNotFound) || got.Name != "") || c.ok && got.Role != "ops" {
			t.Errorf("%q as %v: %+v, %v", c.secret, c.kinds, got, err)
		}
	}
	if _, err := s.UseToken(ctx, "api", store.TokenLogin); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an API token was used up: %v", err)
	}
	now.Store(epoch + 1000)
	if _, err := s.Token(ctx, "api", store.TokenAPI); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("an expired token: %v", err)
	}
	check(t, s.AddToken(ctx, "new", store.Token{Kind: store.TokenAPI, Expires: until.Add(time.Hour)}))
	if got := rowCount(t, s, `SELECT count(*) FROM token`); got != 1 {
		t.Errorf("%d tokens are kept, want 1", got)
	}
	check(t, s.DropToken(ctx, "new"))
	if err := s.DropToken(ctx, "new"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("dropped twice: %v", err)
	}
}

func TestOneUseTokensAreUsedOnce(t *testing.T) {
	s := fresh(t)
	check(t, s.AddToken(ctx, "once", store.Token{Name: "owner", Role: "admin", Kind: store.TokenLogin, Expires: time.UnixMilli(epoch + 1)}))
	var wg sync.WaitGroup
	var used atomic.Int32
	for range 8 {
		wg.Go(func() {
			switch got, err := s.UseToken(ctx, "once", store.TokenLogin); {
			case err == nil && got.Role == "admin":
				used.Add(1)
			case !errors.Is(err, store.ErrNotFound) || got.Name != "":
				t.Errorf("got %+v, %v", got, err)
			}
		})
	}
	wg.Wait()
	if used.Load() != 1 {
		t.Errorf("used %d times", used.Load())
	}
}

// TestVersionsNeverChangeTheirContent covers models and releases.
func TestVersionsNeverChangeTheirContent(t *testing.T) {
	s := fresh(t)
	one, other := blob.Sum([]byte("1")), blob.Sum([]byte("2"))
	for _, c := range []struct {
		name, version string
		digest        blob.Digest
		conflict      bool
	}{{"m", "1", one, false}, {"m", "1", one, false}, {"m", "1", other, true}, {"m", "2", other, false}, {"n", "1", blob.Sum([]byte("3")), false}} {
		err := s.AddModel(ctx, c.digest, models.Manifest{Name: c.name, Version: c.version})
		if errors.Is(err, store.ErrConflict) != c.conflict || (err != nil) != c.conflict {
			t.Errorf("model %s:%s: %v", c.name, c.version, err)
		}
		if c.name != "m" {
			continue
		}
		err = s.AddRelease(ctx, c.digest, firmware.Release{Version: c.version})
		if errors.Is(err, store.ErrConflict) != c.conflict || (err != nil) != c.conflict {
			t.Errorf("release %s: %v", c.version, err)
		}
	}
	m, err := s.Model(ctx, "m", "1")
	if err != nil || m.Digest != one || m.Ref().Version != "1" || m.PushedMs != epoch {
		t.Errorf("model %+v, %v", m, err)
	}
	r, err := s.Release(ctx, "2")
	if err != nil || r.Digest != other {
		t.Errorf("release %+v, %v", r, err)
	}
	if _, err := s.Model(ctx, "m", "3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown model: %v", err)
	}
	if _, err := s.Release(ctx, "3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown release: %v", err)
	}
	all, err := s.Models(ctx)
	releases, err2 := s.Releases(ctx)
	if err != nil || err2 != nil || len(all) != 3 || len(releases) != 2 {
		t.Errorf("%d models, %d releases, %v %v", len(all), len(releases), err, err2)
	}
}

func TestRolloutsAreKept(t *testing.T) {
	s := fresh(t)
	for i, st := range []fleetapi.RolloutState{fleetapi.RolloutRunning, fleetapi.RolloutPaused} {
		check(t, s.PutRollout(ctx, fleetapi.Rollout{ID: fmt.Sprint(i), State: st, Created: time.UnixMilli(epoch + int64(i))}))
	}
	all, err := s.Rollouts(ctx)
	if err != nil || len(all) != 2 || all[0].ID != "1" {
		t.Errorf("rollouts %+v, %v", all, err)
	}
	if running, err := s.Rollouts(ctx, fleetapi.RolloutRunning); err != nil || len(running) != 1 || running[0].ID != "0" {
		t.Errorf("running: %+v, %v", running, err)
	}
	if _, err := s.Rollout(ctx, "9"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("unknown rollout: %v", err)
	}
	no := errors.New("no")
	if _, err := s.UpdateRollout(ctx, "0", func(r fleetapi.Rollout) (store.RolloutStep, error) {
		r.State = "x"
		return store.RolloutStep{Rollout: r}, no
	}); !errors.Is(err, no) {
		t.Errorf("refused change: %v", err)
	}
	if r, err := s.Rollout(ctx, "0"); err != nil || r.State != fleetapi.RolloutRunning {
		t.Errorf("after a refused change: %+v, %v", r, err)
	}
	// One that begins by itself is there with its first step, or not at all.
	step := store.RolloutStep{Rollout: fleetapi.Rollout{ID: "own", State: fleetapi.RolloutRunning}}
	step.Record.At = time.Date(12_000, 1, 1, 0, 0, 0, 0, time.UTC) // has no JSON
	if err := s.BeginRollout(ctx, step); err == nil {
		t.Error("a step that cannot be logged was taken")
	}
	if _, err := s.Rollout(ctx, "own"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("without its first step: %v", err)
	}
	step.Record.At = time.UnixMilli(epoch)
	check(t, s.BeginRollout(ctx, step))
	if records, err := s.RolloutRecords(ctx, "own"); err != nil || len(records) != 1 {
		t.Errorf("%d steps, %v", len(records), err)
	}
}

// TestCancelledWritesLeaveNothing: the next write works.
func TestCancelledWritesLeaveNothing(t *testing.T) {
	s := fresh(t)
	enrolTwo(t, s)
	stop, cancel := context.WithCancel(ctx)
	_, err := s.Ingest(stop, []store.Delivery{results(boxA, 1, 1, epoch, "good")}, func(d store.Delivery) (store.Effects, error) {
		cancel()
		return effects(d)
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if c := ingest(t, s, results(boxA, 1, 1, epoch, "good")); c.New != 1 {
		t.Errorf("after it: %+v", c)
	}
}
