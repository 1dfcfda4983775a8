package main

import (
	"fmt"
	"path/filepath"
	"slices"

	"github.com/edgeherd/edgeherd/agent/serve"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// shelf tells pipelines what serves and what its signed manifests declare.
type shelf struct {
	active  string
	keyring func() (trust.Keyring, error)
	status  func() runnerapi.Status
}

func newShelf(c config, s *serve.Server) shelf {
	return shelf{c.Active, serve.KeyringIn(c.Identity), s.Status}
}

// Serving lists the versions that serve now.
func (s shelf) Serving() ([]models.Ref, error) {
	var out []models.Ref
	for _, m := range s.status().Models {
		if m.State == runnerapi.ModelReady {
			out = append(out, m.Ref)
		}
	}
	slices.SortFunc(out, func(a, b models.Ref) int { return slices.Compare(a.Digest[:], b.Digest[:]) })
	return out, nil
}

// Manifest opens the envelope of a version: its bytes, its signature and that
// it is about the version asked for.
func (s shelf) Manifest(ref models.Ref) (models.Manifest, error) {
	store, err := s.blobs()
	if err != nil {
		return models.Manifest{}, err
	}
	keys, err := s.keyring()
	if err != nil {
		return models.Manifest{}, err
	}
	data, err := store.ReadAll(ref.Digest, trust.MaxEnvelopeBytes)
	if err != nil {
		return models.Manifest{}, err
	}
	if blob.Sum(data) != ref.Digest {
		return models.Manifest{}, blob.ErrMismatch
	}
	payload, err := keys.OpenListed(trust.TypeModel, data) // it serves, so it was allowed
	if err != nil {
		return models.Manifest{}, err
	}
	m, err := models.DecodeManifest(payload)
	if err == nil && (m.Name != ref.Name || m.Version != ref.Version) {
		err = fmt.Errorf("it is that of %s:%s", m.Name, m.Version)
	}
	return m, err
}

// File is the path of a file of a version.
func (s shelf) File(ref models.Ref, path string) (string, error) {
	m, err := s.Manifest(ref)
	if err != nil {
		return "", err
	}
	f, ok := m.File(path)
	if !ok {
		return "", fmt.Errorf("model %s has no file %s", ref, path)
	}
	store, err := s.blobs()
	if err != nil {
		return "", err
	}
	return store.Path(f.Digest), nil
}

// blobs is the store that active.json names, or the one beside it.
func (s shelf) blobs() (*blob.Store, error) {
	var active runnerapi.Active
	if _, err := (durable.Journal{Path: s.active, Version: runnerapi.ActiveVersion}).Load(&active); err != nil {
		return nil, fmt.Errorf("read active models: %w", err)
	}
	if active.Blobs == "" {
		active.Blobs = filepath.Join(filepath.Dir(filepath.Dir(s.active)), "blobs")
	}
	return blob.Open(active.Blobs)
}
