package worker

import (
	"fmt"
	"os"
	"path/filepath"
)

// lay gives a model whose weights are in other files the names that its graph
// knows: links in a folder of their own, which is needed until the model is
// loaded. ONNX Runtime reads such files beside the graph only, and takes links
// if what they lead to lies in the folder of the graph's own, as blobs do. The
// weights are mapped from there, not copied.
func (o Options) lay() (model string, remove func(), err error) {
	if len(o.Files) == 0 {
		return o.Model, func() {}, nil
	}
	dir, err := os.MkdirTemp("", "edgeherd-model-")
	if err != nil {
		return "", nil, fmt.Errorf("lay out the files of the model: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) } // links only; the system clears the folder too
	model = filepath.Join(dir, "model.onnx")
	if err = link(o.Model, model); err == nil {
		for name, path := range o.Files {
			if err = link(path, filepath.Join(dir, filepath.FromSlash(name))); err != nil {
				break
			}
		}
	}
	if err != nil {
		remove()
		return "", nil, fmt.Errorf("lay out the files of the model: %w", err)
	}
	return model, remove, nil
}

func link(target, name string) error {
	target, err := filepath.Abs(target)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(name), 0o700)
	}
	if err == nil {
		err = os.Symlink(target, name)
	}
	return err
}
