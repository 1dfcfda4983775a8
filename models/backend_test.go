package models

import (
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// TestBackendBringsNoCommand: what a manifest may say about a backend is
// bounded, and it has something to be tried with.
func TestBackendBringsNoCommand(t *testing.T) {
	base := func(api string) Manifest {
		m := Manifest{V: ManifestVersion, Name: "eye", Version: "1", Backend: &Backend{Name: "b", API: api}}
		proof := PromptsFile
		if api == APIOIP {
			proof = GoldenFile
			m.Signature = Signature{Inputs: []TensorSpec{{Name: "x", DType: FP32}}, Outputs: []TensorSpec{{Name: "y", DType: FP32}}}
		}
		m.Files = []File{{Path: proof, Digest: blob.Sum([]byte("x")), SizeBytes: 1}}
		return m
	}
	for _, tc := range []struct {
		name   string
		api    string
		change func(*Manifest)
		want   string // "" = fine
	}{
		{"oip", APIOIP, func(*Manifest) {}, ""},
		{"openai", APIOpenAI, func(m *Manifest) { m.Backend.Parameters = map[string]string{"image": "acme/llm:1.2@sha256"} }, ""},
		{"may leave", APIOIP, func(m *Manifest) { m.LeavesSite = MayLeaveSite }, ""},
		{"leaves where", APIOIP, func(m *Manifest) { m.LeavesSite = "sometimes" }, "leaves_site"},
		{"other api", "soap", func(*Manifest) {}, "soap"},
		{"option", APIOIP, func(m *Manifest) { m.Backend.Parameters = map[string]string{"image": "--privileged"} }, "--privileged"},
		{"path out", APIOIP, func(m *Manifest) { m.Backend.Parameters = map[string]string{"dir": "a/../../etc"} }, ".."},
		{"two words", APIOIP, func(m *Manifest) { m.Backend.Parameters = map[string]string{"x": "a b"} }, "a b"},
		{"model that is a path", APIOIP, func(m *Manifest) { m.Backend.Model = "../admin" }, "../admin"},
		{"no samples", APIOIP, func(m *Manifest) { m.Files[0].Path = "model.gguf" }, "could not try"},
		{"no files at all", APIOIP, func(m *Manifest) { m.Files = nil }, GoldenFile},
		{"prompts for tensors", APIOIP, func(m *Manifest) { m.Files[0].Path = PromptsFile }, GoldenFile},
		{"no signature", APIOIP, func(m *Manifest) { m.Signature = Signature{} }, "signature"},
		{"variants", APIOIP, func(m *Manifest) { m.Variants = []Variant{{Name: "a", Path: ModelFile}} }, "no variants"},
		{"tensors of a language model", APIOpenAI, func(m *Manifest) { m.Signature.Inputs = []TensorSpec{{Name: "x", DType: FP32}} }, "no tensors"},
	} {
		m := base(tc.api)
		tc.change(&m)
		data, err := m.Encode()
		switch {
		case tc.want == "" && err != nil:
			t.Errorf("%s: %v", tc.name, err)
		case tc.want == "":
			if _, err := DecodeManifest(data); err != nil {
				t.Errorf("%s: read again: %v", tc.name, err)
			}
		case err == nil || !strings.Contains(err.Error(), tc.want):
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}
	}
}

// TestPromptsProveSomething: none is taken that any answer would pass.
func TestPromptsProveSomething(t *testing.T) {
	for text, want := range map[string]string{
		`{"v":1,"cases":[{"name":"a","prompt":"p","contains":"x"}]}`:                                "",
		`{"v":1,"cases":[{"name":"a","path":"embeddings","body":{"input":"i"},"matches":"embed"}]}`: "",
		`{"v":1,"cases":[{"name":"a","prompt":"p"}]}`:                                               "any answer",
		`{"v":1,"cases":[{"name":"a","prompt":"p","matches":"("}]}`:                                 "matches",
		`{"v":1,"cases":[{"name":"a","prompt":"p","body":{},"path":"x","contains":"x"}]}`:           "one of them",
		`{"v":1,"cases":[{"name":"a","path":"x","body":[1],"contains":"x"}]}`:                       "no JSON object",
		`{"v":1,"cases":[]}`:                "0 cases",
		`{"v":2,"cases":[{"name":"a"}]}`:    "version 2",
		`{"v":1,"cases":[{"mood":"good"}]}`: "mood",
	} {
		if _, err := DecodePrompts([]byte(text)); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	c := Prompt{Contains: "4", Matches: "^4"}
	for body, right := range map[string]bool{
		`{"choices":[{"message":{"content":"4."}}]}`:      true,
		`{"choices":[{"text":"4 it is"}]}`:                true,
		`{"choices":[{"message":{"content":"it is 4"}}]}`: false,
		`{"choices":[{"message":{"content":"5"}}]}`:       false,
		`4 bare`:        true,
		`{"error":"4"}`: false,
	} {
		if err := c.Check(200, []byte(body)); (err == nil) != right {
			t.Errorf("%s: %v", body, err)
		}
	}
	if c.Check(503, []byte("4")) == nil {
		t.Error("an error passes for an answer")
	}
}
