package pipeline

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/jpeg"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// many are n boxes [1 n 5+1] of a YOLO of form v5, each of its own class score.
func many(n int, w, h float32) worker.Tensor {
	var v []float32
	for i := range n {
		v = append(v, float32(i%8), float32(i/8%8), w, h, 1, 0.9)
	}
	return fp32("y", []int64{1, int64(n), 6}, v...)
}

var anyPicture = models.TensorSpec{Name: "x", DType: models.FP32, Shape: []int64{1, 3, -1, -1}}

// TestCallsOfAnItemAreBounded: pipelines that show every box to one that finds
// boxes itself would keep the box busy for hours.
func TestCallsOfAnItemAreBounded(t *testing.T) {
	l := newLab(t)
	const find = `[{resize: {width: 8, height: 8}}, tensor, run, {yolo_boxes: {form: v5}}, {each: {model: %s}}, lines]`
	l.serve("a", anyPicture, fmt.Sprintf(find, "b"), many(100, 8, 8))
	l.serve("b", anyPicture, fmt.Sprintf(find, "c"), many(100, 8, 8))
	l.serve("c", anyPicture, `[{resize: {width: 1, height: 1}}, tensor, run, {top_k: {labels: [k]}}]`, fp32("y", []int64{1, 1}, 1))
	runs := 0
	r := New("a", func(ctx context.Context, model string, in []worker.Tensor) ([]worker.Tensor, By, error) {
		runs++
		return l.infer(ctx, model, in)
	}, l)
	frame := newFrame(8, 8)
	if _, err := r.Image(t.Context(), frame); err == nil || !strings.Contains(err.Error(), "more than 4000 calls") || runs > maxCalls+1 {
		t.Errorf("%d runs, %v", runs, err)
	}
	// The next item begins anew, and an end is heard amid an item.
	l.answers["a"] = []worker.Tensor{many(3, 8, 8)}
	if _, err := r.Image(t.Context(), frame); err != nil {
		t.Errorf("the next item: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Image(ctx, frame); err == nil {
		t.Error("went on after the end")
	}
}

// TestViewsBeyondTheBoundAreNotDrawn: a model says how large a box is, ten times
// the frame each way at most.
func TestViewsBeyondTheBoundAreNotDrawn(t *testing.T) {
	l := newLab(t)
	l.serve("a", anyPicture, `[{resize: {width: 8, height: 8}}, tensor, run, {yolo_boxes: {form: v5}}, {each: {model: c, grow: 4}}]`, many(1, 80, 80))
	for name, first := range map[string]string{"tensor alone": "", "a pad": "{pad: {width: 4}}, "} {
		l.serve("c", anyPicture, `[`+first+`tensor, run, {top_k: {labels: [k]}}]`, fp32("y", []int64{1, 1}, 1))
		if _, err := New("a", l.infer, l).Image(t.Context(), newFrame(1000, 1000)); err == nil || !strings.Contains(err.Error(), "at most") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestWhatAnItemTellsIsBounded, whatever the model answers.
func TestWhatAnItemTellsIsBounded(t *testing.T) {
	l := newLab(t)
	v := slices.Repeat([]float32{0.5}, 50_000)
	l.serve("a", anyPicture, `[{resize: {width: 2, height: 2}}, tensor, run, {threshold: {above: 0.1}}]`, fp32("y", []int64{1, int64(len(v))}, v...))
	got, err := New("a", l.infer, l).Image(t.Context(), newFrame(2, 2))
	if err != nil || len(got.Findings) != maxFindings || len(got.Text) > maxText+len("…") {
		t.Errorf("%d findings, a text of %d bytes, %v", len(got.Findings), len(got.Text), err)
	}
	if long := strings.Repeat("é", maxText); cut(long) != long[:maxText]+"…" || cut("é") != "é" || cut("x"+long) != ("x" + long)[:maxText-1]+"…" {
		t.Error("texts are cut amid a character")
	}
	out := Reading{}
	(&value{kind: models.KindText, text: strings.Repeat("x", 1<<20)}).tell(&out)
	if len(out.Text) > maxText+3 || len(out.Findings[0].Text) > maxText+3 {
		t.Errorf("a text of %d bytes, told with %d", len(out.Text), len(out.Findings[0].Text))
	}
}

// TestMapOfNoNumbersIsNoText.
func TestMapOfNoNumbersIsNoText(t *testing.T) {
	m := probMap{w: 16, h: 16, p: slices.Repeat([]float32{1}, 256), threshold: 0.3, boxScore: 0.6, minSide: 3, unclip: 1.5, max: 9}
	if len(m.boxes()) != 1 {
		t.Error("no box where all is text")
	}
	m.p[100] = float32(math.NaN())
	if got := m.boxes(); len(got) != 0 {
		t.Errorf("boxes %v", got)
	}
}

// TestJPEGOfThousandScansIsRefused before it is decoded: each goes over the
// whole picture.
func TestJPEGOfThousandScansIsRefused(t *testing.T) {
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewGray(image.Rect(0, 0, 8, 8)), nil); err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(buf.Bytes(), startOfScan)
	scan := buf.Bytes()[at : buf.Len()-2]
	data := slices.Concat(buf.Bytes()[:at], bytes.Repeat(scan, 1000), []byte{0xff, 0xd9})
	if _, err := DecodeFrame(data); err == nil || !strings.Contains(err.Error(), "1000 scans") {
		t.Errorf("accepted: %v", err)
	}
}
