package fleetapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
	"github.com/edgeherd/edgeherd/models"
)

// Progress tells how far an upload is.
type Progress struct {
	File        string
	Sent, Total int64 // bytes
}

// PushModelDir packs the model in dir, signs it with the key in the file
// keyPath, uploads what the controller lacks and registers the version.
// Pushing the same model again changes nothing. progress may be nil.
func PushModelDir(ctx context.Context, c *Client, dir, keyPath string, progress func(Progress)) (models.Ref, error) {
	key, err := readKey(keyPath)
	if err != nil {
		return models.Ref{}, err
	}
	m, paths, err := models.Pack(dir)
	if err != nil {
		return models.Ref{}, err
	}
	p, err := PushModelWith(ctx, c, Packed{m, paths}, key, progress)
	return p.Ref, err
}

// Packed is what models.Pack returns.
type Packed struct {
	Manifest models.Manifest
	Paths    map[blob.Digest]string
}

// Pushed names what was pushed.
type Pushed struct {
	models.Ref
	// Length is that of the signed envelope, whose digest is Ref's, in bytes.
	Length int64
}

// PushModelWith pushes what models.Pack made, as PushModelDir does.
func PushModelWith(ctx context.Context, c *Client, pack Packed, key trust.Signer, progress func(Progress)) (Pushed, error) {
	payload, err := pack.Manifest.Encode()
	if err != nil {
		return Pushed{}, err
	}
	envelope, err := trust.Sign(trust.TypeModel, payload, key)
	if err != nil {
		return Pushed{}, err
	}
	if err := uploadMissing(ctx, c, pack.Paths, progress); err != nil {
		return Pushed{}, err
	}
	v, err := c.PushModel(ctx, envelope)
	return Pushed{v.Ref, int64(len(envelope))}, err
}

// NewRelease says what to release: one program file for each platform.
type NewRelease struct {
	Version, Notes string
	Binaries       map[string]string // by platform, such as linux/arm64
}

// PushReleaseFiles signs a release of the files, with a counter above all that the
// controller has, uploads what it lacks and registers the release. progress may be
// nil. It returns the length of the signed envelope as well.
func PushReleaseFiles(ctx context.Context, c *Client, n NewRelease, key trust.Signer, progress func(Progress)) (Release, int64, error) {
	r, paths, err := newRelease(ctx, c, n)
	if err != nil {
		return Release{}, 0, err
	}
	envelope, _, err := firmware.Sign(r, key)
	if err != nil {
		return Release{}, 0, err
	}
	if err := uploadMissing(ctx, c, paths, progress); err != nil {
		return Release{}, 0, err
	}
	out, err := c.PushRelease(ctx, envelope)
	return out, int64(len(envelope)), err
}

// newRelease is the release of the files, and where each lies.
func newRelease(ctx context.Context, c *Client, n NewRelease) (firmware.Release, map[blob.Digest]string, error) {
	r := firmware.Release{V: firmware.ReleaseVersion, Kind: firmware.KindAgent, Version: n.Version, Notes: n.Notes, Counter: 1}
	paths := map[blob.Digest]string{}
	var err error
	for platform, file := range n.Binaries {
		goos, arch, ok := strings.Cut(platform, "/")
		if !ok {
			return r, nil, fmt.Errorf("platform %q is not like linux/arm64", platform)
		}
		b := firmware.Build{OS: goos, Arch: arch}
		if b.Digest, b.SizeBytes, err = sumFile(file); err != nil {
			return r, nil, fmt.Errorf("read the program for %s: %w", platform, err)
		}
		r.Builds = append(r.Builds, b)
		paths[b.Digest] = file
	}
	list, err := c.Releases(ctx)
	if err != nil {
		return r, nil, err
	}
	for _, have := range list.Items {
		if have.Version == n.Version {
			r.Counter = have.Counter // the same content gives the same digest again
			break
		}
		r.Counter = max(r.Counter, have.Counter+1)
	}
	return r, paths, nil
}

func readKey(file string) (trust.PrivateKey, error) {
	if file == "" {
		return trust.PrivateKey{}, errors.New("no signing key: name its file with --key, or as signing_key in the context")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return trust.PrivateKey{}, fmt.Errorf("read signing key: %w", err)
	}
	key, err := trust.ParsePrivateKey(text)
	if err != nil {
		return trust.PrivateKey{}, fmt.Errorf("read signing key %s: %w", file, err)
	}
	return key, nil
}

func sumFile(file string) (blob.Digest, int64, error) {
	f, err := os.Open(file)
	if err != nil {
		return blob.Digest{}, 0, err
	}
	defer f.Close()
	return blob.SumReader(f)
}

// uploadMissing sends the files that the controller lacks.
func uploadMissing(ctx context.Context, c *Client, paths map[blob.Digest]string, progress func(Progress)) error {
	var digests []blob.Digest
	for d := range paths {
		digests = append(digests, d)
	}
	missing, err := c.Missing(ctx, digests)
	if err != nil {
		return err
	}
	for _, d := range missing {
		if err := uploadFile(ctx, c, d, paths[d], progress); err != nil {
			return err
		}
	}
	return nil
}

func uploadFile(ctx context.Context, c *Client, d blob.Digest, file string, progress func(Progress)) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return fmt.Errorf("upload: %w", err)
	}
	var tell func(int64)
	if progress != nil {
		tell = func(sent int64) { progress(Progress{File: filepath.Base(file), Sent: sent, Total: fi.Size()}) }
	}
	return c.Upload(ctx, d, f, fi.Size(), tell)
}
