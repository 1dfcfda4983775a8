package store_test

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/trust/trusttest"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

func TestTheDoctorSaysWhatOfTheMetadataEndsSoon(t *testing.T) {
	path, now := filepath.Join(t.TempDir(), "store.db"), time.UnixMilli(epoch)
	s, err := store.Open(ctx, store.Options{Path: path})
	check(t, err)
	look := func(at time.Time) store.Finding {
		t.Helper()
		for _, f := range store.Examine(ctx, store.Options{Path: path, WallClock: func() time.Time { return at }}) {
			if f.Check == "fleet's metadata" {
				return f
			}
		}
		t.Fatal("nothing is said of the metadata")
		return store.Finding{}
	}
	if f := look(now); f.Level != store.OK || !strings.Contains(f.Found, "development") {
		t.Errorf("before it begins: %+v", f)
	}
	repo := trusttest.New(t, func() time.Time { return now })
	check(t, s.ChangeTrust(ctx, func([]store.TrustDocument) (out []store.TrustDocument, err error) {
		for name, body := range repo.Files {
			role, _, err := tufrepo.ParseFileName(name)
			check(t, err)
			out = append(out, store.TrustDocument{Role: role, Version: 1, Body: body})
		}
		return out, nil
	}))
	for _, c := range []struct {
		name  string
		after time.Duration
		level store.Level
		found string
	}{
		{"new", 0, store.OK, "nothing ends before"},
		{"the controller was away", tufrepo.OnlineLife - 24*time.Hour, store.Warn, "timestamp ends in 1 days"},
		{"for longer", tufrepo.OnlineLife + time.Hour, store.Fail, "timestamp ended"},
		{"a channel", tufrepo.RoleLife - 24*time.Hour, store.Fail, "models-stable ends in 1 days"},
	} {
		if f := look(now.Add(c.after)); f.Level != c.level || !strings.Contains(f.Found, c.found) || (f.Way == "") != (c.level == store.OK) {
			t.Errorf("%s: %+v", c.name, f)
		}
	}
	check(t, s.Close())
}
