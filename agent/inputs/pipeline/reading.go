package pipeline

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/models"
)

// Reading is what a pipeline made of one item.
type Reading struct {
	// Text tells people; Score is the mean of what it rests on, 0 for none.
	Text  string
	Score float64
	// Models are the versions that took part, as name:version.
	Models []string
	// Elsewhere are the other servers that ran some of them, see By.
	Elsewhere []string
	// Findings are the same for programs.
	Findings []Finding
	// Seen is what each model answered, for drift.
	Seen []Observation
}

// Finding is one box, class, text or stretch of sound.
type Finding struct {
	Label string  `json:"label,omitempty"`
	Text  string  `json:"text,omitempty"`
	Score float64 `json:"score"`
	// Corners of a box in pixels of the frame, from the top left clockwise as
	// the box is read.
	Corners [][2]float64 `json:"corners,omitempty"`
	// FromSeconds and ToSeconds are of a stretch of sound.
	FromSeconds float64 `json:"from_seconds,omitempty"`
	ToSeconds   float64 `json:"to_seconds,omitempty"`
}

// Observation is what one answer of a model looked like.
type Observation struct {
	By models.Ref
	// Score of the answer, 0 to 1.
	Score float64
	// Entropy of the classes in bits over log2 of their number, 0 to 1; NaN
	// where the answer has no shares.
	Entropy float64
	// Class is the best class, -1 for none.
	Class int
}

func (r *Reading) used(by By) {
	if name := by.String(); !slices.Contains(r.Models, name) {
		r.Models = append(r.Models, name)
	}
	if by.Elsewhere != "" && !slices.Contains(r.Elsewhere, by.Elsewhere) {
		r.Elsewhere = append(r.Elsewhere, by.Elsewhere)
	}
}

// value is what flows from stage to stage; kind tells which fields hold.
type value struct {
	kind    models.Kind
	pic     picture // image; kept for boxes, which lie on its frame
	clip    []float32
	inputs  []worker.Tensor
	cut     windowing
	raw     []worker.Tensor // outputs
	outputs map[string]answer
	series  [][]worker.Tensor // of every window
	boxes   []found
	classes []class
	text    string
	score   float64
	spans   []segment
}

// answer is an output of a model as numbers.
type answer struct {
	shape []int64
	v     []float32
}

// class is one class with its score.
type class struct {
	index int
	label string
	score float64
}

// found is one box.
type found struct {
	box
	class
	text      string
	textScore float64
}

// maxTold bounds the boxes in a text: people read no more.
const maxTold = 20

// Bounds of what one item tells, whatever the model answers: it waits in memory
// and in queues many times over.
const (
	maxFindings = 1000
	maxText     = 16 << 10 // bytes
)

// cut keeps the beginning of a long text.
func cut(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "") + "…"
}

// ratio brings what a model calls a score between 0 and 1: logits without a
// softmax are none, and JSON has no infinity.
func ratio(x float64) float64 {
	if x != x {
		return 0
	}
	return min(max(x, 0), 1)
}

// tell writes a pipeline's last value into the reading.
func (v *value) tell(out *Reading) {
	v.collect(out)
	out.Score, out.Text = ratio(out.Score), cut(out.Text)
	out.Findings = out.Findings[:min(len(out.Findings), maxFindings)]
	for i := range out.Findings {
		f := &out.Findings[i]
		f.Score, f.Text = ratio(f.Score), cut(f.Text)
	}
}

func (v *value) collect(out *Reading) {
	switch v.kind {
	case models.KindBoxes:
		v.tellBoxes(out)
	case models.KindClasses:
		var parts []string
		for _, c := range v.classes[:min(len(v.classes), maxFindings)] {
			parts = append(parts, fmt.Sprintf("%s %.2f", c.label, c.score))
			out.Findings = append(out.Findings, Finding{Label: c.label, Score: c.score})
		}
		out.Text = "nothing found"
		if len(parts) > 0 {
			out.Text, out.Score = strings.Join(parts, ", "), v.classes[0].score
		}
	case models.KindText:
		out.Text, out.Score = v.text, v.score
		for _, b := range v.boxes {
			out.Findings = append(out.Findings, b.finding())
		}
		if v.boxes == nil && v.text != "" {
			out.Findings = []Finding{{Text: v.text, Score: v.score}}
		}
	case models.KindSegments:
		out.Text, out.Score = v.text, v.score
		for _, s := range v.spans {
			out.Findings = append(out.Findings, Finding{
				Label: s.label, Score: s.score, FromSeconds: float64(s.from) / sampleRate, ToSeconds: float64(s.to) / sampleRate,
			})
		}
	}
}

func (v *value) tellBoxes(out *Reading) {
	var parts []string
	var sum float64
	for i, b := range v.boxes {
		sum += b.class.score
		out.Findings = append(out.Findings, b.finding())
		if i == maxTold {
			parts = append(parts, fmt.Sprintf("and %d more", len(v.boxes)-maxTold))
		}
		if i >= maxTold {
			continue
		}
		lo, hi := b.bounds()
		part := fmt.Sprintf("%s %.2f at %.0f,%.0f %.0f×%.0f", b.label, b.class.score, lo.x+0.5, lo.y+0.5, hi.x-lo.x, hi.y-lo.y)
		if b.text != "" {
			part += fmt.Sprintf(" %q %.2f", b.text, b.textScore)
		}
		parts = append(parts, part)
	}
	out.Text = "nothing found"
	if len(v.boxes) > 0 {
		out.Text, out.Score = strings.Join(parts, "; "), sum/float64(len(v.boxes))
	}
}

func (b found) finding() Finding {
	f := Finding{Label: b.label, Text: b.text, Score: b.class.score}
	if b.text != "" && b.label == "" {
		f.Score = b.textScore
	}
	for _, c := range b.corners() {
		// Told from the frame's edge, not from the middle of its first pixel.
		f.Corners = append(f.Corners, [2]float64{math.Round(c.x*10+5) / 10, math.Round(c.y*10+5) / 10})
	}
	return f
}

// bounds are the corners of the upright rectangle around b.
func (b box) bounds() (lo, hi point) {
	c := b.corners()
	lo, hi = c[0], c[0]
	for _, p := range c[1:] {
		lo = point{min(lo.x, p.x), min(lo.y, p.y)}
		hi = point{max(hi.x, p.x), max(hi.y, p.y)}
	}
	return lo, hi
}
