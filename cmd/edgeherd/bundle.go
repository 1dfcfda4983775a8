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
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/bundle"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

func bundleCommand(c *cli) *cobra.Command {
	return c.group("bundle", "Models and releases carried on a stick, to boxes and controllers without a network",
		bundleExportCommand(c),
		c.verb("show BUNDLE", "What is in a bundle, a file or a folder", c.bundleShow),
		c.call("import BUNDLE", "Give a bundle to this controller, which checks it as a push", c.bundleImport),
	)
}

func bundleExportCommand(c *cli) *cobra.Command {
	q := url.Values{}
	var named, releases, bases []string
	var site string
	var folder bool
	cmd := c.verb("export BUNDLE", "Write signed versions, and what they are checked by, into a file or a folder", func(ctx context.Context, args []string) error {
		q["model"], q["release"], q["base"] = named, releases, bases
		if site != "" {
			q.Set("site", site)
		}
		return c.bundleExport(ctx, args[0], q, folder)
	})
	f := cmd.Flags()
	f.StringSliceVar(&named, "model", nil, "NAME:VERSION to put in; several with commas or again")
	f.StringSliceVar(&releases, "release", nil, "version of the agent to put in")
	f.StringVar(&site, "site", "", "what the boxes of this site shall run, and the signed word that they shall")
	f.StringSliceVar(&bases, "base", nil, "NAME:VERSION that those have whom it is for: deltas in the place of files")
	f.BoolVar(&folder, "folder", false, "a folder in the place of one file: a FAT stick takes no file of 4 GiB")
	return cmd
}

func (c *cli) bundleExport(ctx context.Context, to string, q url.Values, folder bool) (err error) {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	if folder {
		err = exportFolder(ctx, client, to, q)
	} else {
		err = exportFile(ctx, client, to, q)
	}
	if err != nil {
		return err
	}
	b, err := bundle.Open(to)
	if err != nil {
		return err
	}
	defer b.Close()
	return c.printBundle(b.Index)
}

// exportFile writes the tar under another name, until it is whole.
func exportFile(ctx context.Context, client *fleetapi.Client, to string, q url.Values) error {
	f, err := os.CreateTemp(filepath.Dir(filepath.Clean(to)), "."+filepath.Base(to)+".*")
	if err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	defer os.Remove(f.Name()) // gone when all went well
	defer f.Close()
	if err := client.ExportBundle(ctx, q, f); err != nil {
		if full := (*fs.PathError)(nil); errors.As(err, &full) {
			return fmt.Errorf("write bundle: %w", full)
		}
		return err
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync()); err != nil {
		return fmt.Errorf("write bundle: %w", err)
	}
	b, err := bundle.Open(f.Name())
	if err != nil {
		return err
	}
	return errors.Join(b.Close(), durable.Rename(f.Name(), to))
}

// exportFolder writes file by file what the controller sends.
func exportFolder(ctx context.Context, client *fleetapi.Client, to string, q url.Values) error {
	r, w := io.Pipe()
	sent := make(chan struct{})
	go func() {
		w.CloseWithError(client.ExportBundle(ctx, q, w))
		close(sent)
	}()
	err := bundle.WriteFolder(to, r)
	r.CloseWithError(err)
	<-sent
	if full := (*fs.PathError)(nil); errors.As(err, &full) {
		return fmt.Errorf("write bundle: %w", full)
	}
	return err
}

func (c *cli) printBundle(x bundle.Index) error {
	for _, note := range x.Notes {
		c.say("Note: %s.", note)
	}
	return c.print(bundleSheet(x))
}

func bundleSheet(x bundle.Index) sheet {
	s := sheet{kind: "bundle", value: x, head: []string{"WHAT", "NAME", "VERSION", "DIGEST"}}
	add := func(what string, list []bundle.Item) {
		for _, i := range list {
			s.rows = append(s.rows, []string{what, i.Name, i.Version, i.Digest.Short()})
			s.names = append(s.names, i.String())
		}
	}
	add("model", x.Models)
	add("release", x.Releases)
	var n int64
	for _, b := range x.Blobs {
		n += b.SizeBytes
	}
	s.rows = append(s.rows, []string{"files", strconv.Itoa(len(x.Blobs)) + ", " + bytesText(n), "", ""})
	if len(x.Packs) > 0 {
		s.rows = append(s.rows, []string{"packs", strconv.Itoa(len(x.Packs)) + " in the place of files", "", ""})
	}
	if len(x.Desired) > 0 {
		s.rows = append(s.rows, []string{"boxes", strconv.Itoa(len(x.Desired)) + " of site " + orDash(x.Site), "", ""})
	}
	if len(x.Trust) > 0 {
		s.rows = append(s.rows, []string{"trust", strconv.Itoa(len(x.Trust)) + " signed documents", "", ""})
	}
	return s
}

func (c *cli) bundleShow(_ context.Context, args []string) error {
	b, err := bundle.Open(args[0])
	if err != nil {
		return err
	}
	defer b.Close()
	return c.printBundle(b.Index)
}

// bundleImport gives a bundle to the controller. All is decided there; this side
// reads, asks whether a version would be taken, and sends what is missing of it.
func (c *cli) bundleImport(ctx context.Context, client *fleetapi.Client, args []string) error {
	b, err := bundle.Open(args[0])
	if err != nil {
		return err
	}
	defer b.Close()
	if err := c.importTrust(ctx, client, b); err != nil {
		return err
	}
	// All are asked about before the first byte of one is sent.
	missing := map[blob.Digest][]blob.Digest{}
	for i, x := range slices.Concat(b.Models, b.Releases) {
		envelope, err := b.Envelope(x)
		if err != nil {
			return err
		}
		checked, err := client.CheckBundle(ctx, fleetapi.CheckBundle{Envelope: envelope, Release: i >= len(b.Models)})
		if err != nil {
			return fmt.Errorf("%s: %w", x, err)
		}
		if got := checked.Name + ":" + checked.Version; got != x.String() {
			return fmt.Errorf("the bundle calls %s what is signed as %s", x, got)
		}
		missing[x.Digest] = checked.Missing
	}
	for i, x := range slices.Concat(b.Models, b.Releases) {
		for _, d := range missing[x.Digest] {
			if err := c.importFile(ctx, client, b, d); err != nil {
				return fmt.Errorf("%s: %w", x, err)
			}
		}
		envelope, err := b.Envelope(x)
		if err != nil {
			return err
		}
		if i < len(b.Models) {
			_, err = client.PushModel(ctx, envelope)
		} else {
			_, err = client.PushRelease(ctx, envelope)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", x, err)
		}
	}
	if err := c.print(bundleSheet(b.Index)); err != nil {
		return err
	}
	c.say("Imported. Next: edgeherd rollout start NAME:VERSION")
	return nil
}

// importFile sends a file, or the way to it that the bundle has.
func (c *cli) importFile(ctx context.Context, client *fleetapi.Client, b *bundle.Bundle, d blob.Digest) error {
	if r, err := b.Blob(d); err == nil {
		tell := c.progress()
		return client.Upload(ctx, d, r, r.Size(), func(sent int64) { tell(fleetapi.Progress{File: d.Short(), Sent: sent, Total: r.Size()}) })
	}
	for _, p := range b.Packs {
		if p.Target != d {
			continue
		}
		r, err := b.Blob(p.Digest)
		if err != nil {
			return err
		}
		return client.Unpack(ctx, d, p.Base, r, r.Size())
	}
	return fmt.Errorf("its file %s is not in the bundle and not at the controller: export it without --base", d.Short())
}

// importTrust submits the documents that are newer than the controller's. One of
// another fleet is told by its root; its publishers may still be known here.
func (c *cli) importTrust(ctx context.Context, client *fleetapi.Client, b *bundle.Bundle) error {
	if len(b.Trust) == 0 {
		return nil
	}
	state, err := client.Trust(ctx)
	if err != nil {
		return err
	}
	have := map[string]int64{}
	var root []byte
	for _, d := range state.Documents {
		if !d.Staged {
			have[d.Role] = d.Version
			if d.Role == tufrepo.RoleRoot {
				root = d.Document
			}
		}
	}
	same := len(root) == 0
	if !same {
		ours, err := b.Document(tufrepo.FileName(tufrepo.RoleRoot, have[tufrepo.RoleRoot]))
		same = err == nil && string(ours) == string(root)
	}
	for _, next := range submissions(b, have, same) {
		data, err := b.Document(next.Name)
		if err != nil {
			return err
		}
		role, version, err := tufrepo.ParseFileName(next.Name)
		if err != nil {
			return err
		}
		done, err := client.SubmitTrust(ctx, fleetapi.SubmitTrust{Role: role, Document: data})
		switch {
		case err != nil:
			return fmt.Errorf("signed document %s of the bundle: %w", next.Name, err)
		case done.Missing > 0:
			return fmt.Errorf("signed document %s of the bundle lacks %d signatures: it is another fleet's", next.Name, done.Missing)
		}
		c.say("%s is at version %d now.", role, version)
	}
	return nil
}

// submissions are the documents to submit, in the order in which each vouches for
// the next: roots, targets, the roles below.
func submissions(b *bundle.Bundle, have map[string]int64, same bool) (out []bundle.Entry) {
	rank := func(e bundle.Entry) int64 {
		role, version, _ := tufrepo.ParseFileName(e.Name)
		switch role {
		case tufrepo.RoleRoot:
			return version
		case tufrepo.RoleTargets:
			return 1 << 40
		}
		return 1 << 41
	}
	for _, e := range b.Trust {
		role, version, err := tufrepo.ParseFileName(e.Name)
		top := role == tufrepo.RoleRoot || role == tufrepo.RoleTargets
		if err != nil || version <= have[role] || role == tufrepo.RoleSnapshot || role == tufrepo.RoleTimestamp || top && !same {
			continue
		}
		out = append(out, e)
	}
	slices.SortStableFunc(out, func(x, y bundle.Entry) int {
		if d := rank(x) - rank(y); d != 0 {
			return int(min(max(d, -1), 1))
		}
		return strings.Compare(x.Name, y.Name)
	})
	return out
}
