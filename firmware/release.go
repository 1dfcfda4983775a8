// Package firmware describes releases of the programs that run a box.
//
// Vocabulary: a Release is one signed document about one version of a program;
// a Build is that program for one operating system and architecture, named by
// the digest of its bytes. The identity of a release (in desired state, reports
// and pages) is the digest of its signed envelope.
//
// A release carries two orders. Version is for people and for MinAgent. Counter
// is what protects a box: it grows with every release that is ever signed, and
// a box never goes back below the highest counter it has confirmed.
//
// The one rule a caller can break: act only on a Release that Open returned;
// Decode alone proves the form of the document and not who wrote it.
package firmware

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/mod/semver"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// ReleaseVersion is the shape of Release. History: 1 first.
const ReleaseVersion = 1

// KindAgent is the release kind of edgeherd-agent.
const KindAgent = "agent"

// Bounds of a release; anything larger is a mistake or an attack.
const (
	maxReleaseBytes = 64 << 10
	maxNotesBytes   = 4 << 10
	maxBuilds       = 16
	maxBuildBytes   = 256 << 20
	// maxCounter is the largest integer that every JSON reader keeps exact (2^53-1).
	maxCounter = 1<<53 - 1
)

// Release describes one version of one program. The fields stand in the
// alphabetical order of their keys, which makes the encoding canonical.
type Release struct {
	// Builds is sorted by OS, then Arch; each pair occurs once.
	Builds []Build `json:"builds"`
	// Counter is at least 1 and grows with each release of the kind.
	Counter uint64 `json:"counter"`
	Kind    string `json:"kind"`
	// MinAgent is the oldest agent that may install this release; empty is any.
	MinAgent string `json:"min_agent,omitempty"`
	Notes    string `json:"notes,omitempty"`
	V        int    `json:"v"`
	// Version is a semantic version without a leading v.
	Version string `json:"version"`
}

// Build is the program for one platform, in Go's names (linux, arm64).
type Build struct {
	Arch      string      `json:"arch"`
	Digest    blob.Digest `json:"digest"`
	OS        string      `json:"os"`
	SizeBytes int64       `json:"size_bytes"`
}

func (b Build) platform() string { return b.OS + "/" + b.Arch }

var platformForm = regexp.MustCompile(`^[a-z0-9]{2,16}/[a-z0-9]{2,16}$`)

// For returns the build for a platform, or false.
func (r Release) For(os, arch string) (Build, bool) {
	for _, b := range r.Builds {
		if b.OS == os && b.Arch == arch {
			return b, true
		}
	}
	return Build{}, false
}

// Validate names the first fault of the release.
func (r Release) Validate() error {
	switch {
	case r.V != ReleaseVersion:
		return fmt.Errorf("release has format %d, this program reads %d", r.V, ReleaseVersion)
	case r.Kind != KindAgent:
		return fmt.Errorf("release kind %q, this program knows %q", r.Kind, KindAgent)
	case !ValidVersion(r.Version):
		return fmt.Errorf("release version %q is not a semantic version such as 1.4.0", r.Version)
	case r.MinAgent != "" && !ValidVersion(r.MinAgent):
		return fmt.Errorf("min_agent %q is not a semantic version such as 1.4.0", r.MinAgent)
	case r.Counter == 0 || r.Counter > maxCounter:
		return fmt.Errorf("release counter %d is not between 1 and %d", r.Counter, uint64(maxCounter))
	case len(r.Notes) > maxNotesBytes:
		return fmt.Errorf("release notes have %d bytes, at most %d are allowed", len(r.Notes), maxNotesBytes)
	case len(r.Builds) == 0 || len(r.Builds) > maxBuilds:
		return fmt.Errorf("release has %d builds, want 1 to %d", len(r.Builds), maxBuilds)
	}
	for i, b := range r.Builds {
		switch {
		case !platformForm.MatchString(b.platform()):
			return fmt.Errorf("build platform %q is not like linux/arm64", b.platform())
		case b.Digest.IsZero():
			return fmt.Errorf("build %s has no digest", b.platform())
		case b.SizeBytes < 1 || b.SizeBytes > maxBuildBytes:
			return fmt.Errorf("build %s has %d bytes, want 1 to %d", b.platform(), b.SizeBytes, maxBuildBytes)
		case i > 0 && b.platform() <= r.Builds[i-1].platform():
			return fmt.Errorf("build %s is listed twice or out of order", b.platform())
		}
	}
	return nil
}

// Encode returns the canonical JSON that is signed. It sorts the builds.
func (r Release) Encode() ([]byte, error) {
	r.Builds = slices.Clone(r.Builds)
	slices.SortFunc(r.Builds, func(a, b Build) int { return strings.Compare(a.platform(), b.platform()) })
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r.encode()
}

func (r Release) encode() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		return nil, fmt.Errorf("encode release: %w", err)
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n")), nil
}

var errNotCanonical = errors.New("release is not in canonical form: sign what Encode returns")

// Decode reads a release. It accepts exactly what Encode writes, so that one
// release has one digest: unknown or repeated keys, other orders and white
// space are refused.
func Decode(data []byte) (Release, error) {
	if len(data) > maxReleaseBytes {
		return Release{}, fmt.Errorf("release of %d bytes is longer than %d", len(data), maxReleaseBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var r Release
	if err := dec.Decode(&r); err != nil {
		return Release{}, fmt.Errorf("parse release: %w", err)
	}
	if err := r.Validate(); err != nil {
		return Release{}, err
	}
	again, err := r.encode()
	if err != nil {
		return Release{}, err
	}
	if !bytes.Equal(again, data) {
		return Release{}, errNotCanonical
	}
	return r, nil
}

// Sign returns the envelope of the release and the digest that names it.
func Sign(r Release, key trust.Signer) ([]byte, blob.Digest, error) {
	payload, err := r.Encode()
	if err != nil {
		return nil, blob.Digest{}, err
	}
	envelope, err := trust.Sign(trust.TypeRelease, payload, key)
	if err != nil {
		return nil, blob.Digest{}, fmt.Errorf("sign release: %w", err)
	}
	return envelope, blob.Sum(envelope), nil
}

// Open checks the signature of an envelope and returns the release inside.
func Open(keys trust.Keyring, envelope []byte) (Release, error) {
	payload, err := keys.Open(trust.TypeRelease, envelope)
	if err != nil {
		return Release{}, fmt.Errorf("open release: %w", err)
	}
	return Decode(payload)
}

// OpenListed is Open for an envelope whose digest the fleet's metadata lists; see
// trust.Keyring.OpenListed.
func OpenListed(keys trust.Keyring, envelope []byte) (Release, error) {
	payload, err := keys.OpenListed(trust.TypeRelease, envelope)
	if err != nil {
		return Release{}, fmt.Errorf("open release: %w", err)
	}
	return Decode(payload)
}

// ValidVersion reports whether v is a full semantic version (1.2.3, with an
// optional -pre-release and +build) without a leading v.
func ValidVersion(v string) bool {
	base, _, _ := strings.Cut(v, "+")
	base, _, _ = strings.Cut(base, "-")
	return len(v) <= 64 && strings.Count(base, ".") == 2 && semver.IsValid("v"+v)
}

// CompareVersions orders two versions by semver.org §11: -1, 0 or +1. Build
// metadata does not count; what is no version comes before every version.
func CompareVersions(a, b string) int { return semver.Compare("v"+a, "v"+b) }
