package firmware

import (
	"bytes"
	_ "embed"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
)

func sample() Release {
	return Release{
		V: ReleaseVersion, Kind: KindAgent, Version: "1.4.0", Counter: 17, MinAgent: "1.2.0",
		Notes: "fan curve <fix> & more",
		Builds: []Build{
			{OS: "linux", Arch: "arm64", Digest: blob.Sum([]byte("arm")), SizeBytes: 3},
			{OS: "linux", Arch: "amd64", Digest: blob.Sum([]byte("amd")), SizeBytes: 3},
		},
	}
}

// The bytes of format 1 are fixed: a release signed today must open for ever.
//
//go:embed testdata/release-v1.json
var golden string

func TestReleaseKeepsItsBytes(t *testing.T) {
	got, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != golden {
		t.Errorf("encoded\n%s\nwant\n%s", got, golden)
	}
	r, err := Decode(got)
	if err != nil {
		t.Fatal(err)
	}
	if b, ok := r.For("linux", "arm64"); !ok || b.Digest != blob.Sum([]byte("arm")) {
		t.Errorf("For(linux, arm64) = %v, %v", b, ok)
	}
	if _, ok := r.For("plan9", "mips"); ok {
		t.Error("a build for plan9/mips appeared")
	}
}

func TestDecodeRefusesWhatEncodeNeverWrites(t *testing.T) {
	edit := func(from, to string) string {
		out := strings.Replace(golden, from, to, 1)
		if out == golden {
			t.Fatalf("edit %q changed nothing", from)
		}
		return out
	}
	for name, doc := range map[string]string{
		"empty":             "",
		"no object":         "[]",
		"newer format":      edit(`"v":1`, `"v":2`),
		"other kind":        edit(`"agent"`, `"bios"`),
		"unknown key":       edit(`"v":1`, `"sneak":1,"v":1`),
		"repeated key":      edit(`"v":1`, `"v":1,"v":1`),
		"white space":       edit(`"v":1`, `"v": 1`),
		"bytes behind":      golden + "{}",
		"key in other case": edit(`"kind"`, `"Kind"`),
		"version with v":    edit(`"1.4.0"`, `"v1.4.0"`),
		"short version":     edit(`"1.4.0"`, `"1.4"`),
		"no version":        edit(`"1.4.0"`, `""`),
		"bad min_agent":     edit(`"1.2.0"`, `"old"`),
		"counter zero":      edit(`:17`, `:0`),
		"counter inexact":   edit(`:17`, `:9007199254740992`),
		"negative counter":  edit(`:17`, `:-1`),
		"zero size":         edit(`"size_bytes":3`, `"size_bytes":0`),
		"huge size":         edit(`"size_bytes":3`, `"size_bytes":999999999999`),
		"no digest":         edit(`sha256:240389f4b730bad41f218a56c250ee7d82f42297ce7b9d0b6eb4f1cb3282c480`, ``),
		"upper case digest": edit(`389f4b`, `389F4B`),
		"same platform":     edit(`"arm64"`, `"amd64"`),
		"path as platform":  edit(`"arm64"`, `"../../x"`),
		"out of order":      edit(`"amd64"`, `"zzz"`),
		"too long":          edit(`fan curve`, strings.Repeat("x", maxNotesBytes)),
	} {
		t.Run(name, func(t *testing.T) {
			r, err := Decode([]byte(doc))
			if err == nil {
				t.Fatalf("accepted %s", doc)
			}
			if !reflect.DeepEqual(r, Release{}) {
				t.Errorf("error came with a value: %+v", r)
			}
		})
	}
}

func TestOnlyTrustedReleasesOpen(t *testing.T) {
	ours, theirs := newKey(t), newKey(t)
	envelope, digest, err := Sign(sample(), ours)
	if err != nil {
		t.Fatal(err)
	}
	if digest != blob.Sum(envelope) {
		t.Error("a release is not named by the digest of its envelope")
	}
	if _, err := Open(trust.DevelopmentKeyring(ours.Public()), envelope); err != nil {
		t.Errorf("own release: %v", err)
	}
	if _, err := Open(trust.DevelopmentKeyring(theirs.Public()), envelope); !errors.Is(err, trust.ErrUntrusted) {
		t.Errorf("foreign release: %v, want ErrUntrusted", err)
	}
	model, err := trust.Sign(trust.TypeModel, []byte(golden), ours)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(trust.DevelopmentKeyring(ours.Public()), model); err == nil {
		t.Error("a release signed as a model opened")
	}
}

func newKey(t *testing.T) trust.PrivateKey {
	t.Helper()
	k, err := trust.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestVersionsAreOrderedLikeSemver(t *testing.T) {
	order := []string{"garbage", "0.0.0-dev", "0.9.0", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-rc.2", "1.0.0-rc.11", "1.0.0", "1.2.0", "1.10.0", "2.0.0"}
	for i, a := range order {
		for j, b := range order {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			if got := CompareVersions(a, b); got != want {
				t.Errorf("CompareVersions(%q, %q) = %d, want %d", a, b, got, want)
			}
		}
	}
	if CompareVersions("1.0.0+a", "1.0.0+b") != 0 {
		t.Error("build metadata orders versions")
	}
	for _, bad := range []string{"", "1", "1.2", "v1.2.3", "1.2.3.4", "01.2.3", "1.2.3-", "1.2.3 ", "1.2.3-" + strings.Repeat("a", 64)} {
		if ValidVersion(bad) {
			t.Errorf("%q is taken for a version", bad)
		}
	}
}

func FuzzDecodeRelease(f *testing.F) {
	f.Add([]byte(golden))
	f.Add([]byte(`{"builds":[],"counter":1,"kind":"agent","v":1,"version":"1.0.0"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			if !reflect.DeepEqual(r, Release{}) {
				t.Fatalf("error %v came with a value", err)
			}
			return
		}
		again, err := r.Encode()
		if err != nil {
			t.Fatalf("decoded but does not encode: %v", err)
		}
		if !bytes.Equal(again, data) {
			t.Fatalf("decoded %q, encodes %q", data, again)
		}
	})
}
