// Package models says what a model is: the manifest that names its files by
// digest, the signature its callers depend on, the golden samples that prove
// it on a box, and the readers of foreign containers (ONNX).
//
// Vocabulary: a model has a name and versions; a version is one Manifest in a
// signed envelope, and the digest of that envelope is the version's identity
// everywhere (desired state, reports, pages). Golden samples are inputs with
// the outputs that the publisher measured, and how far a box may differ.
//
// The one rule a caller can break: two versions may replace each other on a
// box only if Signature.Accepts says so.
package models

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"regexp"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// ManifestVersion is the shape of Manifest. History: 1 first.
const ManifestVersion = 1

// ModelFile is the path of the model itself among the files of a manifest.
const ModelFile = "model.onnx"

// GoldenFile is the path of the golden samples, if there are any.
const GoldenFile = "golden.json"

// Manifest describes one version of one model.
type Manifest struct {
	V           int       `json:"v"`
	Name        string    `json:"name"`
	Version     string    `json:"version"`
	Description string    `json:"description,omitempty"`
	Licence     string    `json:"licence,omitempty"`
	Upstream    string    `json:"upstream,omitempty"`
	Files       []File    `json:"files"`
	Signature   Signature `json:"signature"`
	// Pipelines say what is done before and after the model runs.
	Pipelines []Pipeline `json:"pipelines,omitempty"`
	// Variants are forms of the model from the best to the cheapest; see Ladder.
	Variants []Variant `json:"variants,omitempty"`
	// Backend is the program that serves the model; nil: ONNX Runtime does.
	Backend *Backend `json:"backend,omitempty"`
	// LeavesSite says where inputs may go: StaysOnSite, the default, or MayLeaveSite.
	LeavesSite string `json:"leaves_site,omitempty"`
	// Shadow is what the version must show beside the one before it; nil: little.
	Shadow *Shadow `json:"shadow,omitempty"`
	// Provenance is absent of files that are as training left them.
	Provenance *Provenance `json:"provenance,omitempty"`
}

// File is one file of a model: its slash-separated path inside the model's
// directory and its content.
type File struct {
	Path      string      `json:"path"`
	Digest    blob.Digest `json:"digest"`
	SizeBytes int64       `json:"size_bytes"`
	// Frames is the digest of the list of the file's frames (blob.Frames), which
	// lets a box check a part of the file, whoever it came from. A file of one
	// frame has none.
	Frames blob.Digest `json:"frames,omitzero"`
}

// Framed reports whether the file is delivered in frames.
func (f File) Framed() bool { return f.SizeBytes > blob.FrameBytes && !f.Frames.IsZero() }

// Ref names a version of a model and where its manifest is.
type Ref struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	// Digest is that of the signed manifest envelope.
	Digest blob.Digest `json:"digest"`
}

func (r Ref) String() string { return r.Name + ":" + r.Version }

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}$`)
	versionForm = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+-]{0,62}$`)
)

// File returns the file at p, or false.
func (m Manifest) File(p string) (File, bool) {
	for _, f := range m.Files {
		if f.Path == p {
			return f, true
		}
	}
	return File{}, false
}

// SizeBytes is what a box must download for all files.
func (m Manifest) SizeBytes() int64 {
	var n int64
	for _, f := range m.Files {
		n += f.SizeBytes
	}
	return n
}

// Validate names the first fault of the manifest.
func (m Manifest) Validate() error {
	switch {
	case m.V != ManifestVersion:
		return fmt.Errorf("manifest version %d, this program reads %d", m.V, ManifestVersion)
	case !nameForm.MatchString(m.Name):
		return fmt.Errorf("model name %q: use lower case letters, digits and -, at most 63", m.Name)
	case !versionForm.MatchString(m.Version):
		return fmt.Errorf("model version %q: use letters, digits, dot, plus and -, at most 63", m.Version)
	case len(m.Files) == 0 && m.Backend == nil || len(m.Files) > 1000: // checkBackend says which file is missing
		return fmt.Errorf("model has %d files, want 1 to 1000", len(m.Files))
	}
	seen := map[string]bool{}
	for _, f := range m.Files {
		if f.Path == "" || path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || f.Path == ".." || len(f.Path) > 3 && f.Path[:3] == "../" {
			return fmt.Errorf("file path %q is not a clean relative path", f.Path)
		}
		if seen[f.Path] {
			return fmt.Errorf("file %q is listed twice", f.Path)
		}
		seen[f.Path] = true
		if f.Digest.IsZero() || f.SizeBytes < 0 {
			return fmt.Errorf("file %q has no digest or a negative size", f.Path)
		}
	}
	if !seen[ModelFile] && m.Backend == nil {
		return fmt.Errorf("model has no file %s", ModelFile)
	}
	if err := m.checkBackend(); err != nil {
		return err
	}
	if m.Backend == nil || m.Backend.API != APIOpenAI {
		if err := m.Signature.Validate(); err != nil {
			return err
		}
	}
	if err := m.checkVariants(); err != nil {
		return err
	}
	if err := errors.Join(m.checkShadow(), m.checkProvenance()); err != nil {
		return err
	}
	return m.checkPipelines()
}

// Encode returns the canonical JSON that is signed.
func (m Manifest) Encode() ([]byte, error) {
	if err := m.Validate(); err != nil {
		return nil, err
	}
	return json.Marshal(m)
}

// DecodeManifest reads and validates a manifest. Unknown fields are refused.
func DecodeManifest(data []byte) (Manifest, error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var m Manifest
	if err := dec.Decode(&m); err != nil {
		return Manifest{}, fmt.Errorf("parse manifest: %w", err)
	}
	if dec.More() {
		return Manifest{}, errors.New("parse manifest: bytes after its end")
	}
	if err := m.Validate(); err != nil {
		return Manifest{}, err
	}
	return m, nil
}
