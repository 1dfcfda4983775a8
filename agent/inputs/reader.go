package inputs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// Names of the models that the pipelines call.
const (
	detModel = "ocr-det"
	clsModel = "ocr-cls"
	recModel = "ocr-rec"
	vadModel = "silero-vad"
	keysFile = "ppocr_keys_v1.txt"
)

// reading is what a pipeline made of one item.
type reading struct {
	text   string
	score  float64
	models []string // name:version of the versions that took part
}

func (r *reading) used(by models.Ref) {
	if name := by.String(); !slices.Contains(r.models, name) {
		r.models = append(r.models, name)
	}
}

// labelReader reads all text of a picture: find the lines, turn each upright,
// read it.
type labelReader struct {
	infer     Infer
	modelFile func(model, path string) (string, error)

	// The alphabet that was read last and the version it came with.
	letters   alphabet
	lettersOf models.Ref
}

func (l *labelReader) read(ctx context.Context, p planes) (reading, error) {
	var out reading
	boxes, err := l.detect(ctx, p, &out)
	if err != nil {
		return reading{}, err
	}
	if err := l.uprights(ctx, p, boxes, &out); err != nil {
		return reading{}, err
	}
	var lines []string
	var sum float64
	var n int
	for _, row := range rows(boxes) {
		var words []string
		for _, i := range row {
			text, score, err := l.recognise(ctx, p, boxes[i], &out)
			if err != nil {
				return reading{}, err
			}
			if text == "" || !(score >= minLineScore) {
				continue
			}
			words = append(words, text)
			sum += score
			n++
		}
		if len(words) > 0 {
			lines = append(lines, strings.Join(words, " "))
		}
	}
	out.text = strings.Join(lines, "\n")
	if n > 0 {
		out.score = sum / float64(n)
	}
	return out, nil
}

func (l *labelReader) detect(ctx context.Context, p planes, out *reading) ([]box, error) {
	w, h := detSize(p.w, p.h)
	t, by, err := inferOne(ctx, l.infer, detModel, detInput(p, w, h))
	if err != nil {
		return nil, err
	}
	out.used(by)
	m, err := newProbMap(t)
	if err != nil {
		return nil, fmt.Errorf("use answer of %s: %w", by, err)
	}
	boxes := m.boxes()
	for i := range boxes {
		boxes[i] = boxes[i].rescaled(m.w, m.h, p.w, p.h)
	}
	return boxes, nil
}

// uprights turns the boxes of upside-down lines. Short lines look alike both
// ways up; where the classifier is not sure, the majority of the sure lines
// decides, since a label has one right way up.
func (l *labelReader) uprights(ctx context.Context, p planes, boxes []box, out *reading) error {
	turns := make([]turn, len(boxes))
	var vote turn
	for i, b := range boxes {
		t, by, err := inferOne(ctx, l.infer, clsModel, lineTensor(p, b, clsWidth, clsWidth))
		if err != nil {
			return err
		}
		out.used(by)
		if turns[i], err = lineTurn(t); err != nil {
			return fmt.Errorf("use answer of %s: %w", by, err)
		}
		vote += turns[i]
	}
	for i := range boxes {
		if turns[i] == upsideDown || turns[i] == unsure && vote < 0 {
			boxes[i] = boxes[i].flipped()
		}
	}
	return nil
}

func (l *labelReader) recognise(ctx context.Context, p planes, b box, out *reading) (string, float64, error) {
	t, by, err := inferOne(ctx, l.infer, recModel, lineTensor(p, b, recMinWidth, recMaxWidth))
	if err != nil {
		return "", 0, err
	}
	out.used(by)
	if l.letters == nil || l.lettersOf != by {
		path, err := l.modelFile(recModel, keysFile)
		if err != nil {
			return "", 0, fmt.Errorf("find characters of %s: %w", by, err)
		}
		if l.letters, err = readAlphabet(path); err != nil {
			return "", 0, err
		}
		l.lettersOf = by
	}
	text, score, err := l.letters.decode(t)
	if err != nil {
		// A switch of versions between the answer and the file: read it again
		// with the next line.
		if errors.Is(err, errAlphabet) {
			l.letters = nil
		}
		return "", 0, fmt.Errorf("use answer of %s: %w", by, err)
	}
	return text, score, nil
}

// inferOne calls a model that has one input and one output.
func inferOne(ctx context.Context, infer Infer, model string, in worker.Tensor) (worker.Tensor, models.Ref, error) {
	outs, by, err := infer(ctx, model, []worker.Tensor{in})
	if err != nil {
		return worker.Tensor{}, by, fmt.Errorf("run %s: %w", model, err)
	}
	if len(outs) != 1 {
		return worker.Tensor{}, by, fmt.Errorf("run %s: %d outputs, want 1", by, len(outs))
	}
	return outs[0], by, nil
}
