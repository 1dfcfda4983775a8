package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/bundle"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
	"github.com/edgeherd/edgeherd/models/oci"
)

func modelExportCommand(c *cli) *cobra.Command {
	var plain bool
	cmd := c.verb("export NAME:VERSION oci://HOST/REPOSITORY:TAG", "Copy a version with its signature to an OCI registry (ModelPack)", func(ctx context.Context, args []string) error {
		return c.modelExport(ctx, args[0], args[1], plain)
	})
	cmd.Flags().BoolVar(&plain, "plain-http", false, "the registry has no TLS")
	return cmd
}

func (c *cli) modelExport(ctx context.Context, word, ref string, plain bool) error {
	if _, _, err := modelVersion(word); err != nil {
		return err
	}
	place, err := oci.At(ref, plain)
	if err != nil {
		return failure{exitUsage, err}
	}
	client, _, err := c.client()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "edgeherd-export-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := os.Create(filepath.Join(dir, "model.tar"))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := client.ExportBundle(ctx, url.Values{"model": {word}}, f); err != nil {
		return err
	}
	b, err := bundle.Open(f.Name())
	if err != nil {
		return err
	}
	defer b.Close()
	envelope, err := b.Envelope(b.Models[0])
	if err != nil {
		return err
	}
	m, err := shownManifest(envelope)
	if err != nil {
		return err
	}
	open := func(d blob.Digest) (io.ReadCloser, error) {
		r, err := b.Blob(d)
		if err != nil {
			return nil, err
		}
		return io.NopCloser(r), nil
	}
	if err := place.Push(ctx, m, envelope, open); err != nil {
		return err
	}
	return c.print(sheet{kind: "model-exported", value: ociPlace{b.Models[0], ref}, head: []string{"MODEL", "VERSION", "PLACE"},
		rows: [][]string{{m.Name, m.Version, ref}}, names: []string{ref}})
}

// ociPlace is a version and where it lies.
type ociPlace struct {
	bundle.Item
	Place string `json:"place"`
}

// shownManifest reads a manifest to know its files; who takes it checks its
// signature.
func shownManifest(envelope []byte) (models.Manifest, error) {
	payload, err := trust.Keyring{Targets: true}.OpenListed(trust.TypeModel, envelope)
	if err != nil {
		return models.Manifest{}, err
	}
	return models.DecodeManifest(payload)
}

func modelImportCommand(c *cli) *cobra.Command {
	var plain bool
	var to string
	cmd := c.verb("import oci://HOST/REPOSITORY:TAG", "Take a version from an OCI registry, with its signature", func(ctx context.Context, args []string) error {
		place, err := oci.At(args[0], plain)
		if err != nil {
			return failure{exitUsage, err}
		}
		a, err := place.Find(ctx)
		if errors.Is(err, oci.ErrNotFound) {
			return failure{exitNotFound, err}
		}
		if err != nil {
			return err
		}
		if to != "" {
			return c.unpackModel(ctx, place, a, to)
		}
		if a.Envelope == nil {
			return errors.New("the artefact has no signed manifest of edgeherd, so nobody here vouches for it: take its files with --to DIR, write model.yaml beside them, then edgeherd model push DIR")
		}
		return c.modelImport(ctx, place, a, args[0])
	})
	cmd.Flags().BoolVar(&plain, "plain-http", false, "the registry has no TLS")
	cmd.Flags().StringVar(&to, "to", "", "write the files into this new folder, and register nothing")
	return cmd
}

func (c *cli) modelImport(ctx context.Context, place *oci.Place, a oci.Artefact, ref string) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	checked, err := client.CheckBundle(ctx, fleetapi.CheckBundle{Envelope: a.Envelope})
	if err != nil {
		return err
	}
	for _, d := range checked.Missing {
		if err := c.importLayer(ctx, client, place, a, d); err != nil {
			return err
		}
	}
	v, err := client.PushModel(ctx, a.Envelope)
	if err != nil {
		return err
	}
	c.say("Imported. Next: edgeherd rollout start %s", v.Ref)
	return c.print(sheet{kind: "model-imported", value: ociPlace{bundle.Item{Name: v.Name, Version: v.Version, Digest: v.Digest}, ref},
		head: []string{"MODEL", "VERSION", "DIGEST"}, rows: [][]string{{v.Name, v.Version, v.Digest.Short()}}, names: []string{v.Ref.String()}})
}

// importLayer streams a file from the registry to the controller.
func (c *cli) importLayer(ctx context.Context, client *fleetapi.Client, place *oci.Place, a oci.Artefact, d blob.Digest) error {
	for _, f := range a.Files {
		if f.Digest != d {
			continue
		}
		r, err := place.Open(ctx, f)
		if err != nil {
			return err
		}
		defer r.Close()
		tell := c.progress()
		return client.Upload(ctx, d, r, f.SizeBytes, func(sent int64) { tell(fleetapi.Progress{File: f.Path, Sent: sent, Total: f.SizeBytes}) })
	}
	return fmt.Errorf("the signed manifest names the file %s, which the artefact does not have", d.Short())
}

// unpackModel writes the files of an artefact into a folder that is new.
func (c *cli) unpackModel(ctx context.Context, place *oci.Place, a oci.Artefact, to string) error {
	if err := os.Mkdir(to, 0o755); errors.Is(err, fs.ErrExist) {
		return failure{exitConflict, fmt.Errorf("%s is there already: name a new folder", to)}
	} else if err != nil {
		return err
	}
	root, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer root.Close()
	for _, f := range a.Files {
		if err := unpackFile(ctx, root, place, f); err != nil {
			return fmt.Errorf("%w; remove %s and try again", err, to)
		}
	}
	c.say("%d files are in %s. Next: write model.yaml beside them, then edgeherd model push %s", len(a.Files), to, to)
	return nil
}

func unpackFile(ctx context.Context, root *os.Root, place *oci.Place, f oci.File) error {
	r, err := place.Open(ctx, f)
	if err != nil {
		return err
	}
	defer r.Close()
	name := filepath.FromSlash(f.Path)
	if err := root.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	if err = errors.Join(err, out.Close()); err != nil {
		err = errors.Join(err, root.Remove(name)) // nobody shall push what was not checked
	}
	return err
}
