// Command edgeherd-tufconformance lets the public TUF conformance suite
// (theupdateframework/tuf-conformance) drive the metadata client that boxes use.
// It is no part of an installation. Its commands and flags are those of the
// suite's CLIENT-CLI.md:
//
//	--metadata-dir DIR init TRUSTED_ROOT
//	--metadata-dir DIR --metadata-url URL refresh
//	--metadata-dir DIR --metadata-url URL --target-name PATH --target-base-url URL --target-dir DIR download
//
// Exit codes: 0 the command succeeded, 1 it did not.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust/tufclient"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "edgeherd-tufconformance: %v\n", err)
		os.Exit(1)
	}
}

// subject is the client under test.
type subject struct {
	metadataDir, metadataURL              string
	targetName, targetBaseURL, targetsDir string
}

func run(ctx context.Context, args []string) error {
	var s subject
	f := flag.NewFlagSet("edgeherd-tufconformance", flag.ContinueOnError)
	f.StringVar(&s.metadataDir, "metadata-dir", "", "folder of the trusted metadata")
	f.StringVar(&s.metadataURL, "metadata-url", "", "where the repository's metadata is")
	f.StringVar(&s.targetName, "target-name", "", "path of the target")
	f.StringVar(&s.targetBaseURL, "target-base-url", "", "where the repository's targets are")
	f.StringVar(&s.targetsDir, "target-dir", "", "folder of downloaded targets")
	if err := f.Parse(args); err != nil {
		return err
	}
	switch f.Arg(0) {
	case "init":
		root, err := os.ReadFile(f.Arg(1))
		if err != nil {
			return fmt.Errorf("read the trusted root: %w", err)
		}
		return durable.WriteFile(s.file("root"), root, 0o644)
	case "refresh":
		_, err := s.refresh(ctx)
		return err
	case "download":
		return s.download(ctx)
	}
	return fmt.Errorf("command %q: want init, refresh or download", f.Arg(0))
}

func (s subject) file(role string) string {
	return filepath.Join(s.metadataDir, url.PathEscape(role)+".json")
}

// open continues from the folder, at the time that faketime asks for: it cannot
// reach a program that is not linked with libc.
func (s subject) open() (*tufclient.Plain, error) {
	entries, err := os.ReadDir(s.metadataDir)
	if err != nil {
		return nil, fmt.Errorf("read the trusted metadata: %w", err)
	}
	docs := map[string][]byte{}
	for _, e := range entries {
		role, err := url.PathUnescape(strings.TrimSuffix(e.Name(), ".json"))
		if err != nil || !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		if docs[role], err = os.ReadFile(filepath.Join(s.metadataDir, e.Name())); err != nil {
			return nil, fmt.Errorf("read the trusted metadata: %w", err)
		}
	}
	shift, err := time.ParseDuration(os.Getenv("FAKETIME") + "s")
	if err != nil {
		shift = 0
	}
	return tufclient.NewPlain(tufclient.Options{
		Root: docs["root"], WallClock: func() time.Time { return time.Now().Add(shift) },
		Fetch: func(ctx context.Context, name string, limit int64) ([]byte, error) {
			return get(ctx, s.metadataURL, name, limit)
		},
	}, docs)
}

// keep writes what was verified, and removes what was forgotten.
func (s subject) keep(docs map[string][]byte) error {
	for _, role := range []string{"timestamp", "snapshot"} {
		if docs[role] == nil {
			if err := os.Remove(s.file(role)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	for role, data := range docs {
		if have, err := os.ReadFile(s.file(role)); err == nil && bytes.Equal(have, data) {
			continue
		}
		if err := durable.WriteFile(s.file(role), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (s subject) refresh(ctx context.Context) (*tufclient.Plain, error) {
	p, err := s.open()
	if err != nil {
		return nil, err
	}
	err = p.Refresh(ctx)
	return p, errors.Join(err, s.keep(p.Documents()))
}

func (s subject) download(ctx context.Context) error {
	p, err := s.refresh(ctx)
	if err != nil {
		return err
	}
	target, err := p.Target(ctx, s.targetName)
	if err := errors.Join(err, s.keep(p.Documents())); err != nil {
		return err
	}
	// A name may be .. or longer than that of a file.
	file := filepath.Join(s.targetsDir, fmt.Sprintf("%x", sha256.Sum256([]byte(s.targetName))))
	if have, err := os.ReadFile(file); err == nil && target.VerifyLengthHashes(have) == nil {
		return nil
	}
	data, err := get(ctx, s.targetBaseURL, served(target, s.targetName, p.Hashed()), target.Length)
	if err == nil {
		err = target.VerifyLengthHashes(data)
	}
	if err != nil {
		return fmt.Errorf("target %s: %w", s.targetName, err)
	}
	return durable.WriteFile(file, data, 0o644)
}

// served is the name that a target has on the server.
func served(t *metadata.TargetFiles, name string, hashed bool) string {
	if hashed {
		for _, algorithm := range []string{"sha256", "sha512"} {
			if h, ok := t.Hashes[algorithm]; ok {
				base := strings.LastIndex(name, "/") + 1
				name = name[:base] + h.String() + "." + name[base:]
				break
			}
		}
	}
	return (&url.URL{Path: name}).EscapedPath()
}

// get fetches at most limit bytes.
func get(ctx context.Context, base, name string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(base, "/")+"/"+name, nil)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotFound || res.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("%s: %w", name, tufclient.ErrAbsent)
	case res.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: %s", name, res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s is longer than %d bytes", name, limit)
	}
	return data, err
}
