package models

import (
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
)

const smallYAML = "name: small\nversion: 1.0.0\nfiles:\n  - model.onnx\n  - words.txt\n"

// modelDir writes a packable model and then the changes of the test.
func modelDir(t *testing.T, changes map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{DescriptionFile: smallYAML, ModelFile: string(smallModel()), "words.txt": "a\nb\n"}
	for name, content := range changes {
		files[name] = content
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func smallGolden(t *testing.T) string {
	g := Golden{V: 1, Cases: []GoldenCase{{
		Name: "one",
		Inputs: []GoldenInput{
			{TensorSpec{"x", FP32, []int64{1, 3}}, raw(FP32, 1, 2, 3)}, {TensorSpec{"sr", INT64, nil}, raw(INT64, 16000)},
		},
		Outputs: []GoldenWant{{TensorSpec{"y", FP16, []int64{2}}, make([]byte, 4), 0, 0, nil}},
	}}}
	data, err := json.Marshal(g)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestPackNamesFilesByContentAndAddsGolden(t *testing.T) {
	dir := modelDir(t, map[string]string{GoldenFile: smallGolden(t)})
	m, paths, err := Pack(dir)
	if err != nil {
		t.Fatal(err)
	}
	if m.Name != "small" || m.Version != "1.0.0" || len(m.Files) != 3 {
		t.Errorf("got %+v, want small:1.0.0 with 3 files", m)
	}
	if _, ok := m.File(GoldenFile); !ok {
		t.Error("golden.json is not in the manifest")
	}
	for _, f := range m.Files {
		if paths[f.Digest] != filepath.Join(dir, f.Path) {
			t.Errorf("path of %s is %q", f.Path, paths[f.Digest])
		}
	}
	if f, _ := m.File("words.txt"); f.Digest != blob.Sum([]byte("a\nb\n")) || f.SizeBytes != 4 {
		t.Errorf("words.txt is %+v", f)
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeManifest(data)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("decoded %+v, %v\nwant    %+v", back, err, m)
	}
}

func TestPackRefusesWithTheReason(t *testing.T) {
	for _, tt := range []struct {
		name    string
		changes map[string]string
		err     string
	}{
		{"unknown key", map[string]string{DescriptionFile: smallYAML + "licens: MIT\n"}, "line 6: field licens not found"},
		{"bad name", map[string]string{DescriptionFile: "name: Small\nversion: '1'\n"}, `model name "Small"`},
		{"no version", map[string]string{DescriptionFile: "name: small\n"}, "model version"},
		{"two documents", map[string]string{DescriptionFile: smallYAML + "---\nname: b\n"}, "more than one YAML document"},
		{"missing file", map[string]string{DescriptionFile: smallYAML + "  - gone.txt\n"}, `file "gone.txt" of model.yaml`},
		{"no model in the list", map[string]string{DescriptionFile: "name: a\nversion: '1'\nfiles: [words.txt]\n"}, "model has no file model.onnx"},
		{"outside", map[string]string{DescriptionFile: smallYAML + "  - ../x\n"}, "outside of the model's directory"},
		{"a directory", map[string]string{DescriptionFile: smallYAML + "  - .\n"}, "not a regular file"},
		{"listed twice", map[string]string{DescriptionFile: smallYAML + "  - model.onnx\n"}, "listed twice"},
		{"not ONNX", map[string]string{ModelFile: "hello"}, "not a usable ONNX file"},
		{"golden of another model", map[string]string{GoldenFile: `{"v":1,"cases":[{"name":"a","inputs":[{"name":"q","datatype":"INT8","shape":[],"data":"AA=="}],"outputs":[{"name":"y","datatype":"INT8","shape":[],"data":"AA==","abs":0,"rel":0}]}]}`}, `golden case "a": the model has no input "q"`},
		{"golden of garbage", map[string]string{GoldenFile: `[]`}, "golden samples"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, _, err := Pack(modelDir(t, tt.changes))
			wantError(t, err, tt.err)
		})
	}
	_, _, err := Pack(t.TempDir())
	wantError(t, err, "write it with at least name and version")
}

func TestPackFollowsNoLinkOutOfTheDirectory(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir := modelDir(t, map[string]string{DescriptionFile: smallYAML + "  - link\n"})
	if err := os.Symlink(secret, filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	_, _, err := Pack(dir)
	wantError(t, err, `file "link" of model.yaml`)
}

func TestDemoModelsPack(t *testing.T) {
	for _, name := range []string{"silero-vad-5.0.0", "silero-vad-6.0.0", "silero-vad-legacy", "ocr-det-4.0.0", "ocr-cls-2.0.0", "ocr-rec-4.0.0", "face-detect-1.2.0"} {
		t.Run(name, func(t *testing.T) {
			m, _, err := Pack(assets.Model(t, name))
			if err != nil {
				t.Fatal(err)
			}
			if m.Licence == "" || m.Upstream == "" || m.Description == "" {
				t.Errorf("%s does not say what it is and whose: %+v", m.Name, m)
			}
		})
	}
}

func FuzzDecodeManifest(f *testing.F) {
	m := Manifest{V: 1, Name: "a", Version: "1", Files: []File{{Path: ModelFile, Digest: blob.Sum(nil)}},
		Signature: Signature{[]TensorSpec{{"x", FP32, nil}}, []TensorSpec{{"y", FP32, []int64{-1}}}}}
	data, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	m.Signature.Inputs[0].Shape = []int64{1, 3, -1, -1}
	m.Pipelines = []Pipeline{{"a", KindImage, []Stage{{Name: "resize", With: map[string]any{"width": 8.0, "height": 8.0}},
		{Name: "tensor", With: map[string]any{"mean": []float64{1, 2, 3}}}, {Name: "run"}, {Name: "top_k", With: map[string]any{"labels": "x"}}}}}
	if data, err = m.Encode(); err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := DecodeManifest(data)
		if err != nil {
			if m.V != 0 {
				t.Fatal("error with a value")
			}
			return
		}
		again, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeManifest(again)
		if err != nil || back.Name != m.Name || len(back.Files) != len(m.Files) {
			t.Fatalf("encoded again: %+v, %v", back, err)
		}
	})
}

func FuzzDecodeDescription(f *testing.F) {
	f.Add([]byte(smallYAML))
	f.Add([]byte("name: a\nversion: 1\ndescription: |\n  x\nlicence: MIT\nupstream: https://example.com\n"))
	f.Add([]byte("name: a\nversion: 1\npipelines:\n  - {name: a, takes: image, stages: [{resize: {longest: 9}}, tensor, run, {nms: {iou: 0.5}}]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if d, err := decodeDescription(data); err != nil && d.Name != "" {
			t.Fatal("error with a value")
		}
	})
}

func TestDemoGoldenSamplesFitTheirModels(t *testing.T) {
	files, err := filepath.Glob("demo/*/" + GoldenFile)
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden samples in demo: %v", err)
	}
	for _, path := range files {
		g, err := ReadGolden(path)
		if err != nil {
			t.Error(err)
			continue
		}
		info, err := ReadONNXFile(filepath.Join(assets.Model(t, filepath.Base(filepath.Dir(path))), ModelFile))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Fits(info.Signature); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestPackAddsWeightsThatAreInOtherFiles(t *testing.T) {
	graph := func(entries ...string) string {
		return string(model(value(11, "x", 1, 1), value(12, "y", 1, 1), outside(5, "w", entries...)))
	}
	two := graph("location", "w.bin", "offset", "4")
	dir := modelDir(t, map[string]string{ModelFile: two, "w.bin": "twenty bytes of data"})
	m, paths, err := Pack(dir)
	f, ok := m.File("w.bin")
	if err != nil || !ok || paths[f.Digest] != filepath.Join(dir, "w.bin") || m.CheckExternal(ModelFile, []ExternalFile{{"w.bin", 20, "w"}}) != nil {
		t.Errorf("got %+v, %v", m.Files, err)
	}
	for name, c := range map[string]struct {
		changes map[string]string
		says    string
	}{
		"no such file": {map[string]string{ModelFile: two}, `model.onnx keeps tensor "w" in the file w.bin, which is not there: put it`},
		"too short":    {map[string]string{ModelFile: two, "w.bin": "nineteen bytes, so"}, `tensor "w" of model.onnx ends at byte 20 of w.bin, which has 18: take both`},
		"not beside":   {map[string]string{ModelFile: graph("location", "../w.bin")}, `want the name of a file in the model's folder`},
		"a variant's":  {map[string]string{ModelFile: two, "w.bin": "twenty bytes of data", "b.onnx": graph("location", "v.bin"), GoldenFile: "{}", DescriptionFile: smallYAML + "variants:\n  - {name: large, file: model.onnx}\n  - {name: small, file: b.onnx}\n"}, `b.onnx keeps tensor "w" in the file v.bin, which is not there`},
	} {
		if _, _, err := Pack(modelDir(t, c.changes)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}
