package store_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// documentsAreKept: versions follow one another and never change, the newest of
// each is found, and so are the settings and labels of boxes.
func documentsAreKept(t *testing.T, empty func(*testing.T) *store.Store) {
	s := empty(t)
	enrolTwo(t, s)
	doc := func(name, version, body string) store.Document {
		return store.Document{Name: name, Version: version, Digest: blob.Sum([]byte(name + version)), Body: body, By: "anna", Created: time.UnixMilli(epoch).UTC()}
	}
	for i, version := range []string{"1", "2", "3", "4", "5", "6", "7", "8", "9", "10"} {
		check(t, s.AddDocument(ctx, doc("dock", version, "body "+version)))
		if i == 0 {
			waits := doc("air", "1", "")
			waits.Waits = true
			check(t, s.AddDocument(ctx, waits))
		}
	}
	for _, again := range []store.Document{doc("dock", "10", "other"), doc("dock", "12", "gap"), doc("new", "2", "gap")} {
		if err := s.AddDocument(ctx, again); !errors.Is(err, store.ErrConflict) {
			t.Errorf("%s:%s: %v", again.Name, again.Version, err)
		}
	}
	if got, err := s.NewestDocuments(ctx); err != nil || !reflect.DeepEqual(got, []store.Document{{Name: "air", Version: "1", Digest: doc("air", "1", "").Digest, By: "anna", Created: doc("air", "1", "").Created, Waits: true}, doc("dock", "10", "body 10")}) {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Documents(ctx, "dock"); err != nil || len(got) != 10 || got[0].Version != "10" || got[9].Version != "1" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := s.Document(ctx, "dock", "2"); err != nil || !reflect.DeepEqual(got, doc("dock", "2", "body 2")) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, none := range []string{"11", "x", ""} {
		if _, err := s.Document(ctx, "dock", none); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("%q: %v", none, err)
		}
	}
	want := &wire.DesiredConfig{Documents: []wire.DesiredDocument{{Name: "dock", Version: "2"}}, Digest: blob.Sum(nil), Content: json.RawMessage(`{}`)}
	_, err := s.SetDesired(ctx, boxA, func(d *wire.Desired) error { d.Config = want; return nil }, func(p []byte) ([]byte, error) { return p, nil })
	check(t, err)
	if got, err := s.DesiredConfigs(ctx); err != nil || len(got) != 1 || !reflect.DeepEqual(got[boxA], want) {
		t.Errorf("%+v, %v", got, err)
	}
	check(t, s.SetLabels(ctx, boxA, map[string]string{"role": "dock", "line": "a"}))
	check(t, s.SetLabels(ctx, boxA, map[string]string{"line": "", "none": ""}))
	if b, err := s.Box(ctx, boxA, 0); err != nil || !reflect.DeepEqual(b.Labels, map[string]string{"role": "dock"}) {
		t.Errorf("%+v, %v", b.Labels, err)
	}
	if err := s.SetLabels(ctx, "d-zzzzzzzzzzzzz", map[string]string{"a": "b"}); !errors.Is(err, store.ErrNotFound) {
		t.Error(err)
	}
}
