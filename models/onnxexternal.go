package models

import (
	"fmt"
	"math"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// ExternalFile is a file beside an ONNX model that holds weights of it
// (external data): the only way for models of more than 2 GB.
type ExternalFile struct {
	Path       string // from the model's folder, as the model says it
	NeedsBytes int64  // where the last of its tensors ends
	Tensor     string // that one
}

// maxONNXExternal is how many files one model may name.
const maxONNXExternal = 100

// onnxPlace is what a TensorProto says about where its data are.
type onnxPlace struct {
	external   bool
	elem       uint64
	bytes      int64 // of a dense tensor of its shape with elements of one byte; math.MaxInt64: no file can have so many
	entries    map[string]string
	dimensions int
}

// dimension counts one size of the shape in.
func (p *onnxPlace) dimension(d uint64) error {
	if p.dimensions++; p.dimensions > maxONNXDims {
		return fmt.Errorf("a tensor has more than %d dimensions", maxONNXDims)
	}
	switch {
	case d > math.MaxInt64 || d > 0 && p.bytes > math.MaxInt64/int64(d):
		p.bytes = math.MaxInt64
	default:
		p.bytes *= int64(d)
	}
	return nil
}

// placed reads a field of a TensorProto that says where its data are.
func (p *onnxParser) placed(f onnxField, at *onnxPlace) error {
	switch {
	case f.num == 1 && !f.text():
		return at.dimension(f.value)
	case f.num == 1:
		for p.off < f.end {
			d, err := p.varint(f.end)
			if err == nil {
				err = at.dimension(d)
			}
			if err != nil {
				return err
			}
		}
		return nil
	case f.num == 2 && !f.text():
		at.elem = f.value
	case f.num == 13 && f.text():
		return p.externalEntry(f.end, at)
	case f.num == 14 && !f.text():
		at.external = at.external || f.value == onnxExternal
	}
	return p.skip(f)
}

// externalEntry reads a StringStringEntryProto of TensorProto.external_data.
func (p *onnxParser) externalEntry(end int64, at *onnxPlace) error {
	var key, value string
	err := p.message(end, func(f onnxField) (err error) {
		switch {
		case f.num == 1 && f.text():
			key, err = p.name(f)
		case f.num == 2 && f.text():
			value, err = p.name(f)
		default:
			return p.skip(f)
		}
		return err
	})
	at.external = true
	if len(at.entries) < 8 { // location, offset, length and checksum are all that exist
		at.entries[key] = value
	}
	return err
}

// external notes which file a tensor needs, and how much of it.
func (p *onnxParser) external(name string, at onnxPlace) error {
	location := at.entries["location"]
	if !filepath.IsLocal(location) || path.Clean(location) != location || strings.ContainsAny(location, `\:`) {
		return fmt.Errorf("tensor %q keeps its data in %q, want the name of a file in the model's folder: export the model again, with a location such as %s.data", name, location, ModelFile)
	}
	shape := at.bytes
	if size := int64(ONNXDType(at.elem).Size()); size == 0 {
		shape = 0 // elements of less than a byte, or of a type this table has not
	} else if shape > math.MaxInt64/size {
		shape = math.MaxInt64
	} else {
		shape *= size
	}
	offset, length := int64(0), shape
	for key, into := range map[string]*int64{"offset": &offset, "length": &length} {
		text, given := at.entries[key]
		if !given {
			continue
		}
		v, err := strconv.ParseInt(text, 10, 64)
		if err != nil || v < 0 {
			return fmt.Errorf("tensor %q has in %s the %s %q, want a number of bytes", name, location, key, text)
		}
		*into = v
	}
	switch {
	case shape > 0 && length != shape:
		return fmt.Errorf("tensor %q has %d bytes in %s, and its shape needs %d: export the model again", name, length, location, shape)
	case length > math.MaxInt64-offset:
		return fmt.Errorf("tensor %q ends in %s beyond what a file can have", name, location)
	}
	i := slices.IndexFunc(p.info.External, func(e ExternalFile) bool { return e.Path == location })
	if i < 0 {
		if i = len(p.info.External); i == maxONNXExternal {
			return fmt.Errorf("its weights are in more than %d files: export them into one (all_tensors_to_one_file)", maxONNXExternal)
		}
		p.info.External = append(p.info.External, ExternalFile{Path: location, Tensor: name})
	}
	if e := &p.info.External[i]; offset+length > e.NeedsBytes {
		e.NeedsBytes, e.Tensor = offset+length, name
	}
	return nil
}

// Beside is the path among the files of a manifest of a file that the graph at
// that path names.
func (e ExternalFile) Beside(graph string) string { return path.Join(path.Dir(graph), e.Path) }

// missing says that the file is not there.
func (e ExternalFile) missing(graph string) error {
	return fmt.Errorf("%s keeps tensor %q in the file %s, which is not there: put it in the model's folder, under this name", graph, e.Tensor, e.Beside(graph))
}

// CheckExternal says which weights that the graph at that path keeps in other
// files are not among the files.
func (m Manifest) CheckExternal(graph string, files []ExternalFile) error {
	for _, e := range files {
		f, ok := m.File(e.Beside(graph))
		switch {
		case !ok:
			return e.missing(graph)
		case f.SizeBytes < e.NeedsBytes:
			return fmt.Errorf("tensor %q of %s ends at byte %d of %s, which has %d: take both files from one export", e.Tensor, graph, e.NeedsBytes, f.Path, f.SizeBytes)
		}
	}
	return nil
}
