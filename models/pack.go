package models

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// DescriptionFile is the file of a model's directory that a person writes.
const DescriptionFile = "model.yaml"

const maxDescriptionBytes = 64 << 10

// description is the content of DescriptionFile. Unknown keys are errors.
type description struct {
	Name        string   `yaml:"name"`
	Version     string   `yaml:"version"`
	Description string   `yaml:"description"`
	Licence     string   `yaml:"licence"`
	Upstream    string   `yaml:"upstream"`
	Files       []string `yaml:"files"`
	// Pipelines are described in docs/pipelines.md.
	Pipelines []Pipeline `yaml:"pipelines"`
	// Variants are described at Variant.
	Variants []Variant `yaml:"variants"`
	// Backend, LeavesSite: docs/backends.md. Signature is for a model of a
	// backend, which has no file to read it from.
	Backend    *Backend  `yaml:"backend"`
	LeavesSite string    `yaml:"leaves_site"`
	Signature  Signature `yaml:"signature"`
	// Shadow is described there.
	Shadow *Shadow `yaml:"shadow"`
}

// Pack reads the model in dir: model.yaml says what it is, model.onnx gives the
// signature, golden.json is added when it is there, whether listed or not. The
// map names, for each file of the manifest, where its bytes lie. Nothing is
// written.
func Pack(dir string) (Manifest, map[blob.Digest]string, error) {
	m, paths, err := pack(dir)
	if err != nil {
		return Manifest{}, nil, fmt.Errorf("pack model: %w", err)
	}
	return m, paths, nil
}

func pack(dir string) (Manifest, map[blob.Digest]string, error) {
	desc, err := readDescription(filepath.Join(dir, DescriptionFile))
	if err != nil {
		return Manifest{}, nil, err
	}
	m := Manifest{
		V: ManifestVersion, Name: desc.Name, Version: desc.Version,
		Description: desc.Description, Licence: desc.Licence, Upstream: desc.Upstream,
		Pipelines: desc.Pipelines, Variants: desc.Variants, Backend: desc.Backend, LeavesSite: desc.LeavesSite, Shadow: desc.Shadow,
	}
	names, err := desc.names(dir)
	if err != nil {
		return Manifest{}, nil, err
	}
	paths := map[blob.Digest]string{}
	for _, name := range names {
		f, err := hashFile(dir, name)
		if err != nil {
			return Manifest{}, nil, err
		}
		m.Files = append(m.Files, f)
		paths[f.Digest] = filepath.Join(dir, filepath.FromSlash(name))
	}
	if m.Signature, err = desc.signature(dir, m); err != nil {
		return Manifest{}, nil, err
	}
	if slices.Contains(names, GoldenFile) {
		golden, err := ReadGolden(filepath.Join(dir, GoldenFile))
		if err != nil {
			return Manifest{}, nil, err
		}
		if err := golden.Fits(m.Signature); err != nil {
			return Manifest{}, nil, err
		}
	}
	if err := m.Validate(); err != nil {
		return Manifest{}, nil, fmt.Errorf("%s: %w", filepath.Join(dir, DescriptionFile), err)
	}
	open := func(f File) (io.ReadCloser, error) { return os.Open(paths[f.Digest]) }
	if err := errors.Join(m.CheckVariants(open), m.CheckProof(open)); err != nil {
		return Manifest{}, nil, err
	}
	for _, p := range m.Pipelines {
		if err := p.CheckFiles(m, func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, filepath.FromSlash(name))) }); err != nil {
			return Manifest{}, nil, fmt.Errorf("%s: %w", filepath.Join(dir, DescriptionFile), err)
		}
	}
	return m, paths, nil
}

// signature is what callers depend on: that of the file, or, where another
// program reads the file, what the description promises.
func (d description) signature(dir string, m Manifest) (Signature, error) {
	declared := len(d.Signature.Inputs)+len(d.Signature.Outputs) > 0
	if d.Backend != nil {
		return d.Signature, nil
	}
	if declared {
		return Signature{}, fmt.Errorf("%s: a signature is for models with a backend: this one has that of %s", filepath.Join(dir, DescriptionFile), ModelFile)
	}
	info, err := ReadONNXFile(filepath.Join(dir, ModelFile))
	if err == nil {
		err = m.CheckExternal(ModelFile, info.External)
	}
	return info.Signature, err
}

// names lists the files to pack: those of the description, and those without
// which what it describes could not be served.
func (d description) names(dir string) ([]string, error) {
	names := slices.Clone(d.Files)
	if len(names) == 0 && d.Backend == nil {
		names = []string{ModelFile}
	}
	more := []string{}
	for _, name := range []string{GoldenFile, PromptsFile} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil && (name == GoldenFile || d.Backend != nil) {
			more = append(more, name)
		}
	}
	for _, v := range d.Variants {
		more = append(more, v.Path, v.Golden)
	}
	for _, name := range more {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if d.Backend != nil {
		return names, nil // it knows what it reads
	}
	for _, v := range (Manifest{Variants: d.Variants}).Ladder() {
		if err := addExternal(dir, v.Path, &names); err != nil {
			return nil, err
		}
	}
	return names, nil
}

// addExternal adds the files that a graph keeps weights in.
func addExternal(dir, graph string, names *[]string) error {
	if !filepath.IsLocal(graph) {
		return nil // hashFile says so
	}
	info, err := ReadONNXFile(filepath.Join(dir, filepath.FromSlash(graph)))
	if err != nil {
		return nil // the checks of the graph, which come next, say so
	}
	for _, e := range info.External {
		name := e.Beside(graph)
		if slices.Contains(*names, name) {
			continue
		}
		if _, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name))); errors.Is(err, fs.ErrNotExist) {
			return e.missing(graph)
		}
		*names = append(*names, name)
	}
	return nil
}

func readDescription(path string) (description, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return description{}, fmt.Errorf("%w: write it with at least name and version, for example\n  name: silero-vad\n  version: 6.0.0\n  files: [%s]", err, ModelFile)
	}
	if err != nil {
		return description{}, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxDescriptionBytes+1))
	if err != nil {
		return description{}, fmt.Errorf("read model description: %w", err)
	}
	if len(data) > maxDescriptionBytes {
		return description{}, fmt.Errorf("%s is longer than %d bytes", path, maxDescriptionBytes)
	}
	desc, err := decodeDescription(data)
	if err != nil {
		return description{}, fmt.Errorf("%s: %w", path, err)
	}
	return desc, nil
}

func decodeDescription(data []byte) (description, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	var desc description
	if err := dec.Decode(&desc); err != nil {
		return description{}, err
	}
	if err := dec.Decode(new(yaml.Node)); err != io.EOF {
		return description{}, errors.New("more than one YAML document")
	}
	return desc, nil
}

// hashFile hashes one file. Only regular files inside dir are packed: a link
// could name something that its owner never meant to publish.
func hashFile(dir, name string) (File, error) {
	if !filepath.IsLocal(name) {
		return File{}, fmt.Errorf("file %q of %s lies outside of the model's directory", name, DescriptionFile)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return File{}, err
	}
	defer root.Close()
	f, err := root.Open(filepath.FromSlash(name))
	if err != nil {
		return File{}, fmt.Errorf("file %q of %s: %w", name, DescriptionFile, err)
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || !fi.Mode().IsRegular() {
		return File{}, errors.Join(fmt.Errorf("file %q of %s is not a regular file", name, DescriptionFile), err)
	}
	return FileOf(name, f)
}

// FileOf is the entry of a manifest for what r gives.
func FileOf(name string, r io.Reader) (File, error) {
	frames, digest, err := blob.FramesOf(r)
	if err != nil {
		return File{}, fmt.Errorf("hash file %q: %w", name, err)
	}
	file := File{Path: name, Digest: digest, SizeBytes: frames.Size}
	if len(frames.Sums) > 1 {
		file.Frames = blob.Sum(frames.Encode())
	}
	return file, nil
}
