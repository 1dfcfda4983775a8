package store_test

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// secretsAreKept: one row a name and target; who gets them is found with the key
// that is in force.
func secretsAreKept(t *testing.T, empty func(*testing.T) *store.Store) {
	s := empty(t)
	enrolTwo(t, s)
	at := store.SecretAt{Name: "camera", Scope: store.SecretOfSite, Target: "berlin"}
	check(t, s.PutSecret(ctx, store.Secret{SecretAt: at, Version: "1", Key: "k", Sealed: []byte{1, 0, 2}, By: "anna"}))
	want := store.Secret{SecretAt: at, Version: "2", Key: "k", Sealed: []byte{3}, By: "bert", Changed: time.UnixMilli(epoch)}
	check(t, s.PutSecret(ctx, want))
	if got, err := s.Secrets(ctx); err != nil || !reflect.DeepEqual(got, []store.Secret{want}) {
		t.Errorf("%+v, %v", got, err)
	}
	check(t, s.AddCert(ctx, store.Cert{Serial: "1", Box: boxA, Key: "1", Ends: clock().Add(time.Hour), PEM: "first"}))
	if _, _, err := s.Contact(ctx, boxA, "1", "192.0.2.1"); err != nil {
		t.Fatal(err)
	}
	check(t, s.AddCert(ctx, store.Cert{Serial: "2", Box: boxA, Key: "2", Ends: clock().Add(time.Hour), PEM: "second"}))
	_, err := s.SetDesired(ctx, boxA, func(d *wire.Desired) error { d.Secrets = []wire.DesiredSecret{{Name: "camera"}}; return nil }, func(p []byte) ([]byte, error) { return p, nil })
	check(t, err)
	boxes, err := s.SecretBoxes(ctx, store.SecretOfSite, "berlin")
	if err != nil || len(boxes) != 1 || boxes[0].ID != boxA || boxes[0].PEM != "first" || !boxes[0].Holds || boxes[0].State != store.StateActive {
		t.Errorf("%+v, %v", boxes, err)
	}
	if _, changed, err := s.Contact(ctx, boxA, "2", "192.0.2.1"); err != nil || !changed {
		t.Errorf("another key was used for the first time: changed %v, %v", changed, err)
	}
	if boxes, err = s.SecretBoxes(ctx, store.SecretOfBox, string(boxA)); err != nil || len(boxes) != 1 || boxes[0].PEM != "second" {
		t.Errorf("%+v, %v", boxes, err)
	}
	if boxes, err = s.SecretBoxes(ctx, store.SecretOfLabel, "line=a"); err != nil || len(boxes) != 2 {
		t.Errorf("%+v, %v", boxes, err)
	}
	check(t, s.RemoveSecret(ctx, at))
	if err := s.RemoveSecret(ctx, at); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("removed twice: %v", err)
	}
}
