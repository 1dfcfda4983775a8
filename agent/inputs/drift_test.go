package inputs

import (
	"image"
	"image/color"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/agent/inputs/pipeline"
	"github.com/edgeherd/edgeherd/internal/drift"
	"github.com/edgeherd/edgeherd/models"
)

// TestWhatModelsSawLeavesTheBoxByTheHour: over many parts of hours, all items
// are counted once, in the hour they were seen.
func TestWhatModelsSawLeavesTheBoxByTheHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &voice{}
		in, stop := listenEvery(t, v, 20*time.Second)
		time.Sleep(100*time.Minute + time.Second)
		stop()
		again, err := openOutbox(in.outbox.path, 16<<20, time.Now, testLog())
		if err != nil {
			t.Fatal(err)
		}
		defer again.close()
		r, err := again.results(0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		hours := map[string]*drift.Sketch{}
		parts, items := 0, 0
		for _, rec := range r.Records {
			if rec.Pipeline != drift.Pipeline {
				items++
				continue
			}
			parts++
			sk, err := drift.Parse(rec.Text)
			if err != nil || rec.Input != "mic" || len(rec.Models) != 1 || rec.Models[0] != "silero-vad:5" {
				t.Errorf("sketch %+v: %v", rec, err)
			}
			if hours[rec.Item] == nil {
				hours[rec.Item] = &drift.Sketch{}
			}
			hours[rec.Item].Merge(sk)
		}
		// A bubble starts at midnight.
		first, second := hours["2000-01-01T00"], hours["2000-01-01T01"]
		if len(hours) != 2 || first == nil || second == nil {
			t.Fatalf("hours %v", hours)
		}
		if first.Items != 180 || int(first.Items+second.Items) != items || parts < 7 || parts > 9 {
			t.Errorf("%d and %d items in %d parts, want 180 and what is left of %d in 7 to 9", first.Items, second.Items, parts, items)
		}
		if first.Score[5] != 180 || first.Class[0] != 180 || first.Found[0] != 180 || first.Brightness != (drift.Sketch{}).Brightness {
			t.Errorf("the hour looked like %+v, want silence with 0.25", first)
		}
	})
}

// TestEachModelOfAPipelineHasItsOwnSketch.
func TestEachModelOfAPipelineHasItsOwnSketch(t *testing.T) {
	var s sketches
	a, b := models.Ref{Name: "a", Version: "1"}, models.Ref{Name: "b", Version: "1"}
	frame := pipeline.FrameOf(image.NewGray(image.Rect(0, 0, 4, 4)))
	s.look(time.Unix(0, 0), "cam", &frame, pipeline.Reading{Models: []string{"a:1", "b:1"}, Findings: make([]pipeline.Finding, 2),
		Seen: []pipeline.Observation{{By: a, Score: 0.9, Class: 1}, {By: b, Score: 0.1, Class: -1}, {By: b, Score: 0.1, Class: -1}}})
	got := s.take(time.Unix(0, 0))
	if len(got) != 2 || got[0].Models[0] != "a:1" || got[1].Models[0] != "b:1" || got[0].Item != "1970-01-01T00" {
		t.Fatalf("results %+v", got)
	}
	for i, want := range []struct{ high, low, class uint64 }{{1, 0, 1}, {0, 2, 0}} {
		sk, err := drift.Parse(got[i].Text)
		if err != nil || sk.Score[18] != want.high || sk.Score[2] != want.low || sk.Class[1] != want.class || sk.Found[2] != 1 || sk.Brightness[0] != 1 {
			t.Errorf("%s: %+v, %v", got[i].Models[0], sk, err)
		}
	}
	if again := s.take(time.Unix(0, 0)); len(again) != 0 {
		t.Errorf("sent twice: %+v", again)
	}
}

func TestSoiledLensShowsInTheFrame(t *testing.T) {
	img := func(step int) *pipeline.Frame {
		m := image.NewGray(image.Rect(0, 0, 64, 64))
		for i := range 64 * 64 {
			x := i % 64
			v := 60
			if x/8%2 == 1 {
				v = 200
			}
			if edge := x % 8; step > 0 && edge < step { // a soft edge of step pixels
				was := 260 - v
				v = was + (v-was)*edge/step
			}
			m.SetGray(x, i/64, color.Gray{Y: uint8(v)})
		}
		f := pipeline.FrameOf(m)
		return &f
	}
	lightA, sharp := img(0).Look()
	_, soft := img(6).Look()
	if sharp < 10*soft || soft <= 0 {
		t.Errorf("sharp %v, soft %v; want ten times", sharp, soft)
	}
	if lightA < 125 || lightA > 135 {
		t.Errorf("brightness %v, want about 130", lightA)
	}
	flat := pipeline.FrameOf(image.NewGray(image.Rect(0, 0, 1, 1)))
	if b, s := flat.Look(); b != 0 || s != 0 {
		t.Errorf("one black pixel: %v, %v", b, s)
	}
}
