package tufclient_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

var began = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// world is a repository and a client of it, on a clock that the test sets.
type world struct {
	*trusttest.Repo
	t    *testing.T
	now  time.Time // of the client
	path string
	c    *tufclient.Client
	v1   tufrepo.Target // listed from the beginning
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: began, path: filepath.Join(t.TempDir(), "trust.db")}
	w.Repo = trusttest.New(t, func() time.Time { return w.now })
	w.v1 = w.Model("vad", "1.0.0", "one", 1)
	w.Publish()
	w.open()
	t.Cleanup(func() { w.c.Close() })
	if err := w.c.Refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	return w
}

// open starts the client anew on what is on disk.
func (w *world) open() {
	w.t.Helper()
	if w.c != nil {
		if err := w.c.Close(); err != nil {
			w.t.Fatal(err)
		}
	}
	var err error
	w.c, err = tufclient.Open(tufclient.Options{
		Path: w.path, Root: w.Pin, Fetch: w.Fetch, WallClock: func() time.Time { return w.now }, NoSync: true,
		Limits: tufclient.Limits{Roots: 300, Timestamp: 4 << 10, Snapshot: 16 << 10, Root: 16 << 10, Targets: 64 << 10},
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) listed(t tufrepo.Target) error {
	_, err := w.c.Listed(t.Kind, t.Name, t.Version, t.Digest)
	return err
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func TestWhatIsListedMayBeInstalledAndNothingElse(t *testing.T) {
	w := newWorld(t)
	got, err := w.c.Listed(tufrepo.KindModel, "vad", "1.0.0", w.v1.Digest)
	if err != nil || got.Counter != 1 || got.Channel != "stable" || got.Length != 3 {
		t.Fatalf("got %+v, %v", got, err)
	}
	for name, ask := range map[string]tufrepo.Target{
		"another digest":  {Kind: tufrepo.KindModel, Name: "vad", Version: "1.0.0", Digest: blob.Sum([]byte("evil"))},
		"another version": {Kind: tufrepo.KindModel, Name: "vad", Version: "1.0.1", Digest: w.v1.Digest},
		"another name":    {Kind: tufrepo.KindModel, Name: "ocr", Version: "1.0.0", Digest: w.v1.Digest},
		"another kind":    {Kind: tufrepo.KindRelease, Name: "vad", Version: "1.0.0", Digest: w.v1.Digest},
	} {
		if err := w.listed(ask); !errors.Is(err, tufclient.ErrNotListed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAnUnchangedRepositoryCostsTwoSmallRequests(t *testing.T) {
	w := newWorld(t)
	clear(w.Asked)
	w.must(w.c.Refresh(t.Context()))
	if w.Asked["timestamp.json"] != 1 || w.Asked["2.root.json"] != 1 || len(w.Asked) != 2 {
		t.Errorf("asked for %v, want timestamp and the next root once", w.Asked)
	}
}

func TestAClientWithoutANetworkKnowsWhatItKnew(t *testing.T) {
	w := newWorld(t)
	w.Files = nil
	w.open()
	w.must(w.listed(w.v1))
	w.now = began.Add(tufrepo.OnlineLife + time.Hour)
	if err := w.listed(w.v1); !errors.Is(err, tufclient.ErrStale) {
		t.Errorf("after the end of the timestamp: %v, want ErrStale", err)
	}
	w.open() // and what it knows of policy outlives the end
	if p, ok := w.c.Policy(); !ok || len(p.Controllers) != 1 {
		t.Errorf("policy after the end: %+v, %v", p, ok)
	}
}

func TestFloorsAndRevocationsBindEveryRole(t *testing.T) {
	w := newWorld(t)
	v2 := w.Model("vad", "2.0.0", "two", 2)
	v3 := w.Model("vad", "3.0.0", "three", 3)
	w.Targets.Policy.Floors = map[string]uint64{"model/vad": 2}
	w.Targets.Policy.Revoked = []blob.Digest{v3.Digest}
	w.Targets.Version++
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(v2))
	if err := w.listed(w.v1); !errors.Is(err, tufclient.ErrFloor) {
		t.Errorf("below the floor: %v", err)
	}
	if err := w.listed(v3); !errors.Is(err, tufclient.ErrRevoked) {
		t.Errorf("revoked: %v", err)
	}
	w.now = began.Add(10 * 365 * 24 * time.Hour) // also when all has ended
	w.open()
	if err := w.listed(v3); !errors.Is(err, tufclient.ErrRevoked) {
		t.Errorf("revoked, after the end of all: %v", err)
	}
}

// The specification's 5.3.3 for someone who was away for long: 256 changes of
// the root, some of them of all its keys.
func TestABoxThatWasAwayWalksOverEveryRoot(t *testing.T) {
	w := newWorld(t)
	for i := range 256 {
		old := w.Keys[tufrepo.RoleRoot][:2]
		w.Root.Version++
		if i%16 == 0 {
			for k := range w.Keys[tufrepo.RoleRoot] {
				old = append(old[:len(old):len(old)], w.Keys[tufrepo.RoleRoot][k])
				w.Keys[tufrepo.RoleRoot][k] = trusttest.NewKey(t)
			}
			w.Root.Root = w.Public(tufrepo.RoleRoot, 2)
		}
		w.PublishRoot(append(old, w.Keys[tufrepo.RoleRoot][:2]...)...)
	}
	v2 := w.Model("vad", "2.0.0", "two", 2)
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(v2))
	if got := w.c.Status().Root; got != 257 {
		t.Errorf("root is %d, want 257", got)
	}
	w.open() // not from the pin again
	clear(w.Asked)
	w.must(w.c.Refresh(t.Context()))
	if w.Asked["2.root.json"] != 0 {
		t.Error("walked over all roots again")
	}
}

// hardware is a key as hardware has them.
type hardware struct{ key *ecdsa.PrivateKey }

func (h hardware) Public() trust.PublicKey {
	p, err := trust.PublicKeyOf(&h.key.PublicKey)
	if err != nil {
		panic(err)
	}
	return p
}

func (h hardware) Sign(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	return ecdsa.SignASN1(rand.Reader, h.key, sum[:])
}

func TestKeysInHardwareVouchForWhatTheySigned(t *testing.T) {
	w := newWorld(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	w.must(err)
	h := hardware{key}
	w.Root.Version++
	w.Root.Targets.Public = []trust.PublicKey{h.Public()}
	w.PublishRoot(w.Keys[tufrepo.RoleRoot][:2]...)
	w.Targets.Version++
	v2 := w.Model("vad", "2.0.0", "two", 2)
	docs := map[string][]byte{}
	for role, s := range w.Roles {
		docs[role] = w.Sign(s, w.Keys[role]...)
	}
	unsigned := w.Sign(w.Targets, w.Keys[tufrepo.RoleTargets]...) // by the key of before
	docs[tufrepo.RoleTargets] = unsigned
	w.PublishDocuments(docs)
	if err := w.c.Refresh(t.Context()); err == nil {
		t.Error("the key that root named before still signs")
	}
	signed, err := tufrepo.Sign(unsigned, h)
	w.must(err)
	root, err := tufrepo.ParseRoot(w.Files["2.root.json"])
	if err != nil || root.Targets.Public[0] != h.Public() || root.Targets.Missing(signed) != 0 {
		t.Errorf("the root names %v: %v", root.Targets, err)
	}
	docs[tufrepo.RoleTargets] = signed
	w.PublishDocuments(docs)
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(v2))
}

func TestAChannelThatNobodyRenewedDoesNotStopTheOthers(t *testing.T) {
	w := newWorld(t)
	w.Keys["models-dev"] = append(w.Keys["models-dev"], trusttest.NewKey(t))
	w.Delegate("models-dev", tufrepo.PathsFor(tufrepo.KindModel, "dev"))
	dev := w.Roles["models-dev"]
	dev.Expires = began.Add(24 * time.Hour)
	w.Roles["models-dev"] = dev
	nightly := w.v1
	nightly.Channel, nightly.Digest = "dev", blob.Sum([]byte("nightly"))
	w.List("models-dev", nightly)
	w.Targets.Version++
	w.Publish()
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(nightly))
	w.now = began.Add(48 * time.Hour)
	for _, when := range []string{"as it was", "refreshed", "started anew"} {
		switch when {
		case "refreshed":
			w.Publish()
			w.must(w.c.Refresh(t.Context()))
		case "started anew":
			w.open()
		}
		w.must(w.listed(w.v1))
		if err := w.listed(nightly); !errors.Is(err, tufclient.ErrStale) {
			t.Errorf("%s: a target of the ended channel: %v, want ErrStale", when, err)
		}
	}
}

func TestT6AClockThatIsWrongHurtsOnlyNewInstalls(t *testing.T) {
	w := newWorld(t)
	w.now = time.Unix(0, 0) // the battery of the clock is empty
	w.open()
	if now := w.c.Status().Time; now.Before(began) {
		t.Errorf("taken for now: %s, before %s, when the timestamp was signed", now, began)
	}
	w.must(w.listed(w.v1))
	for _, far := range []time.Time{began.AddDate(30, 0, 0), time.Unix(1<<40, 0)} {
		w.now = far
		if err := w.listed(w.v1); !errors.Is(err, tufclient.ErrStale) {
			t.Errorf("at %s: %v, want ErrStale", far, err)
		}
		w.now = began.Add(time.Hour) // and it is not remembered
		w.must(w.c.Refresh(t.Context()))
		w.must(w.listed(w.v1))
	}
}

// The online key may say any time. Boxes must not be sent to where what people
// signed has ended.
func TestAThiefOfTheOnlineKeyCannotMoveClocksPastWhatPeopleSigned(t *testing.T) {
	w := newWorld(t)
	real := w.now
	w.now = real.AddDate(900, 0, 0)
	w.Publish()
	w.now = real
	w.must(w.c.Refresh(t.Context()))
	w.open()
	w.must(w.c.Refresh(t.Context()))
	if err := w.listed(w.v1); err != nil {
		t.Errorf("nothing can be installed any more: %v", err)
	}
}

func TestASecondRefreshWaitsAndCancelledOneChangesNothing(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v2 := w.Model("vad", "2.0.0", "two", 2)
	w.Publish()
	if err := w.c.Refresh(ctx); err == nil {
		t.Error("a cancelled refresh succeeded")
	}
	w.must(w.c.Refresh(t.Context()))
	w.must(w.listed(v2))
}
