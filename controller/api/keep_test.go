package api

import (
	"bytes"
	"net/http"
	"os"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/internal/blob"
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
	other := append(onnx("x", "y"), protowire.AppendBytes(protowire.AppendTag(nil, 6, protowire.BytesType), []byte("other"))...)
	w.put(other)
	_, err := ops.PushModel(t.Context(), w.sign(manifest(t, "eye", "1.0.0", other)))
	wantProblem(t, "other content under a number that was retired", err, http.StatusConflict, "eye:1.0.0 was retired here and had other content")
	if again := w.push("eye", "1.0.0", "x", "y"); again != one {
		t.Errorf("the same content came back as %v, was %v", again, one)
	}
	v, err := ops.VerifyModel(t.Context(), "eye", fleetapi.VerifyModel{Version: "2.0.0"})
	if err != nil || !v.OK {
		t.Errorf("the other version has lost a file: %+v, %v", v, err)
	}
}

// A new version that shares a file with one before it is refused while that file lies
// damaged on the controller's disk. Packing again would send nothing, so it is told
// what does help; and that does.
func TestAPushOnADamagedFileTellsHowToMendIt(t *testing.T) {
	w := newWorld(t)
	ops := w.client("ops")
	content := protowire.AppendBytes(protowire.AppendTag(onnx("x", "y"), 6, protowire.BytesType), make([]byte, blob.FrameBytes))
	push := func(version string) error {
		m := manifest(t, "eye", version, content)
		list, _, err := blob.FramesOf(bytes.NewReader(content))
		must(t, err)
		m.Files[0].Frames = blob.Sum(list.Encode())
		_, err = ops.PushModel(t.Context(), w.sign(m))
		return err
	}
	w.put(content)
	must(t, push("1.0.0"))
	damaged := bytes.Clone(content)
	damaged[len(damaged)-1] ^= 1
	path := w.blobs.Path(blob.Sum(content))
	must(t, os.Remove(path)) // it is read-only
	must(t, os.WriteFile(path, damaged, 0o600))
	err := push("2.0.0")
	wantProblem(t, "a push on a damaged file", err, 422, "is damaged where the controller stores it")
	if err == nil || !strings.Contains(err.Error(), "model verify") {
		t.Errorf("it does not say the way out: %v", err)
	}
	_, err = ops.VerifyModel(t.Context(), "eye", fleetapi.VerifyModel{Version: "1.0.0", Drop: true})
	must(t, err)
	w.put(content)
	must(t, push("2.0.0"))
}
