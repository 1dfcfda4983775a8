// Package bundle is what a controller gives away to be carried: one tar file, or
// a folder on a stick, with the signed objects that boxes and other controllers
// take over the network, under the same names and for the same checks.
//
//	bundle.json          what is inside (Index); first in a tar
//	trust/NAME           the fleet's metadata, as boxes ask for it
//	desired/BOX.json     signed desired state of a box
//	blobs/sha256/HEX     manifests, files, lists of frames, packs
//
// A tar is plain: contents are packed already, and a reader that finds no
// compression cannot be blown up by it. Entries are regular files of the names
// above, each once and as long as the index says; all else is refused by its name.
// Nothing is ever unpacked by name.
//
// Vocabulary: a Bundle answers as the controller does (RoundTrip), so that those
// who fetch from it run the very checks that they run on the network.
//
// The one rule a caller can break: nothing here is signed but the objects
// themselves. The index says where they are, never what may be believed.
package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// Version is the shape of a bundle. History: 1 first.
const Version = 1

// Bounds of what is read into memory.
const (
	maxIndexBytes = 16 << 20
	// MaxDocumentBytes bounds a document of the metadata, a desired state, a manifest.
	MaxDocumentBytes = 4 << 20
	maxEntries       = 100_000
)

// ErrBroken says that a bundle is not one, or not whole. Its text is for people.
var ErrBroken = errors.New("the bundle is damaged")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrBroken, fmt.Errorf(format, args...))
}

// Index says what is inside.
type Index struct {
	V    int       `json:"v"`
	Made time.Time `json:"made"`
	// Site is whose boxes it is for; empty: any.
	Site     string    `json:"site,omitempty"`
	Models   []Item    `json:"models"`
	Releases []Item    `json:"releases"`
	Trust    []Entry   `json:"trust"`
	Desired  []Desired `json:"desired"`
	Blobs    []Blob    `json:"blobs"`
	Packs    []Pack    `json:"packs"`
	// Notes are for people: what boxes of the site will not take, and why.
	Notes []string `json:"notes,omitempty"`
}

// Item is a version of a model or of the agent; Digest is that of its signed
// envelope, which is a blob.
type Item struct {
	Name    string      `json:"name"`
	Version string      `json:"version"`
	Digest  blob.Digest `json:"digest"`
}

func (i Item) String() string { return i.Name + ":" + i.Version }

// Entry is a document.
type Entry struct {
	Name      string `json:"name"`
	SizeBytes int64  `json:"size_bytes"`
}

// Desired is the signed desired state of a box.
type Desired struct {
	Box       identity.ID `json:"box"`
	SizeBytes int64       `json:"size_bytes"`
}

// Blob is a content by its digest.
type Blob struct {
	Digest    blob.Digest `json:"digest"`
	SizeBytes int64       `json:"size_bytes"`
}

// Pack is a way of fewer bytes to the file Target.
type Pack struct {
	Target blob.Digest `json:"target"`
	deviceapi.Pack
}

// NameOf a document, of a desired state, and of a blob.
func nameOfTrust(name string) string       { return "trust/" + name }
func nameOfDesired(box identity.ID) string { return "desired/" + string(box) + ".json" }
func nameOfBlob(d blob.Digest) string      { return "blobs/sha256/" + d.Hex() }

// names are all entries with their lengths, in the order of a tar.
func (x Index) names() (names []string, size map[string]int64, err error) {
	size = map[string]int64{}
	add := func(name string, n int64) {
		if _, twice := size[name]; twice && err == nil {
			err = broken("its index lists %s twice", name)
		}
		if n < 0 && err == nil {
			err = broken("its index gives %s %d bytes", name, n)
		}
		names, size[name] = append(names, name), n
	}
	for _, e := range x.Trust {
		add(nameOfTrust(e.Name), e.SizeBytes)
	}
	for _, e := range x.Desired {
		add(nameOfDesired(e.Box), e.SizeBytes)
	}
	for _, e := range x.Blobs {
		add(nameOfBlob(e.Digest), e.SizeBytes)
	}
	return names, size, err
}

// check names the first fault of an index.
func (x Index) check() error {
	if x.V != Version {
		return fmt.Errorf("the bundle has version %d, this program reads %d: use a program of the same release", x.V, Version)
	}
	if len(x.Trust)+len(x.Desired)+len(x.Blobs) > maxEntries {
		return broken("it has %d entries, at most %d are read", len(x.Trust)+len(x.Desired)+len(x.Blobs), maxEntries)
	}
	for _, e := range x.Trust {
		if _, _, err := tufrepo.ParseFileName(e.Name); err != nil || e.SizeBytes > MaxDocumentBytes {
			return broken("its document %.60q of %d bytes is none of the fleet's metadata", e.Name, e.SizeBytes)
		}
	}
	for _, e := range x.Desired {
		if _, err := identity.ParseID(string(e.Box)); err != nil || e.SizeBytes > MaxDocumentBytes {
			return broken("its desired state of %.60q with %d bytes is none", e.Box, e.SizeBytes)
		}
	}
	for _, i := range slices.Concat(x.Models, x.Releases) {
		if !word.MatchString(i.Name) || !word.MatchString(i.Version) {
			return broken("it has a version %.60q of %.60q", i.Version, i.Name)
		}
		if !slices.ContainsFunc(x.Blobs, func(b Blob) bool { return b.Digest == i.Digest }) {
			return broken("the signed manifest %s of %s is not inside", i.Digest.Short(), i)
		}
	}
	return nil
}

var word = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.+-]{0,62}$`)

// A Bundle is open for reading. Safe for concurrent use.
type Bundle struct {
	Index
	entries map[string]*io.SectionReader
	files   []io.Closer
}

// Open reads the index of the bundle at path, a tar or a folder, and makes sure
// that all that it names is there, in its length, and nothing else. Contents are
// checked by who takes them.
func Open(path string) (_ *Bundle, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open bundle: %w", err)
	}
	b := &Bundle{entries: map[string]*io.SectionReader{}}
	defer func() {
		if err != nil {
			b.Close()
			err = fmt.Errorf("bundle %s: %w", path, err)
		}
	}()
	if info.IsDir() {
		err = b.openFolder(path)
	} else {
		err = b.openTar(path)
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Close releases the files.
func (b *Bundle) Close() error {
	var errs []error
	for _, f := range b.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// readIndex decodes an index of so many bytes.
func readIndex(r io.Reader, size int64) (x Index, err error) {
	if size > maxIndexBytes {
		return x, broken("its index has %d bytes, at most %d are read", size, maxIndexBytes)
	}
	data, err := io.ReadAll(io.LimitReader(r, size))
	if err != nil {
		return x, err
	}
	// A byte or two of JSON can become a whole entry in memory; none that is worth
	// reading has fewer than two commas, a pack has six.
	if n := bytes.Count(data, []byte{','}); n > 4*maxEntries {
		return x, broken("its index has %d values, at most %d are read", n, 4*maxEntries)
	}
	if err := json.Unmarshal(data, &x); err != nil {
		return x, broken("its index: %w", err)
	}
	return x, x.check()
}

// compare makes sure that what is there is what the index names.
func (b *Bundle) compare() error {
	_, sizes, err := b.names()
	if err != nil {
		return err
	}
	for name, size := range sizes {
		have, ok := b.entries[name]
		switch {
		case !ok:
			return broken("%s is missing: it was cut short, or not all was copied; copy it again", name)
		case have.Size() != size:
			return broken("%s has %d bytes, the index says %d", name, have.Size(), size)
		}
	}
	for name := range b.entries {
		if _, known := sizes[name]; !known && name != indexName {
			return broken("it has %.80q, which its index does not name", name)
		}
	}
	return nil
}

const indexName = "bundle.json"

// has reports whether a blob is inside.
func (b *Bundle) has(d blob.Digest) bool { _, ok := b.entries[nameOfBlob(d)]; return ok }

// Blob reads a blob; fs.ErrNotExist: it is not inside. What is read is not
// checked: it may be anything.
func (b *Bundle) Blob(d blob.Digest) (*io.SectionReader, error) { return b.entry(nameOfBlob(d)) }

// entry is a reader of its own of an entry.
func (b *Bundle) entry(name string) (*io.SectionReader, error) {
	e, ok := b.entries[name]
	if !ok {
		return nil, fmt.Errorf("the bundle has no %s: %w", name, fs.ErrNotExist)
	}
	return io.NewSectionReader(e, 0, e.Size()), nil
}

// Document reads one of the metadata's.
func (b *Bundle) Document(name string) ([]byte, error) { return b.small(nameOfTrust(name)) }

// DesiredOf reads the signed desired state of a box.
func (b *Bundle) DesiredOf(box identity.ID) ([]byte, error) { return b.small(nameOfDesired(box)) }

// Envelope reads a signed manifest and checks its digest.
func (b *Bundle) Envelope(i Item) ([]byte, error) {
	data, err := b.small(nameOfBlob(i.Digest))
	if err == nil && blob.Sum(data) != i.Digest {
		err = broken("the manifest of %s is not %s: %w", i, i.Digest.Short(), blob.ErrMismatch)
	}
	return data, err
}

func (b *Bundle) small(name string) ([]byte, error) {
	e, err := b.entry(name)
	if err != nil {
		return nil, err
	}
	if e.Size() > MaxDocumentBytes {
		return nil, broken("%s has %d bytes, at most %d are read", name, e.Size(), MaxDocumentBytes)
	}
	data, err := io.ReadAll(e)
	if err == nil && int64(len(data)) != e.Size() {
		err = broken("%s ends after %d of %d bytes", name, len(data), e.Size())
	}
	return data, err
}
