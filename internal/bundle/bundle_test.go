package bundle

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
)

const envelope, weights = "an envelope", "some weights"

// sample is a bundle with one model.
func sample() (Index, Source) {
	box := identity.ID("d-aaaaaaaaaaaaa")
	x := Index{V: Version, Made: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Site: "mitte",
		Models: []Item{{Name: "eye", Version: "1.0.0", Digest: blob.Sum([]byte(envelope))}},
		Trust:  []Entry{{Name: "1.root.json", SizeBytes: 2}}, Desired: []Desired{{Box: box, SizeBytes: 3}},
		Blobs: []Blob{{blob.Sum([]byte(envelope)), int64(len(envelope))}, {blob.Sum([]byte(weights)), int64(len(weights))}},
	}
	return x, Source{
		Trust: map[string][]byte{"1.root.json": []byte("{}")}, Desired: map[identity.ID][]byte{box: []byte("say")},
		Blob: func(_ context.Context, d blob.Digest) (io.ReadCloser, error) {
			for _, text := range []string{envelope, weights} {
				if blob.Sum([]byte(text)) == d {
					return io.NopCloser(strings.NewReader(text)), nil
				}
			}
			return nil, fs.ErrNotExist
		},
	}
}

func tarOf(t testing.TB) []byte {
	t.Helper()
	x, src := sample()
	var buf bytes.Buffer
	if err := WriteTar(t.Context(), &buf, x, src); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func open(t testing.TB, data []byte) (*Bundle, error) {
	path := filepath.Join(t.TempDir(), "b.tar")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := Open(path)
	if err == nil {
		t.Cleanup(func() { b.Close() })
	}
	return b, err
}

// A tar and a folder give back what was put in, and answer as the controller does.
func TestBothFormsGiveBackWhatWasPutIn(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFolder(dir, bytes.NewReader(tarOf(t))); err != nil {
		t.Fatal(err)
	}
	folder, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer folder.Close()
	file, err := open(t, tarOf(t))
	if err != nil {
		t.Fatal(err)
	}
	d := blob.Sum([]byte(weights)).Hex()
	for _, b := range []*Bundle{folder, file} {
		env, err := b.Envelope(b.Models[0])
		say, err2 := b.DesiredOf("d-aaaaaaaaaaaaa")
		if string(env) != envelope || string(say) != "say" || errors.Join(err, err2) != nil {
			t.Fatalf("%q %q %v %v", env, say, err, err2)
		}
		for _, ask := range []struct{ path, span, want string }{
			{"trust/1.root.json", "", "200 {}"}, {"trust/timestamp.json", "", "404 "}, {"blobs/" + d, "", "200 " + weights},
			{"blobs/" + d, "bytes=5-8", "206 weig"}, {"blobs/" + d, "bytes=9-", "206 hts"}, {"blobs/" + d, "bytes=99-", "416 "},
			{"blobs/" + strings.Repeat("0", 64), "", "404 "}, {"blobs/../bundle.json", "", "404 "}, {"blobs/" + d + "/ways", "", `200 {"packs":[]}`},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://ctl/device/v1/"+ask.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Range", ask.span)
			resp, err := b.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			if got := resp.Status[:4] + string(body); got != ask.want {
				t.Errorf("%s %s: %q, want %q", ask.path, ask.span, got, ask.want)
			}
		}
	}
}

// What a stick has in the place of files holds nobody up, and fills no memory.
func TestAStickThatWantsToHarmIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := WriteFolder(dir, bytes.NewReader(tarOf(t))); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "trust", "1.root.json"), filepath.Join(t.TempDir(), "b.tar")} {
		if err := errors.Join(os.RemoveAll(path), syscall.Mkfifo(path, 0o600)); err != nil {
			t.Fatal(err)
		}
		at := path
		if filepath.Base(path) != "b.tar" {
			at = dir
		}
		if _, err := Open(at); !errors.Is(err, ErrBroken) {
			t.Errorf("a pipe at %s: %v", path, err)
		}
	}
	index := `{"v":1,"packs":[` + strings.Repeat("{},", 1<<19) + `{}]}`
	if _, err := readIndex(strings.NewReader(index), int64(len(index))); !errors.Is(err, ErrBroken) {
		t.Errorf("an index of empty entries: %v", err)
	}
}

// Who unpacked a bundle and packed it again with tar has one.
func TestABundleThatTarPackedAgainIsTaken(t *testing.T) {
	dir := t.TempDir()
	x, _ := sample()
	if err := WriteFolder(dir, bytes.NewReader(tarOf(t))); err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "again.tar")
	if out, err := exec.Command("tar", "-C", dir, "-cf", again, "--sort=name", ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	b, err := Open(again)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if len(b.Models) != len(x.Models) {
		t.Errorf("it has %v, want %v", b.Models, x.Models)
	}
}

// What is not whole, or has what no bundle has, is refused by its name.
func TestABadBundleIsRefusedByName(t *testing.T) {
	good := tarOf(t)
	heads := func(change func(*tar.Header) *tar.Header, extra ...*tar.Header) []byte {
		var buf bytes.Buffer
		w, r := tar.NewWriter(&buf), tar.NewReader(bytes.NewReader(good))
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if h = change(h); h == nil {
				continue
			}
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			io.Copy(w, r)
		}
		for _, h := range extra {
			if err := w.WriteHeader(h); err != nil {
				t.Fatal(err)
			}
			w.Write(make([]byte, h.Size))
		}
		w.Close()
		return buf.Bytes()
	}
	same := func(h *tar.Header) *tar.Header { return h }
	rename := func(to string) func(*tar.Header) *tar.Header {
		return func(h *tar.Header) *tar.Header {
			if strings.HasPrefix(h.Name, "trust/") {
				h.Name = to
			}
			return h
		}
	}
	for name, tc := range map[string]struct {
		data []byte
		why  string
	}{
		"empty":               {nil, "no bundle.json"},
		"no tar":              {bytes.Repeat([]byte("x"), 2000), "entry 1: archive/tar: invalid tar header; copy it again"},
		"packed with gzip":    {[]byte("\x1f\x8b\x08\x00\x00\x00\x00"), "unpack it first: gunzip -k "},
		"packed with zstd":    {[]byte("\x28\xb5\x2f\xfd"), "unpack it first: unzstd "},
		"packed as a zip":     {[]byte("PK\x03\x04\x14\x00"), "unpack it first: unzip "},
		"shorter than a mark": {[]byte("P"), "copy it again"},
		"cut in a file":       {good[:len(good)-1024-505], "cut short"},
		"cut between files":   {good[:2048], "cut short"},
		"out of the folder":   {heads(rename("../../etc/passwd")), "../../etc/passwd"},
		"absolute":            {heads(rename("/etc/passwd")), "/etc/passwd"},
		"below its folder":    {heads(rename("trust/../../x")), "trust/../../x"},
		"a link":              {heads(same, &tar.Header{Name: "trust/2.root.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/shadow"}), "not a file"},
		"a hard link":         {heads(same, &tar.Header{Name: "trust/2.root.json", Typeflag: tar.TypeLink, Linkname: "bundle.json"}), "not a file"},
		"a device":            {heads(same, &tar.Header{Name: "trust/2.root.json", Typeflag: tar.TypeChar}), "not a file"},
		"more than the index": {heads(same, &tar.Header{Name: "trust/2.root.json", Size: 3}), "does not name"},
		"twice":               {heads(same, &tar.Header{Name: "trust/1.root.json", Size: 2}), "twice"},
		"less than the index": {heads(func(h *tar.Header) *tar.Header {
			if strings.HasPrefix(h.Name, "trust/") {
				return nil
			}
			return h
		}), "trust/1.root.json is missing"},
		"another first": {heads(func(h *tar.Header) *tar.Header {
			if h.Name == indexName {
				return nil
			}
			return h
		}), "no bundle"},
		"a newer shape":              {bytes.Replace(good, []byte(`"v": 1`), []byte(`"v": 9`), 1), "version 9"},
		"an index of another length": {bytes.Replace(good, []byte(`"size_bytes": 12`), []byte(`"size_bytes": 99`), 1), "the index says 99"},
		"a name that is no role":     {bytes.Replace(good, []byte(`"1.root.json"`), []byte(`"../.a.json "`), 1), "none of the fleet's metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := open(t, tc.data)
			if err == nil || !strings.Contains(err.Error(), tc.why) {
				t.Errorf("%v, want %q", err, tc.why)
			}
		})
	}
}

// A folder is written from what arrives, and none looks whole that is not.
func TestAFolderThatIsNotWholeHasNoIndex(t *testing.T) {
	good := tarOf(t)
	for name, tc := range map[string]struct {
		data []byte
		why  string
	}{
		"cut short":      {good[:len(good)-1600], "unexpected EOF"},
		"a changed byte": {bytes.Replace(good, []byte(weights), []byte("some weightZ"), 1), "does not match its digest"},
		"out of it":      {bytes.Replace(good, []byte("trust/1.root.json"), []byte("trust/../../../x\x00"), 1), "invalid tar header"},
		"nothing":        {nil, "no bundle.json"},
	} {
		dir := t.TempDir()
		if err := WriteFolder(dir, bytes.NewReader(good)); err != nil {
			t.Fatal(err)
		}
		err := WriteFolder(dir, bytes.NewReader(tc.data))
		if err == nil || !strings.Contains(err.Error(), tc.why) {
			t.Errorf("%s: %v, want %q", name, err, tc.why)
		}
		if _, err := os.Stat(filepath.Join(dir, indexName)); err == nil && tc.data != nil {
			t.Errorf("%s: the folder has an index", name)
		}
	}
}

// Contents are believed only as their digests.
func TestWhatIsWrittenIsWhatItsDigestSays(t *testing.T) {
	x, src := sample()
	src.Blob = func(context.Context, blob.Digest) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader("some weightZ")), nil
	}
	if err := WriteTar(t.Context(), io.Discard, x, src); err == nil {
		t.Error("a wrong file left the house")
	}
	b, err := open(t, bytes.Replace(tarOf(t), []byte(envelope), []byte("An envelope"), 1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Envelope(b.Models[0]); !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("a changed manifest: %v", err)
	}
	dir := t.TempDir()
	if err := WriteFolder(dir, bytes.NewReader(tarOf(t))); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "trust", "1.root.json")
	if os.Remove(link) != nil || os.Symlink("/etc/hostname", link) != nil {
		t.Fatal("no link")
	}
	if _, err := Open(dir); err == nil {
		t.Error("a link out of the folder was followed")
	}
}

// Whatever a stick has: what opens is whole by its index, inside of the file, and
// reads as long as it says.
func FuzzReadTar(f *testing.F) {
	f.Add(tarOf(f))
	f.Add(tarOf(f)[:1700])
	f.Fuzz(func(t *testing.T, data []byte) {
		b := &Bundle{entries: map[string]*io.SectionReader{}}
		if err := b.readTar(bytes.NewReader(data), int64(len(data))); err != nil {
			return
		}
		names, sizes, err := b.names()
		if err != nil || len(b.entries) != len(names)+1 {
			t.Fatalf("%d entries of %d names, %v", len(b.entries), len(names), err)
		}
		for _, name := range names {
			e, err := b.entry(name)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, e); n != sizes[name] || err != nil {
				t.Fatalf("%s has %d of %d bytes, %v", name, n, sizes[name], err)
			}
		}
	})
}
