package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// key signs. Its id is the hash of its public part, unless a test changes it.
type key struct {
	id     string
	public body
	sign   func(message []byte) []byte
}

var rsaKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// newKey makes a key of a kind: ed25519, ecdsa, ecdsa-p384 or rsa.
func newKey(t *testing.T, kind string) *key {
	t.Helper()
	k := &key{}
	var signer crypto.Signer
	var err error
	keytype, scheme := "ecdsa", "ecdsa-sha2-nistp256"
	hashed := func(m []byte) ([]byte, crypto.SignerOpts) {
		sum := sha256.Sum256(m)
		return sum[:], crypto.SHA256
	}
	switch kind {
	case "ed25519":
		keytype, scheme = kind, kind
		_, signer, err = ed25519.GenerateKey(rand.Reader)
		hashed = func(m []byte) ([]byte, crypto.SignerOpts) { return m, crypto.Hash(0) }
	case "ecdsa":
		signer, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-p384":
		scheme = "ecdsa-sha2-nistp384"
		signer, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
		hashed = func(m []byte) ([]byte, crypto.SignerOpts) {
			sum := sha512.Sum384(m)
			return sum[:], crypto.SHA384
		}
	case "rsa":
		keytype, scheme = kind, "rsassa-pss-sha256"
		signer, err = rsaKey()
		hashed = func(m []byte) ([]byte, crypto.SignerOpts) {
			sum := sha256.Sum256(m)
			return sum[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: crypto.SHA256}
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	k.sign = func(m []byte) []byte {
		digest, opts := hashed(m)
		sig, err := signer.Sign(rand.Reader, digest, opts)
		if err != nil {
			t.Fatal(err)
		}
		return sig
	}
	k.public = body{"keytype": keytype, "scheme": scheme, "keyval": body{"public": publicText(t, signer.Public())}}
	k.rename(t)
	return k
}

func publicText(t *testing.T, public crypto.PublicKey) string {
	t.Helper()
	if p, ok := public.(ed25519.PublicKey); ok {
		return hex.EncodeToString(p)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// rename gives a key the id of what its public part says now.
func (k *key) rename(t *testing.T) { k.id = sumOf("sha256", canonical(t, k.public)) }

// world is a repository and a client of it, which knows the first root.
type world struct {
	*sim
	url, metadata, targets string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{sim: newSim(t), metadata: t.TempDir(), targets: t.TempDir()}
	srv := httptest.NewServer(w)
	t.Cleanup(srv.Close)
	w.url = srv.URL
	if err := w.init(w.signed["root"][0]); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) init(root []byte) error {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "root.json")
	if err := os.WriteFile(file, root, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return run(w.t.Context(), []string{"--metadata-dir", w.metadata, "init", file})
}

// refresh runs the command; asked is then what it asked.
func (w *world) refresh() error {
	w.asked = nil
	return run(w.t.Context(), []string{"--metadata-url", w.url + "/metadata/", "--metadata-dir", w.metadata, "refresh"})
}

func (w *world) download(target string) error {
	w.asked, w.fetched = nil, nil
	return run(w.t.Context(), []string{"--metadata-url", w.url + "/metadata/", "--metadata-dir", w.metadata,
		"--target-name", target, "--target-dir", w.targets, "--target-base-url", w.url + "/targets/", "download"})
}

// refreshed is a refresh that succeeds.
func (w *world) refreshed() {
	w.t.Helper()
	if err := w.refresh(); err != nil {
		w.t.Fatal(err)
	}
}

// in sets the client's clock, as faketime does.
func (w *world) in(days int) { w.t.Setenv("FAKETIME", fmt.Sprintf("+%d", days*24*3600)) }

// trusted are the versions in the client's folder, of root, timestamp, snapshot,
// targets and then of all others, "-" for none.
func (w *world) trusted() string {
	w.t.Helper()
	files, err := filepath.Glob(filepath.Join(w.metadata, "*.json"))
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Sort(files)
	top, others := []string{"-", "-", "-", "-"}, []string{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		var d struct{ Signed struct{ Version int } }
		if err := json.Unmarshal(data, &d); err != nil {
			w.t.Fatal(err)
		}
		role := strings.TrimSuffix(filepath.Base(file), ".json")
		if i := slices.Index([]string{"root", "timestamp", "snapshot", "targets"}, role); i >= 0 {
			top[i] = fmt.Sprint(d.Signed.Version)
		} else {
			others = append(others, fmt.Sprint(role, " ", d.Signed.Version))
		}
	}
	return strings.Join(append(top, others...), " ")
}

// downloaded are the contents of all artifacts that the client has.
func (w *world) downloaded() []string {
	w.t.Helper()
	out := []string{}
	files, err := filepath.Glob(filepath.Join(w.targets, "*"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			w.t.Fatal(err)
		}
		out = append(out, string(data))
	}
	slices.Sort(out)
	return out
}

// check compares what a command returned with the words of a refusal, "" being
// success, and what was asked for with a list.
func (w *world) check(err error, refusal, asked string) {
	w.t.Helper()
	switch {
	case refusal == "" && err != nil:
		w.t.Errorf("refused: %v", err)
	case refusal != "" && (err == nil || !strings.Contains(err.Error(), refusal)):
		w.t.Errorf("got %v, want a refusal with %q", err, refusal)
	}
	if got := strings.Join(w.asked, ", "); got != asked {
		w.t.Errorf("asked for %s, want %s", got, asked)
	}
}

// kept is a role as it is in the client's folder; nil if it is not.
func (w *world) kept(role string) []byte {
	w.t.Helper()
	data, err := os.ReadFile(filepath.Join(w.metadata, role+".json"))
	if err != nil && !os.IsNotExist(err) {
		w.t.Fatal(err)
	}
	return data
}
