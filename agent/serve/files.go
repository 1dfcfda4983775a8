package serve

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// stored is a version whose signed manifest and files are in the blob store.
type stored struct {
	blobs    *blob.Store
	manifest models.Manifest
	opts     worker.Options // without the model
}

// errDamaged says that a file cannot be read as it is signed: the agent looks at
// it and fetches it again.
var errDamaged = errors.New("damaged on this box")

// openStored checks the manifest: that its bytes have the digest, that they are
// trusted, and that they are about the model asked for.
func openStored(blobs *blob.Store, keys trust.Keyring, ref models.Ref, opts worker.Options) (*stored, error) {
	data, err := blobs.ReadAll(ref.Digest, trust.MaxEnvelopeBytes)
	if err != nil {
		return nil, fmt.Errorf("read manifest of %s: %w: %w", ref, errDamaged, err)
	}
	if blob.Sum(data) != ref.Digest {
		return nil, fmt.Errorf("manifest of %s: %w: %w", ref, errDamaged, blob.ErrMismatch)
	}
	payload, err := keys.OpenListed(trust.TypeModel, data) // the agent writes to active.json what it was allowed
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", ref, err)
	}
	m, err := models.DecodeManifest(payload)
	if err != nil {
		return nil, fmt.Errorf("manifest of %s: %w", ref, err)
	}
	if m.Name != ref.Name || m.Version != ref.Version {
		return nil, fmt.Errorf("manifest of %s is that of %s:%s", ref, m.Name, m.Version)
	}
	return &stored{blobs, m, opts}, nil
}

func (s *stored) ladder() []models.Variant { return s.manifest.Ladder() }

// worker reads every file again, save the other variants: flash of a box rots,
// and a restart must not load what the first start would have refused.
func (s *stored) worker(variant models.Variant) (worker.Options, error) {
	for _, f := range s.manifest.Files {
		if f.Path != variant.Path && slices.ContainsFunc(s.ladder(), func(o models.Variant) bool { return o.Path == f.Path }) {
			continue
		}
		if err := s.verify(f); err != nil {
			return worker.Options{}, fmt.Errorf("file %s of %s:%s: %w: %w", f.Path, s.manifest.Name, s.manifest.Version, errDamaged, err)
		}
	}
	opts := s.opts
	var err error
	if opts.Model, err = s.path(variant.Path); err != nil {
		return opts, err
	}
	// A graph that cannot be read keeps nothing elsewhere: ONNX Runtime says of it what is wrong.
	if info, err := models.ReadONNXFile(opts.Model); err == nil && len(info.External) > 0 {
		opts.Files = map[string]string{}
		for _, e := range info.External {
			if opts.Files[e.Path], err = s.path(e.Beside(variant.Path)); err != nil {
				return opts, err
			}
		}
	}
	return opts, nil
}

func (s *stored) verify(f models.File) error {
	r, err := s.blobs.Get(f.Digest)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("is not in the blob store: %w", err)
	}
	if err != nil {
		return err
	}
	defer r.Close()
	got, n, err := blob.SumReader(r)
	switch {
	case err != nil:
		return err
	case n != f.SizeBytes:
		return fmt.Errorf("has %d bytes, the manifest says %d", n, f.SizeBytes)
	case got != f.Digest:
		return blob.ErrMismatch
	}
	return nil
}

func (s *stored) path(name string) (string, error) {
	f, ok := s.manifest.File(name)
	if !ok {
		return "", fmt.Errorf("model %s:%s has no file %s: %w", s.manifest.Name, s.manifest.Version, name, fs.ErrNotExist)
	}
	return s.blobs.Path(f.Digest), nil
}

// check refuses a model file that is not what the publisher signed it as:
// callers were promised the signature of the manifest.
func (s *stored) check(loaded models.Signature) error {
	if err := s.manifest.Signature.Accepts(loaded); err != nil {
		return fmt.Errorf("model %s:%s differs from its manifest: %w", s.manifest.Name, s.manifest.Version, err)
	}
	return nil
}
