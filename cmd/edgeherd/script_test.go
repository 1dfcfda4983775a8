package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/internal/freeport"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"edgeherd": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("CI", "")
			docs, err := filepath.Abs(filepath.Join("..", "..", "docs"))
			if err != nil {
				return err
			}
			e.Setenv("DOCS", docs)
			return os.WriteFile(filepath.Join(e.WorkDir, "server.yaml"), []byte(
				"state: "+filepath.Join(e.WorkDir, "st")+"\nhttp: 127.0.0.1:0\ndevice: 127.0.0.1:0\nmqtt: 127.0.0.1:0\n"), 0o600)
		},
		Condition: func(name string) (bool, error) {
			if name != "hsm" {
				return false, fmt.Errorf("no condition %q", name)
			}
			_, err := exec.LookPath("softhsm2-util")
			return err == nil || os.Getenv("EDGEHERD_REQUIRE_ASSETS") != "", nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"waitfile": waitFile, "exits": exits, "onnx": writeONNX, "keep": takeWord, "registry": startRegistry,
		},
	})
}

// waitfile FILE waits until the file is there.
func waitFile(ts *testscript.TestScript, _ bool, args []string) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if _, err := os.Stat(ts.MkAbs(args[0])); err == nil {
			return
		}
	}
	ts.Fatalf("%s did not appear", args[0])
}

// exits CODE edgeherd ARGS… runs the program and wants that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	err := ts.Exec(args[1], args[2:]...)
	code := 0
	if err != nil {
		code = -1
		if e, ok := err.(interface{ ExitCode() int }); ok {
			code = e.ExitCode()
		}
	}
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("exit code %d (%v), want %s", code, err, args[0])
	}
}

// onnx FILE INPUT writes a small model with that input.
func writeONNX(ts *testscript.TestScript, _ bool, args []string) {
	msg := func(n protowire.Number, content ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, n, protowire.BytesType), bytes.Join(content, nil))
	}
	num := func(n protowire.Number, v uint64) []byte {
		return protowire.AppendVarint(protowire.AppendTag(nil, n, protowire.VarintType), v)
	}
	value := func(field protowire.Number, name string) []byte {
		return msg(field, msg(1, []byte(name)), msg(2, msg(1, num(1, 1), msg(2, msg(1, num(1, 2))))))
	}
	file := bytes.Join([][]byte{num(1, 8), msg(7, value(11, args[1]), value(12, "y")), msg(8, num(2, 17))}, nil)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), file, 0o600))
}

// keep NAME puts the first line of the last output into an environment variable.
func takeWord(ts *testscript.TestScript, _ bool, args []string) {
	line, _, _ := bytes.Cut([]byte(ts.ReadFile("stdout")), []byte("\n"))
	ts.Setenv(args[0], string(line))
}

// registry NAME starts Debian's OCI registry and puts its address into an
// environment variable.
func startRegistry(ts *testscript.TestScript, _ bool, args []string) {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("EDGEHERD_REQUIRE_ASSETS") != "" {
			ts.Fatalf("required here: %v; run `make deps`", err)
		}
		return // the script asks for the variable
	}
	address, err := freeport.Address()
	ts.Check(err)
	config := ts.MkAbs("registry.yml")
	ts.Check(os.WriteFile(config, []byte("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: "+ts.MkAbs("registry")+"}}\nhttp: {addr: \""+address+"\"}\n"), 0o600))
	cmd := exec.Command(program, "serve", config)
	ts.Check(cmd.Start())
	ts.Defer(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(5 * time.Minute); time.Now().Before(deadline); <-tick.C {
		if c, err := net.Dial("tcp", address); err == nil {
			c.Close()
			ts.Setenv(args[0], address)
			return
		}
	}
	ts.Fatalf("the registry does not answer")
}
