package api

import (
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// A version that a box runs or shall run stays; one that nobody needs goes with the
// files that no other has.
func TestOnlyAVersionThatNobodyNeedsIsRetired(t *testing.T) {
	w := newWorld(t)
	one, two := w.push("eye", "1.0.0", "x", "y"), w.push("eye", "2.0.0", "x", "y")
	w.desire(w.box("box-1", "mitte", "amd64"), two)
	ops := w.client("ops")
	if _, err := ops.RetireModel(t.Context(), "eye", "2.0.0"); err == nil || !strings.Contains(err.Error(), "box-1") {
		t.Errorf("a version that a box shall run: %v", err)
	}
	if _, err := w.client("viewer").RetireModel(t.Context(), "eye", "1.0.0"); err == nil {
		t.Error("a viewer retires")
	}
	if _, err := ops.RetireModel(t.Context(), "eye", "1.0.0"); err != nil {
		t.Fatal(err)
	}
	if w.blobs.Has(one.Digest) {
		t.Error("its manifest stays")
	}
	v, err := ops.VerifyModel(t.Context(), "eye", fleetapi.VerifyModel{Version: "2.0.0"})
	if err != nil || !v.OK {
		t.Errorf("the other version has lost a file: %+v, %v", v, err)
	}
}
