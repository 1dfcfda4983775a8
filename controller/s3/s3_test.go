package s3_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/controller/s3"
	"github.com/edgeherd/edgeherd/controller/s3/s3test"
	"github.com/edgeherd/edgeherd/internal/blob"
)

func open(t *testing.T, s *s3test.Server, change func(*s3.Options)) *s3.Bucket {
	t.Helper()
	o := s3.Options{Endpoint: s.URL, Bucket: s3test.Bucket, Prefix: "eh", AccessKey: s3test.Key, SecretFile: s.SecretFile(s3test.Secret), Limit: 5 * time.Second}
	if change != nil {
		change(&o)
	}
	b, err := s3.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A store with a bucket behind it is one store: what was put comes back though the
// directory has lost it, also after the bucket was away.
func TestABucketStandsBehindTheDirectory(t *testing.T) {
	server := s3test.Start(t)
	bucket := open(t, server, nil)
	local, err := blob.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	store := local.Backed(bucket)
	data := bytes.Repeat([]byte("weights "), 1<<17) // 1 MiB
	d := blob.Sum(data)
	if err := store.Put(bytes.NewReader(data), blob.Sum([]byte("other"))); !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("wrong bytes: %v", err)
	}
	if _, err := os.Stat(filepath.Join(server.Dir, s3test.Bucket, "eh", "sha256", blob.Sum([]byte("other")).Hex())); err == nil {
		t.Error("what was not verified reached the bucket")
	}
	if err := store.Put(bytes.NewReader(data), d); err != nil {
		t.Fatal(err)
	}
	if err := store.Trim(0); err != nil || local.Has(d) {
		t.Fatalf("the directory keeps what the bucket has: %v", err)
	}
	if n, err := store.Size(d); n != int64(len(data)) || err != nil {
		t.Errorf("size %d, %v", n, err)
	}
	r, err := store.Stream(d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.Seek(8, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	word := make([]byte, 7)
	if _, err := io.ReadFull(r, word); string(word) != "weights" || err != nil || local.Has(d) {
		t.Errorf("streamed %q, %v", word, err)
	}
	r.Close()
	u, life, err := bucket.URL(t.Context(), d)
	if err != nil || life <= 0 {
		t.Fatal(err)
	}
	for _, ask := range []struct {
		url, want string
		status    int
	}{{u, "ghts w", http.StatusPartialContent}, {strings.Replace(u, "Signature=", "Signature=0", 1), "", http.StatusForbidden}, {strings.SplitN(u, "?", 2)[0], "", http.StatusForbidden}} {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, ask.url, nil)
		req.Header.Set("Range", "bytes=3-8")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != ask.status || ask.want != "" && string(body) != ask.want {
			t.Errorf("presigned: %s %q, want %d %q", resp.Status, body, ask.status, ask.want)
		}
	}
	server.Down()
	if _, err := store.Get(d); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a bucket that is away does not have the blob: %v", err)
	} else if strings.Contains(err.Error(), "Signature") {
		t.Errorf("a signature in an error: %v", err)
	}
	server.Up()
	f, err := store.Get(d)
	if err != nil || !local.Has(d) {
		t.Fatalf("it is back: %v", err)
	}
	f.Close()
	spoilt := filepath.Join(server.Dir, s3test.Bucket, "eh", "sha256", d.Hex())
	if err := os.WriteFile(spoilt, append([]byte("W"), data[1:]...), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Verify(d); !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("a spoilt object: %v", err)
	}
	if err := local.Delete(d); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Get(d); !errors.Is(err, blob.ErrMismatch) || local.Has(d) {
		t.Errorf("a spoilt object was believed: %v", err)
	}
	if err := store.Delete(d); err != nil || store.Has(d) {
		t.Errorf("deleted: %v", err)
	}
}

// What is wrong with the settings is said with the way out, and without secrets.
func TestEachWrongSettingHasItsSentence(t *testing.T) {
	server := s3test.Start(t)
	for _, tc := range []struct {
		name, want string
		change     func(*s3.Options)
	}{
		{"all well", "", nil},
		{"no server", "does not answer", func(o *s3.Options) { o.Endpoint = "http://127.0.0.1:1" }},
		{"no bucket", "make the bucket", func(o *s3.Options) { o.Bucket = "nothing" }},
		{"a key that is not known", "settings s3", func(o *s3.Options) { o.AccessKey = "STRANGER" }},
		{"a wrong secret", "s3.", func(o *s3.Options) { o.SecretFile = server.SecretFile("wrong") }},
		{"a clock apart", "set the clocks", func(o *s3.Options) {
			o.WallClock = func() time.Time { return time.Now().Add(time.Hour) }
		}},
		{"boxes that reach nothing", "s3.boxes", func(o *s3.Options) { o.Boxes = "http://127.0.0.1:1" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var said []string
			for _, f := range open(t, server, tc.change).Check(t.Context()) {
				if f.Way != "" {
					said = append(said, f.Check+": "+f.Found+"; "+f.Way)
				}
			}
			text := strings.Join(said, "\n")
			if tc.want == "" && text != "" || !strings.Contains(text, tc.want) {
				t.Errorf("said %q, want %q", text, tc.want)
			}
			if strings.Contains(text, s3test.Secret) || strings.Contains(text, "X-Amz") {
				t.Errorf("a secret is said: %q", text)
			}
		})
	}
	for _, o := range []s3.Options{{Endpoint: "nowhere", Bucket: "b"}, {Endpoint: server.URL}, {Endpoint: server.URL, Bucket: "b", AccessKey: "k"}, {Endpoint: server.URL, Bucket: "b", CA: "/dev/null"}} {
		if _, err := s3.New(o); err == nil || !strings.Contains(err.Error(), "s3") {
			t.Errorf("%+v: %v", o, err)
		}
	}
}
