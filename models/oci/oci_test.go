package oci

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// What a registry answers comes with what to do about it.
func TestARegistryThatRefusesIsToldWithAWayOut(t *testing.T) {
	status := http.StatusUnauthorized
	image := `{"schemaVersion":2,"mediaType":"` + ocispec.MediaTypeImageManifest + `","config":{"mediaType":"` + ocispec.MediaTypeImageConfig + `"},"layers":[{}]}`
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="models"`)
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Docker-Content-Digest", digest.FromString(image).String())
		w.WriteHeader(status)
		if status == http.StatusOK {
			w.Write([]byte(image))
		}
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	for _, tc := range []struct {
		status int
		plain  bool
		why    string
	}{
		{http.StatusUnauthorized, true, "docker login " + host},
		{http.StatusForbidden, true, "docker login " + host},
		{http.StatusNotFound, true, ErrNotFound.Error()},
		{http.StatusOK, false, "--plain-http"},
		{http.StatusOK, true, "an image of containers"},
	} {
		status = tc.status
		place, err := At(Scheme+host+"/models/eye:1", tc.plain)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := place.Find(t.Context()); err == nil || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("status %d, plain %t: %v, want %q", tc.status, tc.plain, err, tc.why)
		}
	}
}

// A layer of others names a clean path inside of a folder, raw and bounded, or the
// artefact is refused by its name.
func TestALayerOfOthersIsRefusedByName(t *testing.T) {
	good := ocispec.Descriptor{MediaType: TypeWeight, Digest: digest.FromString("weights"), Size: 7}
	for _, tc := range []struct {
		name, path, why string
		change          func(*ocispec.Descriptor)
	}{
		{"plain", "model.onnx", "", nil},
		{"below", "a/model.onnx", "", nil},
		{"out of it", "../../etc/passwd", "not a clean one", nil},
		{"absolute", "/etc/passwd", "not a clean one", nil},
		{"in and out", "a/../../b", "not a clean one", nil},
		{"a command to the terminal", "a\x1b[2Jb", "not a clean one", nil},
		{"no path", "", "not a clean one", nil},
		{"a tar", "model.onnx", "only raw layers", func(d *ocispec.Descriptor) { d.MediaType = "application/vnd.cncf.model.weight.v1.tar+gzip" }},
		{"endless", "model.onnx", "a file may have", func(d *ocispec.Descriptor) { d.Size = 1 << 50 }},
		{"less than nothing", "model.onnx", "a file may have", func(d *ocispec.Descriptor) { d.Size = -1 }},
		{"another digest", "model.onnx", "sha256", func(d *ocispec.Descriptor) { d.Digest = "sha512:00" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := good
			d.Annotations = map[string]string{annotationPath: tc.path}
			if tc.change != nil {
				tc.change(&d)
			}
			_, err := fileOf(d)
			if (err == nil) != (tc.why == "") || err != nil && !strings.Contains(err.Error(), tc.why) {
				t.Errorf("%v, want %q", err, tc.why)
			}
		})
	}
	for _, ref := range []string{"docker://x/y:1", "oci://", "oci://host/repo", "oci://HOST/Repo:1"} {
		if _, err := At(ref, false); err == nil {
			t.Errorf("%s was taken", ref)
		}
	}
}
