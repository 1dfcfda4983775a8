// Package oci carries versions of models to and from OCI registries, in the form of
// the CNCF ModelPack specification: an artefact whose layers are the model's files
// as they are, each under its path.
//
// Vocabulary: the envelope is the signed manifest of edgeherd, a layer of its own
// that other tools pass over; with it a version keeps its signature on the way
// through a registry. An artefact without one is foreign.
//
// A registry is believed in nothing: contents are checked against the digests that
// the envelope names, by who takes them.
//
// The one rule a caller can break: paths of a foreign artefact come from others;
// use File.Path only as Pull returns it, which is local and clean.
package oci

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"oras.land/oras-go/v2/content"
	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote"
	"oras.land/oras-go/v2/registry/remote/auth"
	"oras.land/oras-go/v2/registry/remote/credentials"
	"oras.land/oras-go/v2/registry/remote/errcode"
	"oras.land/oras-go/v2/registry/remote/retry"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/models"
)

// The media types of ModelPack, and that of the envelope.
const (
	TypeArtefact = "application/vnd.cncf.model.manifest.v1+json"
	TypeConfig   = "application/vnd.cncf.model.config.v1+json"
	TypeWeight   = "application/vnd.cncf.model.weight.v1.raw"
	TypeDoc      = "application/vnd.cncf.model.doc.v1.raw"
	TypeEnvelope = "application/vnd.edgeherd.model.envelope.v1+json"
	dockerImage  = "application/vnd.docker.container.image.v1+json" // of the configuration of an image
	// annotationPath names the file of a layer.
	annotationPath = "org.cncf.model.filepath"
)

// Bounds of what is read into memory, and of layers.
const (
	maxManifest = 4 << 20
	maxLayers   = 1001
)

// Scheme begins a reference: oci://HOST/REPOSITORY:TAG.
const Scheme = "oci://"

// Place is a repository and a tag or digest in it.
type Place struct {
	repo *remote.Repository
	tag  string
}

// At opens a place. plain is for a registry without TLS. Credentials are those of
// docker login.
func At(ref string, plain bool) (*Place, error) {
	name, ok := strings.CutPrefix(ref, Scheme)
	if !ok {
		return nil, fmt.Errorf("%q is not oci://HOST/REPOSITORY:TAG", ref)
	}
	repo, err := remote.NewRepository(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	if repo.Reference.Reference == "" {
		return nil, fmt.Errorf("%s names no version: add :TAG", ref)
	}
	repo.PlainHTTP = plain
	client := &auth.Client{Client: retry.DefaultClient, Cache: auth.NewCache()}
	if store, err := credentials.NewStoreFromDocker(credentials.StoreOptions{}); err == nil {
		client.Credential = credentials.Credential(store)
	}
	repo.Client = client
	return &Place{repo, repo.Reference.Reference}, nil
}

// File is one layer.
type File struct {
	models.File
	descriptor ocispec.Descriptor
}

// Artefact is what a place has.
type Artefact struct {
	// Envelope is nil of a foreign one.
	Envelope []byte
	Files    []File
}

// Push copies a version to the place. open reads a file by its digest.
func (p *Place) Push(ctx context.Context, m models.Manifest, envelope []byte, open func(blob.Digest) (io.ReadCloser, error)) error {
	config, err := json.Marshal(map[string]any{
		"descriptor": map[string]any{"name": m.Name, "version": m.Version, "title": m.Description, "licenses": []string{m.Licence}},
		"modelfs":    map[string]any{"type": "layers", "diffIds": diffIDs(m)}, "config": map[string]any{"format": format(m)},
	})
	if err != nil {
		return err
	}
	manifest := ocispec.Manifest{Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, ArtifactType: TypeArtefact,
		Config: content.NewDescriptorFromBytes(TypeConfig, config)}
	small := map[digest.Digest][]byte{manifest.Config.Digest: config}
	for _, f := range m.Files {
		kind := TypeDoc
		if f.SizeBytes > blob.FrameBytes || path.Ext(f.Path) == ".onnx" {
			kind = TypeWeight
		}
		manifest.Layers = append(manifest.Layers, ocispec.Descriptor{MediaType: kind, Digest: digest.Digest(f.Digest.String()), Size: f.SizeBytes, Annotations: map[string]string{annotationPath: f.Path}})
	}
	signed := content.NewDescriptorFromBytes(TypeEnvelope, envelope)
	small[signed.Digest] = envelope
	manifest.Layers = append(manifest.Layers, signed)
	for _, d := range append(manifest.Layers, manifest.Config) {
		if err := p.put(ctx, d, small[d.Digest], open); err != nil {
			return fmt.Errorf("copy %s to the registry: %w", d.Digest, p.explain(err))
		}
	}
	body, err := json.Marshal(manifest)
	if err != nil {
		return err
	}
	if err := p.repo.PushReference(ctx, content.NewDescriptorFromBytes(manifest.MediaType, body), bytes.NewReader(body), p.tag); err != nil {
		return fmt.Errorf("name it %s in the registry: %w", p.tag, p.explain(err))
	}
	return nil
}

// format is the word of ModelPack for what the model's largest file is.
func format(m models.Manifest) string {
	if m.Backend == nil {
		return "onnx"
	}
	largest := slices.MaxFunc(m.Files, func(a, b models.File) int { return cmp.Compare(a.SizeBytes, b.SizeBytes) })
	return strings.TrimPrefix(path.Ext(largest.Path), ".")
}

func diffIDs(m models.Manifest) (out []string) {
	for _, f := range m.Files {
		out = append(out, f.Digest.String())
	}
	return out
}

// put copies a blob that is not there yet.
func (p *Place) put(ctx context.Context, d ocispec.Descriptor, data []byte, open func(blob.Digest) (io.ReadCloser, error)) error {
	if there, err := p.repo.Exists(ctx, d); err != nil || there {
		return err
	}
	if data != nil {
		return p.repo.Push(ctx, d, bytes.NewReader(data))
	}
	named, err := blob.ParseDigest(string(d.Digest))
	if err != nil {
		return err
	}
	r, err := open(named)
	if err != nil {
		return err
	}
	defer r.Close()
	return p.repo.Push(ctx, d, r)
}

// Find reads what the place has: its envelope, and where its files are.
func (p *Place) Find(ctx context.Context) (a Artefact, err error) {
	d, err := p.repo.Resolve(ctx, p.tag)
	if err != nil {
		return a, fmt.Errorf("look for %s in the registry: %w", p.tag, p.explain(err))
	}
	if d.Size > maxManifest {
		return a, fmt.Errorf("the manifest in the registry has %d bytes, at most %d are read", d.Size, maxManifest)
	}
	body, err := content.FetchAll(ctx, p.repo, d)
	if err != nil {
		return a, fmt.Errorf("read the manifest in the registry: %w", err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(body, &m); err != nil || len(m.Layers) == 0 {
		return a, errors.Join(fmt.Errorf("%s is a %s, not the artefact of a model", p.tag, d.MediaType), err)
	}
	if len(m.Layers) > maxLayers {
		return a, fmt.Errorf("the artefact has %d layers, at most %d are read", len(m.Layers), maxLayers)
	}
	if m.Config.MediaType == ocispec.MediaTypeImageConfig || m.Config.MediaType == dockerImage {
		return a, fmt.Errorf("%s is an image of containers, not the artefact of a model", p.tag)
	}
	for _, l := range m.Layers {
		if l.MediaType == TypeEnvelope {
			if l.Size > maxManifest {
				return a, fmt.Errorf("the signed manifest has %d bytes, at most %d are read", l.Size, maxManifest)
			}
			if a.Envelope, err = content.FetchAll(ctx, p.repo, l); err != nil {
				return a, fmt.Errorf("read the signed manifest: %w", err)
			}
			continue
		}
		f, err := fileOf(l)
		if err != nil {
			return a, err
		}
		a.Files = append(a.Files, f)
	}
	return a, nil
}

func fileOf(l ocispec.Descriptor) (f File, err error) {
	name := l.Annotations[annotationPath]
	if name == "" {
		name = l.Annotations[ocispec.AnnotationTitle]
	}
	f = File{models.File{Path: name, SizeBytes: l.Size}, l}
	switch {
	case !filepath.IsLocal(filepath.FromSlash(name)) || path.Clean(name) != name || strings.ContainsFunc(name, unicode.IsControl):
		return f, fmt.Errorf("a layer of the artefact has the path %.80q, which is not a clean one inside of a folder", name)
	case strings.Contains(l.MediaType, "tar") || strings.Contains(l.MediaType, "gzip") || strings.Contains(l.MediaType, "zstd"):
		return f, fmt.Errorf("layer %s is packed (%s); only raw layers are taken", name, l.MediaType)
	case l.Size < 0 || l.Size > blob.MaxFramedBytes:
		return f, fmt.Errorf("layer %s has %d bytes, a file may have %d", name, l.Size, int64(blob.MaxFramedBytes))
	}
	if f.Digest, err = blob.ParseDigest(string(l.Digest)); err != nil {
		return f, fmt.Errorf("layer %s: %w", name, err)
	}
	return f, nil
}

// Open reads a file. It ends in an error if its bytes are not those of its digest.
func (p *Place) Open(ctx context.Context, f File) (io.ReadCloser, error) {
	r, err := p.repo.Fetch(ctx, f.descriptor)
	if err != nil {
		return nil, fmt.Errorf("read %s from the registry: %w", f.Path, p.explain(err))
	}
	return verified{content.NewVerifyReader(r, f.descriptor), r, f}, nil
}

// explain adds the way out where the registry's answer has none.
func (p *Place) explain(err error) error {
	var answer *errcode.ErrorResponse
	switch {
	case errors.Is(err, errdef.ErrNotFound):
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case errors.Is(err, auth.ErrBasicCredentialNotFound), errors.As(err, &answer) && (answer.StatusCode == http.StatusUnauthorized || answer.StatusCode == http.StatusForbidden):
		return fmt.Errorf("%w; it wants another name or password: docker login %s", err, p.repo.Reference.Host())
	case errors.Is(err, http.ErrSchemeMismatch):
		return fmt.Errorf("%w; if it has no TLS, say --plain-http", err)
	}
	return err
}

// ErrNotFound says that the registry does not have it.
var ErrNotFound = errors.New("the registry has none")

type verified struct {
	*content.VerifyReader
	body io.Closer
	file File
}

func (v verified) Read(b []byte) (int, error) {
	n, err := v.VerifyReader.Read(b)
	if errors.Is(err, io.EOF) {
		if verr := v.Verify(); verr != nil {
			return n, fmt.Errorf("what the registry has of %s is not %s: %w", v.file.Path, v.file.Digest.Short(), verr)
		}
	}
	return n, err
}

func (v verified) Close() error { return v.body.Close() }
