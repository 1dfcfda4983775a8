package bench

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
)

// chunked ships the pair by FastCDC: chunks of about 64 KiB, those that the base
// lacks packed by zstd, and 34 bytes of index for each (Xia et al., "FastCDC",
// USENIX ATC 2016, with normalised chunking).
func chunked(t *testing.T, p weightPair) float64 {
	t.Helper()
	rng := rand.New(rand.NewPCG(7, 7))
	var gear [256]uint64
	for i := range gear {
		gear[i] = rng.Uint64()
	}
	const least, average, most = 16 << 10, 64 << 10, 256 << 10
	const strict, loose = (1<<18 - 1) << 30, (1<<14 - 1) << 30
	each := func(b []byte, visit func([]byte)) {
		for len(b) > 0 {
			n := min(most, len(b))
			h := uint64(0)
			for i := min(least, n); i < n; i++ {
				h = h<<1 + gear[b[i]]
				mask := uint64(loose)
				if i < average {
					mask = strict
				}
				if h&mask == 0 {
					n = i + 1
					break
				}
			}
			visit(b[:n])
			b = b[n:]
		}
	}
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderConcurrency(1))
	check(t, err)
	defer z.Close()
	known := map[[32]byte]bool{}
	each(p.base, func(b []byte) { known[sha256.Sum256(b)] = true })
	sent := 0
	each(p.target, func(b []byte) {
		sent += 34
		if h := sha256.Sum256(b); !known[h] {
			known[h] = true
			sent += min(len(b), len(z.EncodeAll(b, nil)))
		}
	})
	return float64(sent) / float64(len(p.target))
}

// peakKB is the most memory that a process has had so far, in KiB; not ok when
// the process has ended or is not yet the program.
func peakKB(pid int) (kib float64, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || !bytes.HasPrefix(text, []byte("Name:\tedgeherd\n")) {
		return 0, false
	}
	_, rest, ok := bytes.Cut(text, []byte("VmHWM:"))
	if !ok {
		return 0, false
	}
	n, err := fmt.Sscan(string(rest), &kib)
	return kib, n == 1 && err == nil
}

// deltaMemory has our program make and apply the delta of a model of 1 GiB and
// returns the most memory that each took. A program that does nothing takes
// about 20 MiB.
func deltaMemory(t *testing.T) []Figure {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	writeGiant(t, path("base"), path("next"))
	run := func(args ...string) (mib float64) {
		var out bytes.Buffer
		cmd := exec.CommandContext(t.Context(), program(t, "edgeherd"), args...)
		cmd.Stdout, cmd.Stderr = &out, &out
		check(t, cmd.Start())
		ended := make(chan error, 1) // 1: its end may come while nobody listens
		go func() { ended <- cmd.Wait() }()
		// The peak only grows. What wait4 tells includes the memory of this process.
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case err := <-ended:
				if err != nil {
					t.Fatalf("%v: %v\n%s", cmd, err, out.Bytes())
				}
				return mib
			case <-tick.C:
				if kib, ok := peakKB(cmd.Process.Pid); ok {
					mib = kib / 1024
				}
			}
		}
	}
	figure := func(name string, mib float64) Figure {
		return Figure{Name: name, Value: mib, Unit: "MiB", Goal: Goal{AtMost: 64}}
	}
	return []Figure{
		figure("rss-encode-1GiB", run("model", "delta", path("base"), path("next"), path("delta"))),
		figure("rss-decode-1GiB", run("model", "patch", path("base"), path("delta"), path("made"))),
	}
}

// writeGiant writes a safetensors file of 1 GiB of fp16 and its next version.
func writeGiant(t *testing.T, base, next string) {
	t.Helper()
	const tensors, each = 64, 8 << 20
	header := "{"
	for i := range tensors {
		header += fmt.Sprintf(`"layer.%d":{"dtype":"F16","shape":[%d],"data_offsets":[%d,%d]},`, i, each, 2*i*each, 2*(i+1)*each)
	}
	header += `"__metadata__":{}}`
	var files [2]*bufio.Writer
	for i, path := range []string{base, next} {
		f, err := os.Create(path)
		check(t, err)
		defer f.Close()
		files[i] = bufio.NewWriterSize(f, 1<<20)
		_, err = files[i].Write(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...))
		check(t, err)
	}
	rng := rand.New(rand.NewPCG(3, 3))
	var b [8]byte
	for range tensors * each / 4 { // four weights at once: exponents of 8 values, steps of 0..7
		v := rng.Uint64()&0x9fff9fff9fff9fff | 0x2000200020002000
		binary.LittleEndian.PutUint64(b[:], v)
		_, err := files[0].Write(b[:])
		check(t, err)
		binary.LittleEndian.PutUint64(b[:], v^rng.Uint64()&0x0007000700070007)
		_, err = files[1].Write(b[:])
		check(t, err)
	}
	for _, f := range files {
		check(t, f.Flush())
	}
}
