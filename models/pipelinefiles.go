package models

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
)

// maxPipelineFileBytes bounds a file that a stage reads: names or anchors.
const maxPipelineFileBytes = 4 << 20

// ReadLines reads a labels or charset file: one entry a line.
func ReadLines(data []byte) ([]string, error) {
	if len(data) > maxPipelineFileBytes {
		return nil, fmt.Errorf("file has %d bytes, at most %d are read", len(data), maxPipelineFileBytes)
	}
	text := strings.TrimSuffix(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	if text == "" {
		return nil, errors.New("file is empty, want a line for each class")
	}
	return strings.Split(text, "\n"), nil
}

// ReadAnchors reads an anchors file: a JSON list of [centre x, centre y, width,
// height] as shares of the picture.
func ReadAnchors(data []byte) ([][4]float32, error) {
	if len(data) > maxPipelineFileBytes {
		return nil, fmt.Errorf("file has %d bytes, at most %d are read", len(data), maxPipelineFileBytes)
	}
	var lists [][]float32
	if err := json.Unmarshal(data, &lists); err != nil {
		return nil, fmt.Errorf("parse anchors: %w", err)
	}
	out := make([][4]float32, len(lists))
	for i, l := range lists {
		if len(l) != 4 || math.Abs(float64(l[0])) > 10 || math.Abs(float64(l[1])) > 10 || l[2] <= 0 || l[2] > 10 || l[3] <= 0 || l[3] > 10 {
			return nil, fmt.Errorf("anchor %d is %v, want [centre x, centre y, width, height] as shares of the picture", i, l)
		}
		out[i] = [4]float32(l)
	}
	if len(out) == 0 {
		return nil, errors.New("file has no anchors")
	}
	return out, nil
}

// CheckFiles holds the files that stages read against the signature.
func (p Pipeline) CheckFiles(m Manifest, read func(path string) ([]byte, error)) error {
	for i, s := range p.Stages {
		for _, key := range []string{"labels_file", "charset", "anchors_file"} {
			if !stageSpecs[s.Name].has(key) || !s.Has(key) {
				continue
			}
			data, err := read(s.Text(key))
			if err == nil {
				err = s.checkFile(m.Signature, key, data)
			}
			if err != nil {
				return fmt.Errorf("pipeline %q, stage %d (%s): %s %s: %w", p.Name, i+1, s.Name, key, s.Text(key), err)
			}
		}
	}
	return nil
}

func (s Stage) checkFile(sig Signature, key string, data []byte) error {
	if key == "anchors_file" {
		_, err := ReadAnchors(data)
		return err
	}
	lines, err := ReadLines(data)
	if err != nil {
		return err
	}
	n, classes := len(lines), s.countClasses(sig)
	if key == "charset" {
		n++ // the blank
		if s.Flag("space") {
			n++
		}
	}
	if classes >= 0 && classes != n {
		return fmt.Errorf("stands for %d classes, the model has %d", n, classes)
	}
	return nil
}

// countClasses is how many classes the output of the stage has; -1: free.
func (s Stage) countClasses(sig Signature) int {
	name := ""
	if stageSpecs[s.Name].has("output") {
		name = s.Text("output")
	} else {
		name = s.Texts("scores")[0]
	}
	if name == "" && len(sig.Outputs) == 1 {
		name = sig.Outputs[0].Name
	}
	t, ok := find(sig.Outputs, name)
	if !ok || len(t.Shape) < 2 {
		return -1
	}
	axis, less := len(t.Shape)-1, int64(0)
	switch s.Name {
	case "argmax":
		axis = 1
	case "yolo_boxes":
		less = 5
		if s.Text("form") == "v8" {
			axis, less = 1, 4
		}
	case "ssd_boxes":
		if s.Flag("background") {
			less = 1
		}
	}
	if t.Shape[axis] < 0 {
		return -1
	}
	return int(t.Shape[axis] - less)
}
