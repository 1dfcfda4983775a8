package serve

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/agent/worker"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/runnerapi"
)

// measuredVersion is that of the files below. History: 1 first.
const measuredVersion = 1

// measured keeps what was learned about models on this box, under a directory:
//
//	<key>.json   what the probe measured (record)
//	<key>.onnx   the graph as ONNX Runtime optimised it for this processor
//
// The key names model, runtime library, providers, threads and processor: with
// any other of them it is as if nothing had been measured. All of it may be
// deleted at any time.
type measured struct {
	dir       string // empty: nothing is kept
	processor string
}

// record is one file.
type record struct {
	Model blob.Digest `json:"model"`
	// DataBytes is the private memory that the worker held after the probe.
	DataBytes int64    `json:"data_bytes"`
	Batching  batching `json:"batching"`
	// Graph is the digest of the optimised graph; zero: there is none.
	Graph      blob.Digest `json:"graph,omitzero"`
	GraphBytes int64       `json:"graph_bytes,omitempty"`
	// Ladder are all variants, in the record of the best one.
	Ladder []runnerapi.VariantStatus `json:"ladder,omitempty"`
}

func newMeasured(state string) measured {
	if state == "" {
		return measured{}
	}
	return measured{dir: filepath.Join(state, "measured"), processor: processorFlags()}
}

// processorFlags is what the kernel says the processor can do: kernels are
// chosen, and tensors laid out, by it.
func processorFlags() string {
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		switch strings.TrimSpace(key) {
		case "flags", "Features": // x86, arm64
			flags := strings.Fields(value)
			slices.Sort(flags)
			return strings.Join(flags, " ")
		}
	}
	return ""
}

// key identifies a model file in this environment.
func (m measured) key(opts worker.Options) (string, error) {
	info, err := os.Stat(opts.Library)
	if err != nil {
		return "", fmt.Errorf("look for ONNX Runtime: %w", err)
	}
	parts := []any{filepath.Base(opts.Model), opts.Library, info.Size(), info.ModTime().UnixNano(), opts.Providers, opts.Threads, m.processor}
	if len(opts.Files) > 0 { // one graph may have other weights
		parts = append(parts, opts.Files)
	}
	text, err := json.Marshal(parts)
	if err != nil {
		return "", fmt.Errorf("name measurement: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]), nil
}

func (m measured) journal(key string) durable.Journal {
	return durable.Journal{Path: filepath.Join(m.dir, key+".json"), Version: measuredVersion}
}

// read returns what is known about a model; ok is false when nothing is. A
// damaged file counts as nothing.
func (m measured) read(opts worker.Options) (r record, ok bool) {
	if m.dir == "" {
		return r, false
	}
	key, err := m.key(opts)
	if err != nil {
		return r, false
	}
	found, err := m.journal(key).Load(&r)
	return r, err == nil && found
}

func (m measured) write(opts worker.Options, r record) error {
	if m.dir == "" {
		return nil
	}
	key, err := m.key(opts)
	if err == nil {
		err = os.MkdirAll(m.dir, 0o755)
	}
	if err == nil {
		err = m.journal(key).Save(r)
	}
	if err != nil {
		return fmt.Errorf("keep what was measured: %w", err)
	}
	return nil
}

// graph is where the optimised graph of a model is, or is to be written.
func (m measured) graph(opts worker.Options) (string, error) {
	key, err := m.key(opts)
	return filepath.Join(m.dir, key+".onnx"), err
}

// apply makes a worker use what is known: the optimised graph, if it is still
// what was written, and a bound on memory.
func (m measured) apply(opts *worker.Options) (r record, known bool) {
	r, known = m.read(*opts)
	if !known {
		return r, false
	}
	if r.DataBytes > 0 {
		limit := dataLimit(r.DataBytes)
		if opts.MaxDataBytes == 0 || limit < opts.MaxDataBytes {
			opts.MaxDataBytes = limit
		}
	}
	if r.GraphBytes > 0 {
		path, err := m.graph(*opts)
		if err == nil && sumFile(path, r.GraphBytes) == r.Graph {
			opts.Graph = path
		}
	}
	return r, true
}

// dataLimit is how much private memory a model may use that was measured with
// so much on its golden samples. Requests may be larger than those.
func dataLimit(bytes int64) uint64 { return uint64(4*bytes) + 256<<20 }

// sumFile is the digest of a file of that size, else zero.
func sumFile(path string, size int64) blob.Digest {
	f, err := os.Open(path)
	if err != nil {
		return blob.Digest{}
	}
	defer f.Close()
	got, n, err := blob.SumReader(f)
	if err != nil || n != size {
		return blob.Digest{}
	}
	return got
}

// saveTo is where a worker may write the optimised graph; empty: nowhere. A
// graph with weights in other files would find none of them from there.
func (m measured) saveTo(opts worker.Options) string {
	if m.dir == "" || len(opts.Files) > 0 {
		return ""
	}
	path, err := m.graph(opts)
	if err != nil || os.MkdirAll(m.dir, 0o755) != nil {
		return ""
	}
	return path + ".part"
}

// adopt gives the graph that a worker has just written its place.
func (m measured) adopt(opts worker.Options, r *record) error {
	path, err := m.graph(opts)
	if err != nil {
		return err
	}
	info, err := os.Stat(opts.SaveGraph)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the provider cannot
	}
	if err != nil {
		return fmt.Errorf("keep optimised graph: %w", err)
	}
	if err := durable.Rename(opts.SaveGraph, path); err != nil {
		return fmt.Errorf("keep optimised graph: %w", err)
	}
	r.GraphBytes, r.Graph = info.Size(), sumFile(path, info.Size())
	return nil
}

// forget removes what is about models that keep does not name.
func (m measured) forget(keep func(blob.Digest) bool) {
	if m.dir == "" {
		return
	}
	entries, err := os.ReadDir(m.dir)
	if err != nil {
		return // none yet
	}
	for _, e := range entries {
		key, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord {
			continue
		}
		var r record
		if found, err := m.journal(key).Load(&r); err == nil && found && keep(r.Model) {
			continue
		}
		// A file that stays is read again the next time and removed then.
		_ = os.Remove(filepath.Join(m.dir, e.Name()))
		_ = os.Remove(filepath.Join(m.dir, key+".onnx"))
	}
}
