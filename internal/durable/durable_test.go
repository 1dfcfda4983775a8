package durable

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// names lists a directory, so that a test sees temporary files left behind.
func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return strings.Join(out, " ")
}

func TestWriteFileReplacesContentAndMode(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	for i, content := range []string{"one", "", "three"} {
		if err := WriteFile(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != content {
			t.Errorf("write %d: read %q, %v, want %q", i, got, err, content)
		}
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o640 {
		t.Errorf("mode %v, %v, want 0640 whatever the umask", fi.Mode(), err)
	}
	if got := names(t, dir); got != "state" {
		t.Errorf("directory holds %q, want the state only", got)
	}
}

func TestFailedWriteLeavesTheOldContentAndNoRest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "state")
	if err := os.Mkdir(path, 0o755); err != nil { // rename onto it fails
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Fatal("no error")
	}
	if got := names(t, dir); got != "state" {
		t.Errorf("directory holds %q, want no temporary file", got)
	}
	if err := WriteFile(filepath.Join(dir, "none", "state"), nil, 0o600); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in a missing directory: %v", err)
	}
}

func TestReadersSeeOneOfTheWrittenValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	value := func(i int) string { return strings.Repeat(fmt.Sprint(i%10), 10_000+i) }
	if err := WriteFile(path, []byte(value(0)), 0o600); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		defer close(stop)
		for i := range 50 {
			if err := WriteFile(path, []byte(value(i)), 0o600); err != nil {
				t.Error(err)
			}
		}
	})
	for done := false; !done; {
		select {
		case <-stop:
			done = true
		default:
		}
		got, err := os.ReadFile(path)
		if err != nil || len(got) < 10_000 || string(got) != value(len(got)-10_000) {
			t.Fatalf("read a mixture of %d bytes, %v", len(got), err)
		}
	}
	wg.Wait()
}

func TestRemoveOfNothingIsFine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state")
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if err := WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("still there: %v", err)
	}
}

func TestMkdirAllMakesParents(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	for range 2 {
		if err := MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if fi, err := os.Stat(dir); err != nil || !fi.IsDir() {
		t.Errorf("%v, %v", fi, err)
	}
}

type sample struct {
	Count int    `json:"count"`
	Text  string `json:"text"`
}

func TestJournalComesBackAsItWasSaved(t *testing.T) {
	j := Journal{Path: filepath.Join(t.TempDir(), "j.json"), Version: 3}
	var got sample
	if found, err := j.Load(&got); found || err != nil {
		t.Errorf("a journal that does not exist: %v, %v", found, err)
	}
	want := sample{7, "ä<b>"}
	if err := j.Save(want); err != nil {
		t.Fatal(err)
	}
	if found, err := j.Load(&got); !found || err != nil || got != want {
		t.Errorf("loaded %+v, %v, %v, want %+v", got, found, err, want)
	}
}

func TestJournalOfAnotherVersionOrDamagedIsAnError(t *testing.T) {
	j := Journal{Path: filepath.Join(t.TempDir(), "j.json"), Version: 3}
	for content, want := range map[string]string{
		"":                               "parse journal",
		"\x00\x00\x00":                   "parse journal",
		`{"version":4,"state":{}}`:       "has version 4, this program reads 3",
		`{"version":3,"state":[]}`:       "parse journal",
		`{"version":3,"state":{"count":`: "parse journal",
	} {
		if err := os.WriteFile(j.Path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		got := sample{Count: 1}
		if found, err := j.Load(&got); found || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: found %v, error %v, want one with %q", content, found, err, want)
		}
	}
}

func TestOnSaveRunsAfterTheValueIsOnDisk(t *testing.T) {
	j := Journal{Path: filepath.Join(t.TempDir(), "j.json"), Version: 1}
	boom := errors.New("power cut")
	j.OnSave = func() error {
		var got sample
		if found, err := j.Load(&got); !found || err != nil || got.Count != 5 {
			t.Errorf("in OnSave: %+v, %v, %v", got, found, err)
		}
		return boom
	}
	if err := j.Save(sample{Count: 5}); !errors.Is(err, boom) {
		t.Errorf("got %v, want OnSave's error", err)
	}
}

func TestJournalWithoutAVersionPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	_ = Journal{Path: filepath.Join(t.TempDir(), "j.json")}.Save(sample{})
}
