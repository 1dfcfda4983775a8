package main

import (
	"fmt"
	"slices"
	"testing"
)

// The suite's implicit_refresh.
func TestADownloadRefreshesFirst(t *testing.T) {
	w := newWorld(t)
	w.check(w.download("none"), "not list", "root 2, timestamp, snapshot 1, targets 1")
	if got := w.trusted(); got != "1 1 1 1" || len(w.fetched) > 0 {
		t.Errorf("trusted are %s, fetched %v", got, w.fetched)
	}
}

// The suite's repository_substitutes_target_file.
func TestWhatIsServedInsteadOfATargetIsNotKept(t *testing.T) {
	for name, other := range map[string]string{
		"of its length": "malice!", "longer": "much malice, and more of it", "shorter": "evil", "empty": "",
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.list("targets", "one", "content")
			w.list("targets", "two", "context")
			w.publish("targets", "snapshot", "timestamp")
			if err := w.download("one"); err != nil {
				t.Fatal(err)
			}
			for path, a := range w.artifacts {
				w.artifacts[path] = artifact{[]byte(other), a.hashes}
			}
			if err := w.download("one"); err != nil || len(w.fetched) > 0 {
				t.Errorf("what is here: %v, fetched %v", err, w.fetched)
			}
			if err := w.download("two"); err == nil || len(w.fetched) != 1 {
				t.Errorf("got %v, fetched %v", err, w.fetched)
			}
			if got := w.downloaded(); !slices.Equal(got, []string{"content"}) {
				t.Errorf("downloaded %q", got)
			}
		})
	}
}

// The suite's multiple_changes_to_target.
func TestATargetThatChangesIsFetchedAnewUnderTheSameName(t *testing.T) {
	w := newWorld(t)
	others := []string{}
	for i := range 11 {
		content, other := fmt.Sprint("content ", i), fmt.Sprint("other ", i)
		w.list("targets", "file", content)
		w.list("targets", fmt.Sprint("other-", i), other)
		w.publish("targets", "snapshot", "timestamp")
		if i%5 > 0 {
			continue // the client does not see every version
		}
		for _, name := range []string{"file", fmt.Sprint("other-", i)} {
			if err := w.download(name); err != nil {
				t.Fatal(err)
			}
		}
		others = append(others, other)
		w.artifacts["file"] = artifact{[]byte("malice"), w.artifacts["file"].hashes}
		w.publish("targets", "snapshot", "timestamp")
		if err := w.download("file"); err != nil || len(w.fetched) > 0 {
			t.Errorf("got %v, fetched %v", err, w.fetched)
		}
		want := append([]string{content}, others...)
		slices.Sort(want)
		if got := w.downloaded(); !slices.Equal(got, want) {
			t.Errorf("downloaded %q, want %q", got, want)
		}
	}
}

// The suite's download_with_hash_algorithms and _unknown_hash_algorithm.
func TestEveryHashOfATargetMustBeKnownAndRight(t *testing.T) {
	for name, tt := range map[string]struct {
		algorithms []string
		wrong      string
		good       bool
	}{
		"sha256":                  {[]string{"sha256"}, "", true},
		"sha512":                  {[]string{"sha512"}, "", true},
		"both":                    {[]string{"sha256", "sha512"}, "", true},
		"both, the second wrong":  {[]string{"sha256", "sha512"}, "sha512", false},
		"one that nobody knows":   {[]string{"unknown"}, "", false},
		"one of two nobody knows": {[]string{"sha256", "unknown"}, "", false},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.list("targets", "file", "content", tt.algorithms...)
			if tt.wrong != "" {
				w.at("targets", "targets", "file", "hashes")[tt.wrong] = sumOf(tt.wrong, nil)
			}
			w.publish("targets", "snapshot", "timestamp")
			want := []string{"content"}
			if !tt.good {
				want = []string{}
			}
			if err := w.download("file"); (err == nil) != tt.good || len(w.fetched) > 1 {
				t.Errorf("got %v, fetched %v", err, w.fetched)
			}
			if got := w.downloaded(); !slices.Equal(got, want) {
				t.Errorf("downloaded %q, want %q", got, want)
			}
		})
	}
}
