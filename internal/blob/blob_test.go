package blob

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
)

func open(t *testing.T) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "blobs"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// staged counts the files on their way in.
func staged(t *testing.T, s *Store) int {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(s.Dir(), "stage"))
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestDigestHasOneText(t *testing.T) {
	d := Sum([]byte("abc"))
	const text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	if d.String() != text || d.Hex() != text[7:] || d.Short() != text[7:19] {
		t.Errorf("got %s, %s, %s", d, d.Hex(), d.Short())
	}
	for _, bad := range []string{"", "sha256:", text[7:], "SHA256:" + text[7:], strings.ToUpper(text), "sha256:" + strings.ToUpper(text[7:]), text + "0", text[:len(text)-1], "sha256:" + strings.Repeat("g", 64)} {
		if got, err := ParseDigest(bad); err == nil || !got.IsZero() {
			t.Errorf("%q parsed as %s, %v", bad, got, err)
		}
	}
	if got, err := ParseDigest(text); err != nil || got != d {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestZeroDigestIsEmptyText(t *testing.T) {
	type doc struct{ D Digest }
	data, err := json.Marshal(doc{})
	if err != nil || string(data) != `{"D":""}` {
		t.Errorf("encoded %s, %v", data, err)
	}
	got := doc{Sum(nil)}
	if err := json.Unmarshal(data, &got); err != nil || !got.D.IsZero() || got.D.Short() != "none" {
		t.Errorf("decoded %v, %v", got, err)
	}
}

func TestOnlyRightBytesGetTheName(t *testing.T) {
	s := open(t)
	data := []byte("weights")
	d := Sum(data)
	if err := s.Put(strings.NewReader("other"), d); !errors.Is(err, ErrMismatch) || s.Has(d) {
		t.Errorf("wrong content: %v, present %v", err, s.Has(d))
	}
	broken := errors.New("link broke")
	if err := s.Put(io.MultiReader(bytes.NewReader(data[:3]), iotest.ErrReader(broken)), d); !errors.Is(err, broken) || s.Has(d) {
		t.Errorf("broken reader: %v, present %v", err, s.Has(d))
	}
	for range 2 { // the second changes nothing
		if err := s.Put(bytes.NewReader(data), d); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.ReadAll(d, 7); err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %q, %v", got, err)
	}
	if n := staged(t, s); n != 0 {
		t.Errorf("%d files are left on stage", n)
	}
	if fi, err := os.Stat(s.Path(d)); err != nil || fi.Mode().Perm() != 0o444 {
		t.Errorf("mode %v, %v, want 0444", fi.Mode(), err)
	}
}

func TestAdoptReadsBackWhatIsOnDisk(t *testing.T) {
	s := open(t)
	data := []byte("weights")
	d := Sum(data)
	path := s.StagePath(d)
	if err := s.Adopt(path, d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing staged: %v", err)
	}
	if err := os.WriteFile(path, []byte("weighta"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(path, d); !errors.Is(err, ErrMismatch) || s.Has(d) || staged(t, s) != 1 {
		t.Errorf("wrong content: %v, present %v, %d staged", err, s.Has(d), staged(t, s))
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Adopt(path, d); err != nil || !s.Has(d) || staged(t, s) != 0 {
		t.Errorf("right content: %v, present %v, %d staged", err, s.Has(d), staged(t, s))
	}
}

func TestManyWritersOfOneBlobAgree(t *testing.T) {
	s := open(t)
	data := bytes.Repeat([]byte("x"), 100_000)
	d := Sum(data)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := s.Put(bytes.NewReader(data), d); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n, err := s.Size(d); err != nil || n != 100_000 || staged(t, s) != 0 {
		t.Errorf("size %d, %v, %d staged", n, err, staged(t, s))
	}
}

func TestListDeleteAndUnstage(t *testing.T) {
	s := open(t)
	var want []string
	for _, text := range []string{"a", "b", "c"} {
		if err := s.Put(strings.NewReader(text), Sum([]byte(text))); err != nil {
			t.Fatal(err)
		}
		want = append(want, Sum([]byte(text)).String())
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "sha256", "README"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range list {
		got = append(got, d.String())
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	for range 2 { // the second finds nothing
		if err := s.Delete(list[0]); err != nil || s.Has(list[0]) {
			t.Errorf("delete: %v, present %v", err, s.Has(list[0]))
		}
		if err := s.Unstage(list[0]); err != nil {
			t.Errorf("unstage: %v", err)
		}
	}
	if err := os.WriteFile(s.StagePath(list[1]), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Unstage(list[1]); err != nil || staged(t, s) != 0 {
		t.Errorf("unstage: %v, %d staged", err, staged(t, s))
	}
	if _, err := s.Size(list[0]); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("size of a deleted blob: %v", err)
	}
}

func TestADamagedBlobGoesWhereADownloadGoesOnWithIt(t *testing.T) {
	s := open(t)
	d := Sum([]byte("abc"))
	if err := s.Restage(d); err != nil {
		t.Errorf("a blob that is not there: %v", err)
	}
	if err := os.WriteFile(s.Path(d), []byte("axc"), 0o444); err != nil {
		t.Fatal(err)
	}
	if err := s.Restage(d); err != nil || s.Has(d) {
		t.Errorf("%v, still there: %v", err, s.Has(d))
	}
	fi, err := os.Stat(s.StagePath(d))
	if err != nil || fi.Mode().Perm() != 0o644 || fi.Size() != 3 {
		t.Errorf("on the stage: %v, %v", fi, err)
	}
	if err := os.Symlink("/proc/self/mem", s.Path(d)); err != nil {
		t.Fatal(err)
	}
	if err := s.Restage(d); err != nil || s.Has(d) {
		t.Errorf("what is no file: %v, still there: %v", err, s.Has(d))
	}
}

func TestReadAllIsBounded(t *testing.T) {
	s := open(t)
	d := Sum([]byte("12345"))
	if err := s.Put(strings.NewReader("12345"), d); err != nil {
		t.Fatal(err)
	}
	if _, err := s.ReadAll(d, 4); err == nil || !strings.Contains(err.Error(), "longer than 4 bytes") {
		t.Errorf("got %v, want a bound", err)
	}
}

// What parses prints the same text, and an error returns no digest.
func FuzzParseDigest(f *testing.F) {
	f.Add(Sum(nil).String())
	f.Add("sha256:")
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDigest(s)
		if err != nil {
			if !d.IsZero() {
				t.Fatalf("error with a value %s", d)
			}
			return
		}
		if d.String() != s && !d.IsZero() {
			t.Fatalf("%q prints as %q", s, d)
		}
	})
}
