package trust

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// world is a keeper, the people who submit to it (Repo, whose "online" key is the
// keeper's), and a box.
type world struct {
	*trusttest.Repo
	k   *Keeper
	now time.Time
	box *tufclient.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	clock := func() time.Time { return w.now }
	w.Repo = trusttest.New(t, clock)
	s, err := store.Open(t.Context(), store.Options{Path: filepath.Join(t.TempDir(), "store.db"), WallClock: clock})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	w.k = New(Options{Store: s, Key: w.Keys["online"][0], WallClock: clock}, slog.New(slog.DiscardHandler))
	return w
}

func (w *world) submit(role string, doc []byte) Submitted {
	w.T.Helper()
	out, err := w.k.Submit(context.Background(), role, doc)
	if err != nil {
		w.T.Fatalf("submit %s: %v", role, err)
	}
	return out
}

// found submits all that there is, and starts the box.
func (w *world) found() {
	w.T.Helper()
	w.submit(tufrepo.RoleRoot, w.Pin)
	w.submit(tufrepo.RoleTargets, w.Sign(w.Targets, w.Keys[tufrepo.RoleTargets]...))
	w.submit(trusttest.Stable, w.Sign(w.Roles[trusttest.Stable], w.Keys[trusttest.Stable]...))
	var err error
	w.box, err = tufclient.Open(tufclient.Options{
		Path: filepath.Join(w.T.TempDir(), "trust.db"), Root: w.Pin, NoSync: true, WallClock: w.Now,
		Fetch: func(ctx context.Context, name string, _ int64) ([]byte, error) {
			data, err := w.k.File(ctx, name)
			if errors.Is(err, store.ErrNotFound) {
				err = tufclient.ErrAbsent
			}
			return data, err
		},
	}, slog.New(slog.DiscardHandler))
	if err == nil {
		w.T.Cleanup(func() { w.box.Close() })
		err = w.box.Refresh(context.Background())
	}
	if err != nil {
		w.T.Fatal(err)
	}
}

func TestT27TheKeeperPublishesOnlyWhatPeopleSigned(t *testing.T) {
	w := newWorld(t)
	if ok, err := w.k.Production(t.Context()); ok || err != nil {
		t.Fatalf("in production before the first root: %v", err)
	}
	w.found()
	w.Model("vad", "1.0.0", "one", 1)
	for name, doc := range map[string][]byte{
		"signed by the controller":   w.Sign(w.Roles[trusttest.Stable], w.Keys["online"]...),
		"signed by another role":     w.Sign(w.Roles[trusttest.Stable], w.Keys["agent-stable"]...),
		"signed by nobody":           w.Sign(w.Roles[trusttest.Stable]),
		"a role that nobody gave":    w.Sign(w.Roles["agent-stable"], w.Keys["agent-stable"]...),
		"no document":                []byte("{}"),
		"an older version":           w.Sign(tufrepo.Targets{Version: 1, Expires: w.now.Add(time.Hour)}, w.Keys[trusttest.Stable]...),
		"one that has ended already": w.Sign(tufrepo.Targets{Version: 9, Expires: w.now.Add(-time.Hour)}, w.Keys[trusttest.Stable]...),
	} {
		if _, err := w.k.Submit(t.Context(), trusttest.Stable, doc); !errors.Is(err, ErrRefused) && !errors.Is(err, ErrOld) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := w.Roles[trusttest.Stable]
	other.Targets[0].Kind, other.Targets[0].Name = tufrepo.KindRelease, "agent"
	if _, err := w.k.Submit(t.Context(), trusttest.Stable, w.Sign(other, w.Keys[trusttest.Stable]...)); !errors.Is(err, ErrRefused) {
		t.Errorf("an agent in the role of models: %v", err)
	}
	if _, err := w.k.Submit(t.Context(), tufrepo.RoleSnapshot, w.Sign(w.Targets, w.Keys["online"]...)); !errors.Is(err, ErrOld) {
		t.Errorf("a snapshot from outside: %v", err)
	}
}

func TestT26ADocumentWaitsForItsSecondSignature(t *testing.T) {
	w := newWorld(t)
	w.Keys[trusttest.Stable] = append(w.Keys[trusttest.Stable], trusttest.NewKey(t))
	w.Targets.Delegations[0].Keys = w.Public(trusttest.Stable, 2)
	w.found()
	one := w.Model("vad", "1.0.0", "one", 1)
	keys := w.Keys[trusttest.Stable]
	if out := w.submit(trusttest.Stable, w.Sign(w.Roles[trusttest.Stable], keys[0])); out.Missing != 1 {
		t.Fatalf("missing %d of one signature, want 1", out.Missing)
	}
	if _, err := w.k.Listed(t.Context(), one); !errors.Is(err, tufclient.ErrNotListed) {
		t.Errorf("listed with one signature: %v", err)
	}
	if out := w.submit(trusttest.Stable, w.Sign(w.Roles[trusttest.Stable], keys[1])); out.Missing != 0 {
		t.Fatalf("missing %d with both signatures", out.Missing)
	}
	if _, err := w.k.Listed(t.Context(), one); err != nil {
		t.Error(err)
	}
}

// T39: six years in which nobody does more than the guide asks for: root once a
// year, targets and the channel at their warnings. The controller does the rest,
// also across a month in which it was away; the box never loses what is listed.
func TestT39SixYearsOfRenewals(t *testing.T) {
	w := newWorld(t)
	one := w.Model("vad", "1.0.0", "one", 1)
	w.found()
	end := w.now.AddDate(6, 0, 0)
	soon := func(role string, expires time.Time) bool { return expires.Sub(w.now) < tufrepo.WarnBefore(role) }
	people := 0
	for day := 0; w.now.Before(end); day += 10 {
		w.now = w.now.AddDate(0, 0, 10)
		if day%400 == 0 {
			w.now = w.now.AddDate(0, 0, 35) // the controller is away for five weeks
		}
		if day%360 == 0 {
			w.Root.Version, w.Root.Expires = w.Root.Version+1, w.now.Add(tufrepo.RootLife)
			w.submit(tufrepo.RoleRoot, w.Sign(w.Root, w.Keys[tufrepo.RoleRoot][:2]...))
			people++
		}
		if soon(tufrepo.RoleTargets, w.Targets.Expires) {
			w.Targets.Version, w.Targets.Expires = w.Targets.Version+1, w.now.Add(tufrepo.TargetsLife)
			w.submit(tufrepo.RoleTargets, w.Sign(w.Targets, w.Keys[tufrepo.RoleTargets]...))
			people++
		}
		if s := w.Roles[trusttest.Stable]; soon(trusttest.Stable, s.Expires) {
			s.Version, s.Expires = s.Version+1, w.now.Add(tufrepo.RoleLife)
			w.Roles[trusttest.Stable] = s
			w.submit(trusttest.Stable, w.Sign(s, w.Keys[trusttest.Stable]...))
			people++
		}
		if err := w.k.Renew(t.Context()); err != nil {
			t.Fatalf("%s: %v", w.now.Format(time.DateOnly), err)
		}
		if err := w.box.Refresh(t.Context()); err != nil {
			t.Fatalf("%s: %v", w.now.Format(time.DateOnly), err)
		}
		if _, err := w.box.Listed(one.Kind, one.Name, one.Version, one.Digest); err != nil {
			t.Fatalf("%s: %v", w.now.Format(time.DateOnly), err)
		}
	}
	if people > 20 {
		t.Errorf("people were needed %d times in six years", people)
	}
}

// The log of each day names the roles that people have to sign, by which keys and
// how, and none that the controller signs itself, however long it was away.
func TestTheLogNamesWhatPeopleHaveToRenew(t *testing.T) {
	w := newWorld(t)
	w.found()
	for _, tc := range []struct {
		days       int
		want, none string
	}{
		{40, "", "WARN"},
		{int(tufrepo.RoleLife/(24*time.Hour)) - 60, "ends soon", "has ended"},
		{30, "has ended", "ends soon"},
	} {
		w.now = w.now.AddDate(0, 0, tc.days)
		var log bytes.Buffer
		w.k.log = slog.New(slog.NewTextHandler(&log, nil))
		if err := w.k.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		got := log.String()
		if !strings.Contains(got, tc.want) || strings.Contains(got, tc.none) || strings.Contains(got, tufrepo.RoleTimestamp) {
			t.Errorf("%d days later: %s", tc.days, got)
		}
		key := string(w.Keys[trusttest.Stable][0].Public().ID())
		if tc.want != "" && (!strings.Contains(got, key) || !strings.Contains(got, "edgeherd trust renew "+trusttest.Stable+" --key FILE")) {
			t.Errorf("%d days later it names no way out: %s", tc.days, got)
		}
	}
}

func TestAStolenKeyCannotUseUpTheNumbersOfARole(t *testing.T) {
	w := newWorld(t)
	w.found()
	far := w.Roles[trusttest.Stable]
	far.Version = 1 << 52
	_, err := w.k.Submit(t.Context(), trusttest.Stable, w.Sign(far, w.Keys[trusttest.Stable]...))
	if !errors.Is(err, ErrRefused) {
		t.Errorf("version %d: %v", far.Version, err)
	}
	next := w.Roles[trusttest.Stable]
	next.Version += 2
	w.submit(trusttest.Stable, w.Sign(next, w.Keys[trusttest.Stable]...))
}
