package models

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/blob"
)

// detector is a manifest to hang pipelines on: one picture in, scores and boxes out.
func detector() Manifest {
	return Manifest{V: ManifestVersion, Name: "det", Version: "1",
		Files: []File{{Path: ModelFile, Digest: blob.Sum(nil)}, {Path: "names.txt", Digest: blob.Sum([]byte("n")), SizeBytes: 1}},
		Signature: Signature{
			Inputs: []TensorSpec{{"x", FP32, []int64{-1, 3, 64, 96}}},
			Outputs: []TensorSpec{
				{"scores", FP32, []int64{1, 24, 2}}, {"boxes", FP32, []int64{1, 24, 4}}, {"classes", FP32, []int64{1, 3}},
				{"v8", FP32, []int64{1, 7, 100}}, {"words", BYTES, []int64{1}}, {"map", FP32, []int64{1, 1, 64, 96}},
			},
		}}
}

func listener() Manifest {
	return Manifest{V: ManifestVersion, Name: "ear", Version: "1", Files: []File{{Path: ModelFile, Digest: blob.Sum(nil)}},
		Signature: Signature{
			Inputs:  []TensorSpec{{"input", FP32, []int64{-1, -1}}, {"state", FP32, []int64{2, -1, 8}}, {"sr", INT64, nil}},
			Outputs: []TensorSpec{{"output", FP32, []int64{-1, 1}}, {"stateN", FP32, []int64{2, -1, 4}}},
		}}
}

func pipelinesOf(t *testing.T, yaml string) ([]Pipeline, error) {
	t.Helper()
	d, err := decodeDescription([]byte("name: det\nversion: 1\npipelines:\n" + yaml))
	return d.Pipelines, err
}

// TestFaultyPipelinesAreRefusedWithTheirPlace: each is refused before it is
// signed, and the text says where the fault is and what would do.
func TestFaultyPipelinesAreRefusedWithTheirPlace(t *testing.T) {
	const head = "  - name: find\n    takes: image\n    stages:\n"
	const ear = "  - name: hear\n    takes: audio\n    stages:\n"
	const pre = "      - resize: {width: 96, height: 64}\n      - tensor\n      - run\n"
	for _, tt := range []struct {
		name, yaml string
		want       []string
	}{
		{"unknown stage", head + "      - reszie: {width: 3}\n", []string{"line 7", `unknown stage "reszie"`, "resize"}},
		{"unknown parameter", head + "      - resize: {widht: 3}\n", []string{"line 7", `stage resize: unknown parameter "widht"`, "width, height"}},
		{"out of range", head + "      - crop: {x: 1.5}\n", []string{"line 7", `parameter "x" is 1.5`, "from 0 to 1"}},
		{"not whole", head + "      - resize: {width: 3.5}\n", []string{`parameter "width" is 3.5`, "whole number"}},
		{"not a choice", head + "      - resize: {width: 3, filter: lanczos}\n", []string{`"lanczos"`, "nearest, bilinear, area"}},
		{"a text for a number", head + "      - resize: {width: wide}\n", []string{`parameter "width" is "wide"`}},
		{"missing parameter", head + "      - letterbox: {width: 3}\n", []string{`parameter "height" is required`}},
		{"two names", head + "      - {run: {}, nms: {}}\n", []string{"2 names"}},
		{"unknown key of a pipeline", "  - name: find\n    takse: image\n", []string{"takse"}},
		{"takes nothing known", "  - {name: a, takes: video, stages: [run]}\n", []string{`takes "video", want image or audio`}},
		{"no stages", "  - {name: a, takes: image, stages: []}\n", []string{"0 stages"}},
		{"wrong order", head + "      - nms\n", []string{`pipeline "find", stage 1 (nms)`, "takes boxes, but gets image", "letterbox"}},
		{"picture of no fixed size", head + "      - tensor\n", []string{"stage 1 (tensor)", "[-1 3 64 96]", "put a resize"}},
		{"picture of another size", head + "      - resize: {width: 64, height: 64}\n      - tensor\n", []string{"stage 2 (tensor)", "[-1 3 64 96]", "[1 3 64 64]"}},
		{"wrong layout", head + "      - resize: {width: 96, height: 64}\n      - tensor: {layout: nhwc}\n", []string{"stage 2 (tensor)", "[1 64 96 3]"}},
		{"wrong type", head + "      - resize: {width: 96, height: 64}\n      - tensor: {dtype: UINT8}\n", []string{`dtype is UINT8, input "x" is FP32`}},
		{"unknown input", head + "      - resize: {width: 96, height: 64}\n      - tensor: {input: y}\n", []string{`no input "y"; it has "x"`}},
		{"two means", head + "      - resize: {width: 96, height: 64}\n      - tensor: {mean: [1, 2]}\n", []string{"mean has 2 numbers, want 1 or 3"}},
		{"scaled twice", head + "      - pad: {width: 9}\n      - resize: {width: 96, height: 64}\n", []string{"stage 2 (resize)", "scaled once and padded last"}},
		{"cropped too late", head + "      - letterbox: {width: 96, height: 64}\n      - crop\n", []string{"stage 2 (crop)", "cropped first"}},
		{"larger than memory", head + "      - letterbox: {width: 8000, height: 8000}\n", []string{"8000 × 8000 pixels"}},
		{"resize both ways", head + "      - resize: {width: 96, longest: 64}\n", []string{"width and height, one of them, or longest"}},
		{"which output", head + pre + "      - top_k\n", []string{"stage 4 (top_k)", "output is required"}},
		{"unknown output", head + pre + "      - top_k: {output: z}\n", []string{`no output "z"`}},
		{"texts for numbers", head + pre + "      - top_k: {output: words}\n", []string{"BYTES"}},
		{"wrong rank", head + pre + "      - ctc: {output: classes, charset: names.txt}\n", []string{"[1 3]", "want 3 dimensions"}},
		{"labels do not fit", head + pre + "      - top_k: {output: classes, labels: [a, b]}\n", []string{"labels has 2 names, the model has 3 classes"}},
		{"labels of yolo", head + pre + "      - yolo_boxes: {output: v8, form: v8, labels: [a]}\n", []string{"labels has 1 names, the model has 3"}},
		{"no such file", head + pre + "      - top_k: {output: classes, labels_file: no.txt}\n", []string{`no file "no.txt"`, "files"}},
		{"labels twice", head + pre + "      - top_k: {output: classes, labels: [a, b, c], labels_file: names.txt}\n", []string{"want one"}},
		{"grid does not fit", head + pre + "      - ssd_boxes: {scores: scores, boxes: boxes, grid: 4, per_cell: 2}\n", []string{`output "scores"`, "[1 32 ?]"}},
		{"anchors twice", head + pre + "      - ssd_boxes: {scores: scores, boxes: boxes, grid: 4, per_cell: 2, anchors_file: names.txt}\n", []string{"grid or anchors_file"}},
		{"unfinished", head + pre, []string{"ends with outputs after stage 3 (run)", "top_k"}},
		{"twice", head + pre + "      - db_boxes: {output: map}\n" + head + "      - call: {model: b, gives: text}\n", []string{`two pipelines are called "find"`}},
		{"bad name", "  - {name: A B, takes: image, stages: [run]}\n", []string{`pipeline 1: name "A B"`}},
		{"input forgotten", ear + "      - windows: {input: input, size: 512}\n      - run\n", []string{"stage 2 (run)", `input "state" FP32[2 -1 8] is not set`}},
		{"state of another shape", ear + "      - windows: {input: input, size: 512}\n      - carry: {input: state, output: stateN}\n", []string{"stage 2 (carry)", "size 8", "now 4"}},
		{"set twice", ear + "      - windows: {input: input, size: 512}\n      - constant: {input: input, values: 0}\n", []string{"set already"}},
		{"too many constants", ear + "      - windows: {input: input, size: 512}\n      - constant: {input: sr, values: [1, 2]}\n", []string{"needs 1 or 1"}},
		{"a rate nobody makes", ear + "      - windows: {input: input, size: 512, rate: 8000}\n", []string{"8000", "16000"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := detector()
			if strings.Contains(tt.yaml, "takes: audio") {
				m = listener()
			}
			p, err := pipelinesOf(t, tt.yaml)
			if err == nil {
				m.Pipelines = p
				err = m.Validate()
			}
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%v\nlacks %q", err, want)
				}
			}
		})
	}
}

func TestSoundPipelinesStayWhatTheyAre(t *testing.T) {
	m := detector()
	var err error
	if m.Pipelines, err = pipelinesOf(t, `
  - name: find
    takes: image
    stages:
      - crop: {x: 0.1, width: 0.5}
      - letterbox: {width: 96, height: 64}
      - tensor: {mean: [1, 2, 3], std: 0.5}
      - run
      - yolo_boxes: {output: v8, form: v8, labels: [a, b, c]}
      - nms: {per_class: false}
  - name: name
    takes: image
    stages: [{resize: {width: 96, height: 64}}, tensor, run, {softmax: {output: classes}}, {top_k: {output: classes, labels_file: names.txt}}]
  - {name: parts, takes: image, stages: [{call: {model: other, gives: boxes}}, {each: {model: det}}, lines]}
`); err != nil {
		t.Fatal(err)
	}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeManifest(data)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(back.Pipelines, m.Pipelines) {
		t.Errorf("decoded %+v\nwant    %+v", back.Pipelines, m.Pipelines)
	}
	for i, want := range []Kind{KindBoxes, KindClasses, KindText} {
		if got, err := m.Pipelines[i].Check(m); err != nil || got != want {
			t.Errorf("%s ends with %s, %v; want %s", m.Pipelines[i].Name, got, err, want)
		}
	}
}

// TestUnknownStageInAManifestIsRefused: a controller reads JSON, not YAML.
func TestUnknownStageInAManifestIsRefused(t *testing.T) {
	m := detector()
	m.Pipelines = []Pipeline{{"p", KindImage, []Stage{{Name: "call", With: map[string]any{"model": "b", "gives": "text"}}}}}
	data, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for was, is := range map[string]string{`"call":`: `"cull":`, `"gives":`: `"giv":`, `"takes":`: `"taks":`, `"text"`: `"outputs"`} {
		bad := strings.Replace(string(data), was, is, 1)
		if _, err := DecodeManifest([]byte(bad)); err == nil || bad == string(data) {
			t.Errorf("%s instead of %s: accepted", is, was)
		}
	}
}

func TestCallsAreHeldAgainstWhatTheyCall(t *testing.T) {
	of := func(all map[string]string) func(string) (Manifest, error) {
		return func(name string) (Manifest, error) {
			m := detector()
			m.Name = name
			yaml, ok := all[name]
			if !ok {
				return m, errors.New("model " + name + " does not serve here")
			}
			var err error
			m.Pipelines, err = pipelinesOf(t, yaml)
			return m, err
		}
	}
	const boxes = "  - {name: b, takes: image, stages: [{resize: {width: 96, height: 64}}, tensor, run, {db_boxes: {output: map}}]}\n"
	const classes = "  - {name: c, takes: image, stages: [{resize: {width: 96, height: 64}}, tensor, run, {top_k: {output: classes}}]}\n"
	const asks = "  - {name: p, takes: image, stages: [{call: {model: det, gives: boxes}}, {turn: {model: cls, upright: a, flipped: b}}, {each: {model: rec}}, lines]}\n"
	for _, tt := range []struct {
		name string
		have map[string]string
		want string
	}{
		{"all there", map[string]string{"det": boxes, "cls": classes, "rec": classes}, ""},
		{"one is missing", map[string]string{"det": boxes, "cls": classes}, "stage 3 (each): model rec does not serve here"},
		{"one gives something else", map[string]string{"det": classes, "cls": classes, "rec": classes}, "stage 1 (call): pipeline \"c\" of det:1 takes image and gives classes"},
		{"one declares nothing", map[string]string{"det": boxes, "cls": " []\n", "rec": classes}, "declares no pipeline"},
		{"in a circle", map[string]string{"det": asks, "cls": classes, "rec": classes}, "gives text"},
		{"a loop", map[string]string{"det": "  - {name: d, takes: image, stages: [{call: {model: det, gives: boxes}}]}\n", "cls": classes, "rec": classes}, "calls itself"},
	} {
		p, err := pipelinesOf(t, asks)
		if err != nil {
			t.Fatal(err)
		}
		err = p[0].CheckCalls(of(tt.have))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}

// TestFilesOfStagesAreReadBeforeAPush: a charset with a line missing would shift
// all letters.
func TestFilesOfStagesAreReadBeforeAPush(t *testing.T) {
	from := assets.Model(t, "ocr-rec-4.0.0")
	dir := t.TempDir()
	for _, name := range []string{ModelFile, DescriptionFile, "ppocr_keys_v1.txt"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".txt") {
			data = data[strings.Index(string(data), "\n")+1:]
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, _, err := Pack(dir)
	wantError(t, err, "stands for 6624 classes, the model has 6625")
	for _, bad := range []string{"", "[[1,2,3]]", "[[0,0,0,1]]", "[]", "{}"} {
		if a, err := ReadAnchors([]byte(bad)); err == nil || a != nil {
			t.Errorf("anchors %q: accepted", bad)
		}
	}
	if a, err := ReadAnchors([]byte("[[0.5,0.5,0.1,0.2]]")); err != nil || a[0] != [4]float32{0.5, 0.5, 0.1, 0.2} {
		t.Errorf("anchors: %v, %v", a, err)
	}
}

// TestNextVersionKeepsThePipelines: inputs of boxes name them.
func TestNextVersionKeepsThePipelines(t *testing.T) {
	m := detector()
	var err error
	if m.Pipelines, err = pipelinesOf(t, "  - {name: find, takes: image, stages: [{resize: {width: 96, height: 64}}, tensor, run, {db_boxes: {output: map}}]}\n"); err != nil {
		t.Fatal(err)
	}
	next := m
	if next.Pipelines, err = pipelinesOf(t, "  - {name: new, takes: image, stages: [{call: {model: x, gives: text}}]}\n"+
		"  - {name: find, takes: image, stages: [{letterbox: {width: 96, height: 64}}, tensor, run, {yolo_boxes: {output: v8, form: v8}}]}\n"); err != nil {
		t.Fatal(err)
	}
	if err := m.Accepts(next); err != nil {
		t.Errorf("other stages: %v", err)
	}
	wantError(t, next.Accepts(m), `pipeline "new" is gone`)
	other := next
	other.Pipelines = []Pipeline{{"find", KindImage, []Stage{{Name: "call", With: map[string]any{"model": "x", "gives": "text"}}}}}
	wantError(t, m.Accepts(other), `pipeline "find" gave boxes and gives text now`)
}

// TestCallsThatBranchAreRefused: 31 stages that call 31 others would be checked,
// and carried out, a million times.
func TestCallsThatBranchAreRefused(t *testing.T) {
	asked := 0
	branching := func(name string, stages int) Manifest {
		m := detector()
		m.Name = name
		p := Pipeline{Name: name, Takes: KindImage, Stages: []Stage{{"call", map[string]any{"model": "next", "gives": "boxes"}}}}
		for range stages {
			p.Stages = append(p.Stages, Stage{"each", map[string]any{"model": "next"}})
		}
		m.Pipelines = []Pipeline{p}
		return m
	}
	m := branching("a", 30)
	err := m.Pipelines[0].CheckCalls(func(string) (Manifest, error) {
		asked++
		return branching("next", 30), nil
	})
	if err == nil || asked > maxCallStages {
		t.Errorf("asked %d times, %v", asked, err)
	}
}

// TestInputsThatAreMadeAreBounded: a signature may name any size.
func TestInputsThatAreMadeAreBounded(t *testing.T) {
	for _, shape := range [][]int64{{1 << 40}, {1 << 21}, {1 << 62, 1 << 62}, {2, -1, 1 << 30}} {
		m := listener()
		m.Signature.Inputs[1].Shape, m.Signature.Outputs[1].Shape = shape, shape
		p := Pipeline{Name: "hear", Takes: KindAudio, Stages: []Stage{
			{"windows", map[string]any{"input": "input", "size": 512.0}}, {"carry", map[string]any{"input": "state", "output": "stateN"}},
			{"constant", map[string]any{"input": "sr", "values": 16000.0}}, {"run", nil}, {"segments", map[string]any{"output": "output", "label": "speech"}}}}
		if _, err := p.Check(m); err == nil || !strings.Contains(err.Error(), "(carry): input \"state\"") {
			t.Errorf("%v: %v", shape, err)
		}
	}
}
