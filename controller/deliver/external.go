package deliver

import (
	"context"
	"path"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
	"github.com/edgeherd/edgeherd/models/container"
)

// tensors are those that a graph of some version keeps in the file d (ONNX
// external data), which names none itself; nil: no graph does.
func (p *Packer) tensors(ctx context.Context, d blob.Digest) ([]container.Tensor, error) {
	versions, err := p.opts.Store.Models(ctx)
	if err != nil {
		return nil, err
	}
	for _, v := range versions {
		if v.Manifest.Backend != nil {
			continue
		}
		for _, f := range v.Manifest.Files {
			if f.Digest != d {
				continue
			}
			if found := p.within(v.Manifest, f.Path); len(found) > 0 {
				return found, nil
			}
		}
	}
	return nil, nil
}

// within are the tensors that the graphs of m keep in the file of that path. A
// graph that cannot be read has none: a pack without them is larger, no worse.
func (p *Packer) within(m models.Manifest, name string) []container.Tensor {
	for _, variant := range m.Ladder() {
		graph, ok := m.File(variant.Path)
		if !ok || variant.Path == name {
			continue
		}
		r, err := p.source(graph.Digest)
		if err != nil {
			continue
		}
		l, err := container.Read(r, r.Size())
		_ = r.Close() // it was only read
		if err != nil {
			continue
		}
		for _, t := range l.Tensors {
			if t.File != "" && path.Join(path.Dir(variant.Path), t.File) == name {
				return l.Spans(t.File)
			}
		}
	}
	return nil
}
