package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/edgeherd/edgeherd/internal/assets"
)

// TestMain makes the test binary the program itself when it is called by its
// name, and a worker when the program under test starts one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == "edgeherd-runner" || len(os.Args) > 1 && os.Args[1] == "worker" {
		main()
		return
	}
	testscript.Main(m, map[string]func(){"edgeherd-runner": main})
}

// voiceRequest asks the voice detector about 512 samples at 16 kHz.
func voiceRequest(sample func(i int) float64) string {
	samples := make([]string, 512)
	for i := range samples {
		samples[i] = strconv.FormatFloat(sample(i), 'g', 6, 64)
	}
	return `{"inputs": [
		{"name": "input", "datatype": "FP32", "shape": [1, 512], "data": [` + strings.Join(samples, ",") + `]},
		{"name": "state", "datatype": "FP32", "shape": [2, 1, 128], "data": [` + strings.Repeat("0,", 255) + `0]},
		{"name": "sr", "datatype": "INT64", "shape": [], "data": [16000]}]}`
}

func TestScripts(t *testing.T) {
	library := assets.Library(t)
	model := assets.Model(t, "silero-vad-5.0.0")
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("LIBRARY", library)
			env.Setenv("MODEL", filepath.Join(model, "model.onnx"))
			env.Setenv("SAMPLES", filepath.Join(model, "golden.json"))
			return os.WriteFile(filepath.Join(env.WorkDir, "silence.json"), []byte(voiceRequest(func(int) float64 { return 0 })), 0o600)
		},
	})
}
