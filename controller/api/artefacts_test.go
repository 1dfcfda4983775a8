package api

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

func TestPushedModelIsListedAndPushingAgainChangesNothing(t *testing.T) {
	w := newWorld(t)
	one := w.push("vad", "1.0.0", "x", "y", 2, 3)
	two := w.push("vad", "2.0.0", "x", "y", 2, 3)
	if again := w.push("vad", "1.0.0", "x", "y", 2, 3); again != one {
		t.Errorf("pushed again: %v, want %v", again, one)
	}
	id := w.box("box-1", "s", "amd64")
	w.desire(id, two)
	m, err := w.client("viewer").Model(t.Context(), "vad")
	must(t, err)
	if len(m.Versions) != 2 || m.Versions[0].Desired+m.Versions[1].Desired != 1 {
		t.Fatalf("versions %+v", m.Versions)
	}
	var envelope bytes.Buffer
	must(t, w.client("ops").Download(t.Context(), one.Digest, &envelope, nil))
	if blob.Sum(envelope.Bytes()) != one.Digest {
		t.Error("the envelope is not among the blobs; a box could not fetch it")
	}
	wantProblem(t, "a file that is not here", w.client("ops").Download(t.Context(), blob.Sum(nil), io.Discard, nil), http.StatusNotFound, "no blob")
	wantProblem(t, "a file for who may only look", w.client("viewer").Download(t.Context(), one.Digest, io.Discard, nil), http.StatusForbidden, "")
}

func TestModelThatCannotReplaceItsOlderVersionsIsRefused(t *testing.T) {
	w := newWorld(t)
	w.push("vad", "1.0.0", "x", "y", 2, 3)
	for _, c := range []struct {
		name    string
		content []byte
		says    string
	}{
		{"input renamed", onnx("z", "y", 2, 3), `input "x" is gone`},
		{"output renamed", onnx("x", "z", 2, 3), `output "y" is gone`},
		{"other shape", onnx("x", "y", 2, 4), "had size 3 in dimension 1 and has now 4"},
	} {
		w.put(c.content)
		_, err := w.client("ops").PushModel(t.Context(), w.sign(manifest(t, "vad", "2.0.0", c.content)))
		wantProblem(t, c.name, err, http.StatusUnprocessableEntity, c.says)
	}
	w.push("other", "2.0.0", "z", "y", 2, 3) // under another name it is welcome
}

func wantProblem(t *testing.T, what string, err error, status int, says string) {
	t.Helper()
	var p *fleetapi.Error
	if !errors.As(err, &p) || p.Status != status || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %v, want %d saying %q", what, err, status, says)
	}
}

func TestModelWithoutItsWeightsIsRefused(t *testing.T) {
	w, dir := newWorld(t), t.TempDir()
	assets.ExternalModel(t, dir, "w.bin", 0, make([]float32, 2*assets.ExternalRows))
	graph, err := os.ReadFile(filepath.Join(dir, models.ModelFile))
	must(t, err)
	data := make([]byte, 127)
	w.put(graph)
	w.put(data)
	m := manifest(t, "outside", "1.0.0", graph)
	_, err = w.client("ops").PushModel(t.Context(), w.sign(m))
	wantProblem(t, "no file", err, 422, "the file w.bin, which is not there")
	m.Files = append(m.Files, models.File{Path: "w.bin", Digest: blob.Sum(data), SizeBytes: 127})
	_, err = w.client("ops").PushModel(t.Context(), w.sign(m))
	wantProblem(t, "one byte too few", err, 422, "ends at byte 128 of w.bin, which has 127")
}

func TestModelThatIsNotWhatItSaysIsRefused(t *testing.T) {
	w := newWorld(t)
	content := onnx("x", "y", 2, 3)
	good := manifest(t, "vad", "1.0.0", content)
	stranger, err := trust.NewKey()
	must(t, err)
	payload, err := good.Encode()
	must(t, err)
	foreign, err := trust.Sign(trust.TypeModel, payload, stranger)
	must(t, err)
	otherType, err := trust.Sign(trust.TypeRelease, payload, w.key)
	must(t, err)
	push := func(name string, envelope []byte, status int, says string) {
		t.Helper()
		_, err := w.client("ops").PushModel(t.Context(), envelope)
		wantProblem(t, name, err, status, says)
	}
	push("files not uploaded", w.sign(good), 422, "is not here")
	w.put(content)
	push("signed by a stranger", foreign, 422, "not signed by a trusted key")
	push("signed as a release", otherType, 422, "want")
	edited := good
	edited.Files = []models.File{{Path: models.ModelFile, Digest: good.Files[0].Digest, SizeBytes: 1}}
	push("wrong size", w.sign(edited), 422, "the manifest says 1\nPack it again: edgeherd model push DIR")
	stored := w.blobs.Path(blob.Sum(content))
	must(t, os.Chmod(stored, 0o644))
	must(t, os.Truncate(stored, 3))
	push("a file cut short on the controller's disk", w.sign(good), 422, "is damaged where the controller stores it: it has 3 bytes there")
	push("a file cut short on the controller's disk", w.sign(good), 422, "edgeherd model verify NAME:VERSION --drop")
	must(t, w.blobs.Delete(blob.Sum(content)))
	w.put(content)
	edited = good
	edited.Signature = manifest(t, "vad", "1.0.0", onnx("x", "z", 2, 3)).Signature
	push("signature of another model", w.sign(edited), 422, "is not that of model.onnx")
	noise := []byte("this is no model")
	w.put(noise)
	edited = good
	edited.Files = []models.File{{Path: models.ModelFile, Digest: blob.Sum(noise), SizeBytes: int64(len(noise))}}
	push("no ONNX file", w.sign(edited), 422, "not a usable ONNX file")
	edited = good
	edited.Files = append(edited.Files[:1:1], models.File{Path: models.GoldenFile, Digest: blob.Sum(noise), SizeBytes: int64(len(noise))})
	push("golden samples that are none", w.sign(edited), 422, "golden")
	edited = good
	golden := []byte("{}")
	other := onnx("x", "y", 2, 4)
	w.put(golden)
	w.put(other)
	edited.Files = append(edited.Files[:1:1], models.File{Path: models.GoldenFile, Digest: blob.Sum(golden), SizeBytes: int64(len(golden))},
		models.File{Path: "small.onnx", Digest: blob.Sum(other), SizeBytes: int64(len(other))})
	edited.Variants = []models.Variant{{Name: "fp32", Path: models.ModelFile}, {Name: "int8", Path: "small.onnx"}}
	push("a variant with another signature", w.sign(edited), 422, `variant "int8": small.onnx has another signature`)
	if list, err := w.client("viewer").Models(t.Context()); err != nil || len(list.Items) != 0 {
		t.Errorf("models after refusals: %+v, %v", list.Items, err)
	}
	if _, err := w.client("ops").PushModel(t.Context(), w.sign(good)); err != nil {
		t.Errorf("the good one: %v", err)
	}
	edited = good
	edited.Description = "other words"
	push("same version, other content", w.sign(edited), 409, "already pushed with other content")
}

// TestVersionWithoutThePipelinesOfTheOneBeforeIsRefused: who calls a pipeline
// depends on it as on inputs and outputs. It is told at the push, and again in
// a rollout to boxes that run the version with the pipelines.
func TestVersionWithoutThePipelinesOfTheOneBeforeIsRefused(t *testing.T) {
	w := newWorld(t)
	content := onnx("x", "y", 1, 3, 8, 8)
	w.put(content)
	bare := manifest(t, "seg", "1.0.0", content)
	with := bare
	with.Version = "2.0.0"
	with.Pipelines = []models.Pipeline{{Name: "parts", Takes: models.KindImage, Stages: []models.Stage{
		{Name: "resize", With: map[string]any{"width": 8.0, "height": 8.0}}, {Name: "tensor"}, {Name: "run"}, {Name: "argmax"}}}}
	c := w.client("ops")
	if _, err := c.PushModel(t.Context(), w.sign(bare)); err != nil {
		t.Fatal(err)
	}
	two, err := c.PushModel(t.Context(), w.sign(with))
	must(t, err)
	again := bare
	again.Version = "3.0.0"
	_, err = c.PushModel(t.Context(), w.sign(again))
	wantProblem(t, "push", err, 422, `seg:3.0.0 cannot replace seg:2.0.0: pipeline "parts" is gone`)
	w.desire(w.box("box-1", "s", "amd64"), two.Ref)
	_, err = c.Plan(t.Context(), fleetapi.PlanRequest{Model: "seg:1.0.0"})
	wantProblem(t, "plan", err, 422, `box-1 runs seg:2.0.0, which seg:1.0.0 cannot replace: pipeline "parts" is gone`)
}

func TestReleaseCountersGrow(t *testing.T) {
	w := newWorld(t)
	program := []byte("program")
	w.put(program)
	sign := func(version string, counter uint64) []byte {
		envelope, _, err := firmware.Sign(firmware.Release{V: firmware.ReleaseVersion, Kind: firmware.KindAgent, Version: version, Counter: counter,
			Builds: []firmware.Build{{OS: "linux", Arch: "amd64", Digest: blob.Sum(program), SizeBytes: int64(len(program))}}}, w.key)
		must(t, err)
		return envelope
	}
	c := w.client("ops")
	first, err := c.PushRelease(t.Context(), sign("1.0.0", 5))
	must(t, err)
	if again, err := c.PushRelease(t.Context(), sign("1.0.0", 5)); err != nil || again.Digest != first.Digest {
		t.Errorf("pushed again: %+v, %v", again, err)
	}
	_, err = c.PushRelease(t.Context(), sign("1.1.0", 5))
	wantProblem(t, "counter that does not grow", err, 422, "Use 6 or more")
	_, err = c.PushRelease(t.Context(), sign("1.0.0", 6))
	wantProblem(t, "same version, other content", err, 409, "other content")
	if _, err := c.PushRelease(t.Context(), sign("1.1.0", 6)); err != nil {
		t.Error(err)
	}
	list, err := w.client("viewer").Releases(t.Context())
	must(t, err)
	if len(list.Items) != 2 || list.Items[0].Platforms[0] != "linux/amd64" {
		t.Errorf("releases %+v", list.Items)
	}
}

func TestUploadIsCheckedAndCounted(t *testing.T) {
	w := newWorld(t)
	c := w.client("ops")
	data := bytes.Repeat([]byte("abc"), 100_000)
	d := blob.Sum(data)
	missing, err := c.Missing(t.Context(), []blob.Digest{d, d})
	must(t, err)
	if len(missing) != 2 || missing[0] != d {
		t.Errorf("missing %v", missing)
	}
	var last int64
	must(t, c.Upload(t.Context(), d, bytes.NewReader(data), int64(len(data)), func(n int64) { last = n }))
	if last != int64(len(data)) {
		t.Errorf("progress ended at %d of %d", last, len(data))
	}
	if missing, err = c.Missing(t.Context(), []blob.Digest{d}); err != nil || len(missing) != 0 {
		t.Errorf("after the upload: %v, %v", missing, err)
	}
	err = c.Upload(t.Context(), blob.Sum([]byte("other")), bytes.NewReader(data), int64(len(data)), nil)
	wantProblem(t, "wrong digest", err, 422, "are not sha256:")
	must(t, c.Upload(t.Context(), blob.Sum(nil), bytes.NewReader(nil), 0, nil))
}

func TestUploadWithoutALengthIsRefused(t *testing.T) {
	w := newWorld(t)
	req, err := http.NewRequestWithContext(t.Context(), "PUT", w.server.URL+"/api/v1/blobs/"+blob.Sum([]byte("x")).Hex(), struct{ *strings.Reader }{strings.NewReader("x")})
	must(t, err)
	req.ContentLength = -1
	req.Header.Set("Authorization", "Bearer "+w.tokens["ops"])
	res, err := http.DefaultClient.Do(req)
	must(t, err)
	defer res.Body.Close()
	if res.StatusCode != http.StatusLengthRequired {
		t.Errorf("status %d", res.StatusCode)
	}
}

// A box that asks about what nobody has would else fill the database.
func TestALeaseIsOfAFileThatIsThere(t *testing.T) {
	w := newWorld(t)
	must(t, w.store.AddBox(t.Context(), "d-aaaaaaaaaaaaa", "till", "berlin"))
	w.put([]byte("weights"))
	for text, want := range map[string]int{"weights": http.StatusOK, "nothing": http.StatusNotFound} {
		rec := &memory{header: http.Header{}}
		req, err := http.NewRequestWithContext(WithBox(t.Context(), "d-aaaaaaaaaaaaa"), "POST", "/device/v1/blobs/"+blob.Sum([]byte(text)).Hex()+"/lease", strings.NewReader(`{"size_bytes":7}`))
		must(t, err)
		if w.api.Device().ServeHTTP(rec, req); rec.status != want {
			t.Errorf("lease of %s: status %d, want %d: %s", text, rec.status, want, rec.body.String())
		}
	}
}

func TestBoxesFetchRangesOfBlobs(t *testing.T) {
	w := newWorld(t)
	data := []byte("0123456789")
	w.put(data)
	d := blob.Sum(data)
	get := func(box bool, header ...string) answer {
		t.Helper()
		rec := &memory{header: http.Header{}}
		ctx := t.Context()
		if box {
			ctx = WithBox(ctx, "d-aaaaaaaaaaaaa")
		}
		req, err := http.NewRequestWithContext(ctx, "GET", "/device/v1/blobs/"+d.Hex(), nil)
		must(t, err)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		w.api.Device().ServeHTTP(rec, req)
		return answer{rec.status, rec.header, rec.body.String()}
	}
	if got := get(false); got.status != http.StatusUnauthorized {
		t.Errorf("nobody: %d", got.status)
	}
	whole := get(true)
	etag := fmt.Sprintf("%q", d.String())
	if whole.status != 200 || whole.body != string(data) || whole.header.Get("ETag") != etag || !strings.Contains(whole.header.Get("Cache-Control"), "immutable") {
		t.Errorf("whole: %+v", whole)
	}
	if got := get(true, "Range", "bytes=4-", "If-Range", etag); got.status != http.StatusPartialContent || got.body != "456789" || got.header.Get("Content-Range") != "bytes 4-9/10" {
		t.Errorf("rest: %+v", got)
	}
	if got := get(true, "Range", "bytes=4-", "If-Range", `"sha256:other"`); got.status != http.StatusOK || got.body != string(data) {
		t.Errorf("rest of another blob: %+v", got)
	}
	if got := get(true, "If-None-Match", etag); got.status != http.StatusNotModified {
		t.Errorf("unchanged: %d", got.status)
	}
	d = blob.Sum([]byte("absent"))
	if got := get(true); got.status != http.StatusNotFound {
		t.Errorf("absent: %d", got.status)
	}
}

// memory is a response kept in memory.
type memory struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (m *memory) Header() http.Header { return m.header }
func (m *memory) WriteHeader(s int)   { m.status = s }
func (m *memory) Write(p []byte) (int, error) {
	if m.status == 0 {
		m.status = http.StatusOK
	}
	return m.body.Write(p)
}
