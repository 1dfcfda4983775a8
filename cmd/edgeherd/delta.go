package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/models/container"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// deltaReport is what `model delta` found out.
type deltaReport struct {
	File string `json:"file"`
	wdelta.Stats
	Ratio float64 `json:"ratio"` // on the wire to whole
	// With --compare.
	ColdBytes int64 `json:"cold_bytes,omitempty"`
	Worth     *bool `json:"worthwhile,omitempty"`
}

func modelDeltaCommand(c *cli) *cobra.Command {
	var baseModel, newModel string
	var fast, compare bool
	var workers int
	cmd := c.verb("delta BASE NEW FILE", "Write to FILE what makes the weights NEW from BASE (- for BASE: the cold pack of NEW)", func(ctx context.Context, args []string) error {
		// Most of what lives is room that every frame uses again, so collecting more
		// often costs little (5 % of the time) and keeps two workers below 64 MiB, of
		// which the program itself is 20.
		debug.SetGCPercent(50)
		debug.SetMemoryLimit(36 << 20)
		base, err := openSource(args[0])
		if err != nil {
			return err
		}
		defer base.close()
		target, err := openSource(args[1])
		if err != nil {
			return err
		}
		defer target.close()
		o := wdelta.Options{Workers: workers, Progress: c.meter("encoding " + filepath.Base(args[1]))}
		if fast {
			o.Coder = wdelta.Fast
		}
		if o.BaseTensors, err = externalTensors(baseModel, args[0]); err != nil {
			return err
		}
		if o.TargetTensors, err = externalTensors(newModel, args[1]); err != nil {
			return err
		}
		r := deltaReport{File: args[2]}
		if r.Stats, err = writeDelta(ctx, base.source(), target, args[2], o); err != nil {
			return err
		}
		r.Ratio = r.Stats.Ratio()
		if r.Unread != "" {
			c.say("The tensors of %s were not found (%s): it was taken as plain bytes.", args[1], r.Unread)
		}
		if compare && base.file != nil {
			o.Progress = c.meter("encoding the cold pack")
			cold, err := wdelta.Encode(ctx, nil, target, io.Discard, o)
			if err != nil {
				return err
			}
			worth := wdelta.Worth(r.WireBytes, cold.WireBytes)
			r.ColdBytes, r.Worth = cold.WireBytes, &worth
		}
		return c.print(deltaSheet(r))
	})
	f := cmd.Flags()
	f.StringVar(&baseModel, "base-model", "", "ONNX file that BASE holds the external data of")
	f.StringVar(&newModel, "new-model", "", "ONNX file that NEW holds the external data of")
	f.IntVar(&workers, "workers", 2, "frames encoded at once, each with about 16 MiB of memory")
	f.BoolVar(&fast, "fast", false, "without the context coder: larger, for boxes on a fast line")
	f.BoolVar(&compare, "compare", false, "also size the cold pack and say whether the delta is worth having")
	return cmd
}

func deltaSheet(r deltaReport) sheet {
	row := []string{r.File, bytesText(r.TargetBytes), bytesText(r.WireBytes), fmt.Sprintf("%.4f", r.Ratio), orDash(r.Format),
		fmt.Sprint(r.Same), fmt.Sprint(r.Named + r.Similar), fmt.Sprint(r.New), fmt.Sprint(r.Frames)}
	s := sheet{kind: "model-delta", value: r, names: []string{r.File}, narrow: 5,
		head: []string{"FILE", "WHOLE", "SENT", "RATIO", "FORMAT", "SAME", "MOVED", "NEW", "FRAMES"}}
	if r.Worth != nil {
		s.head, s.narrow = append([]string{"FILE", "COLD", "WORTHWHILE"}, s.head[1:]...), 7
		row = append([]string{r.File, bytesText(r.ColdBytes), map[bool]string{true: "yes", false: "no"}[*r.Worth]}, row[1:]...)
	}
	s.rows = [][]string{row}
	return s
}

// sourceFile is a file to read; file is nil for "-", which is no file.
type sourceFile struct {
	*io.SectionReader
	file *os.File
}

func openSource(path string) (sourceFile, error) {
	if path == "-" {
		return sourceFile{}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return sourceFile{}, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a file", path)
	}
	if err != nil {
		_ = f.Close() // the error before counts
		return sourceFile{}, err
	}
	return sourceFile{io.NewSectionReader(f, 0, info.Size()), f}, nil
}

func (s sourceFile) close() {
	if s.file != nil {
		_ = s.file.Close() // it was only read
	}
}

// source is nil when there is no file.
func (s sourceFile) source() wdelta.Source {
	if s.file == nil {
		return nil
	}
	return s.SectionReader
}

// externalTensors are the tensors that the ONNX file model keeps in data.
func externalTensors(model, data string) ([]container.Tensor, error) {
	if model == "" {
		return nil, nil
	}
	m, err := openSource(model)
	if err != nil {
		return nil, err
	}
	defer m.close()
	l, err := container.Read(m, m.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", model, err)
	}
	spans := l.Spans(filepath.Base(data))
	if len(spans) == 0 {
		return nil, fmt.Errorf("%s keeps no tensors in a file called %s", model, filepath.Base(data))
	}
	return spans, nil
}

// writeDelta gives the file its name when it is whole and on disk.
func writeDelta(ctx context.Context, base, target wdelta.Source, path string, o wdelta.Options) (stats wdelta.Stats, err error) {
	if err := absent(path); err != nil {
		return stats, err
	}
	part, err := os.OpenFile(path+".part", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return stats, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, part.Close(), os.Remove(part.Name()))
		}
	}()
	if stats, err = wdelta.Encode(ctx, base, target, part, o); err != nil {
		return stats, err
	}
	return stats, finish(part, path)
}

func absent(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists; name another file or remove it", path)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func finish(part *os.File, path string) error {
	if err := part.Sync(); err != nil {
		return err
	}
	if err := durable.Rename(part.Name(), path); err != nil {
		return err
	}
	return part.Close()
}

// patchReport is what `model patch` did.
type patchReport struct {
	File   string `json:"file"`
	Digest string `json:"digest"`
	Size   int64  `json:"size_bytes"`
	wdelta.Applied
}

func modelPatchCommand(c *cli) *cobra.Command {
	return c.verb("patch BASE DELTA FILE", "Make FILE from BASE and a delta (- for BASE: from a cold pack); goes on where it was stopped", func(ctx context.Context, args []string) error {
		if err := absent(args[2]); err != nil {
			return err
		}
		base, err := openSource(args[0])
		if err != nil {
			return err
		}
		defer base.close()
		delta, err := openSource(args[1])
		if err != nil {
			return err
		}
		defer delta.close()
		part, err := os.OpenFile(args[2]+".part", os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return err
		}
		defer func() { _ = part.Close() }() // finish closes it when it matters
		read := &meteredReader{r: delta, total: delta.Size(), show: c.meter("making " + filepath.Base(args[2]))}
		a, err := wdelta.Apply(ctx, base.source(), read, part)
		if errors.Is(err, wdelta.ErrBase) {
			return fmt.Errorf("%w; `edgeherd model patch` needs the very file that the delta was made from", err)
		}
		if err != nil {
			return fmt.Errorf("%w; what is done stays in %s for the next try", err, part.Name())
		}
		if err := part.Truncate(a.Header.TargetSize); err != nil {
			return err
		}
		if err := finish(part, args[2]); err != nil {
			return err
		}
		r := patchReport{args[2], a.Header.Target.String(), a.Header.TargetSize, a}
		return c.print(sheet{kind: "model-patch", value: r, names: []string{r.File}, head: []string{"FILE", "SIZE", "KEPT", "DIGEST"},
			rows: [][]string{{r.File, bytesText(r.Size), bytesText(r.KeptBytes), r.Digest}}})
	})
}

// meteredReader shows how far a file is read.
type meteredReader struct {
	r           io.Reader
	done, total int64
	show        func(done, total int64)
}

func (m *meteredReader) Read(b []byte) (int, error) {
	n, err := m.r.Read(b)
	m.done += int64(n)
	m.show(m.done, m.total)
	return n, err
}

// meter shows progress to a person: a line that changes. A log gets none.
func (c *cli) meter(what string) func(done, total int64) {
	var shown time.Time
	ended := false
	return func(done, total int64) {
		if !c.wordsTTY || ended || done < total && time.Since(shown) < 100*time.Millisecond {
			return
		}
		shown = time.Now()
		fmt.Fprintf(c.words, "\r\x1b[K%s: %s of %s", what, bytesText(done), bytesText(total))
		if done >= total {
			ended = true
			fmt.Fprintln(c.words)
		}
	}
}
