package sense

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// unttar unpacks the text archives of the Prometheus projects: "Directory:",
// "Path:" with "Lines:" and that many lines, "SymlinkTo:", "Mode:". A line that
// ends in NULLBYTE or EOF stands for a file without a last new line.
func unttar(t *testing.T, archive, root string) {
	t.Helper()
	f, err := os.Open(archive)
	must(t, err)
	defer f.Close()
	in := bufio.NewScanner(f)
	in.Buffer(nil, 1<<20)
	path := ""
	for in.Scan() {
		field, value, _ := strings.Cut(in.Text(), ": ")
		switch field {
		case "Directory":
			must(t, os.MkdirAll(filepath.Join(root, value), 0o755))
		case "Path":
			path = filepath.Join(root, value)
			must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		case "SymlinkTo":
			must(t, os.Symlink(value, path))
		case "Lines":
			n, err := strconv.Atoi(value)
			must(t, err)
			var text strings.Builder
			for range n {
				in.Scan()
				line, end := strings.CutSuffix(in.Text(), "EOF")
				text.WriteString(strings.ReplaceAll(line, "NULLBYTE", "\x00"))
				if !end {
					text.WriteByte('\n')
				}
			}
			must(t, os.WriteFile(path, []byte(text.String()), 0o644))
		}
	}
	must(t, in.Err())
}

// moduleDir is where a module of go.mod lies in the module cache.
func moduleDir(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOPROXY=off")
	out, err := cmd.Output()
	if err != nil || strings.TrimSpace(string(out)) == "" {
		t.Fatalf("find %s in the module cache: %v; go mod download %s", module, err, module)
	}
	return strings.TrimSpace(string(out))
}

// Trees that others wrote: whatever is told of them can be.
func TestTreesOfOthers(t *testing.T) {
	for archive, top := range map[string]string{
		filepath.Join(moduleDir(t, "github.com/prometheus/procfs"), "testdata/fixtures.ttar"):                 "fixtures",
		filepath.Join(assets.Module(t, "github.com/prometheus/node_exporter"), "collector/fixtures/sys.ttar"): "",
	} {
		root := t.TempDir()
		unttar(t, archive, root)
		told(t, archive, filepath.Join(root, top), 8)
	}
	roots, err := filepath.Glob(filepath.Join(assets.Module(t, "github.com/influxdata/telegraf"), "plugins/inputs/temp/testcases/*/sys"))
	must(t, err)
	if len(roots) == 0 {
		t.Error("telegraf holds no trees")
	}
	for _, sys := range roots {
		told(t, sys, filepath.Dir(sys), 2)
	}
}

// told reads a tree twice, of which at least so many things can be told.
func told(t *testing.T, name, root string, least int) {
	t.Helper()
	s := New(Options{Root: root}, quiet())
	for range 2 {
		list, err := s.Read(t.Context())
		if len(list) < least {
			t.Errorf("%s: %d readings, %v", name, len(list), err)
		}
		for _, r := range list {
			metric, _, _ := strings.Cut(r.Metric, "{")
			if lo, hi, notZero := plausibleRange(metric); !(r.Value >= lo && r.Value <= hi) || notZero && r.Value == 0 {
				t.Errorf("%s: %s = %v", name, r.Metric, r.Value)
			}
			t.Logf("%s %v", r.Metric, r.Value)
		}
		if err != nil {
			t.Logf("errors: %v", err)
		}
	}
}
