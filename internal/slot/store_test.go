package slot

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

func full() State {
	s := trialB(1).RollBack(Tries, noon).Arm(B, rotten)
	s.LastRollback = Rollback{Slot: B, Digest: newAgent, Reason: Tries, Gen: 1, At: noon}
	s.Backoff = Backoff{Starts: []time.Time{noon}, Level: 2}
	return s
}

func TestStateKeepsItsFormat(t *testing.T) {
	golden := filepath.Join("testdata", "launcher-v1.json")
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Encode(full())
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("encoded\n%s\nwant\n%s", got, want)
	}
	s, err := Parse(want)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(s, full()) {
		t.Errorf("parsed %+v\nwant %+v", s, full())
	}
}

func TestFieldsOfNewerAgentsAreIgnored(t *testing.T) {
	body := `{"v":1,"gen":3,"good":"b","sum":{},"mood":"fine"}` + "\n"
	s, err := Parse(seal([]byte(body)))
	if err != nil || s.Good != B || s.Gen != 3 {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestDamagedStateIsNoticed(t *testing.T) {
	good, err := Encode(full())
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string][]byte{
		"empty": nil, "zeros": make([]byte, len(good)), "half": good[:len(good)/2],
		"no last line end": good[:len(good)-1], "twice": append(bytes.Clone(good), good...),
		"format 2":         seal([]byte(`{"v":2,"good":"a"}` + "\n")),
		"no good slot":     seal([]byte(`{"v":1}` + "\n")),
		"trial of good":    seal([]byte(`{"v":1,"good":"a","trial":{"slot":"a","tries":0,"max":3}}` + "\n")),
		"trial for ever":   seal([]byte(`{"v":1,"good":"a","trial":{"slot":"b","tries":-9,"max":3}}` + "\n")),
		"trial of nothing": seal([]byte(`{"v":1,"good":"a","trial":{"slot":"","tries":2,"max":3}}` + "\n")),
		"not JSON":         seal([]byte("good=a\n")),
		"huge":             seal([]byte(`{"v":1,"good":"a"` + strings.Repeat(" ", maxStateBytes) + "}\n")),
	}
	for i := range good {
		flipped := bytes.Clone(good)
		flipped[i] ^= 0x20
		cases["flip"+string(good[:i])] = flipped
	}
	for name, data := range cases {
		if s, err := Parse(data); !errors.Is(err, ErrUnreadable) || !reflect.DeepEqual(s, State{}) {
			t.Fatalf("%.60q: %+v, %v, want ErrUnreadable", name, s, err)
		}
	}
}

func TestInstallIsRepeatableAndRefusesAnother(t *testing.T) {
	d := Store{Dir: filepath.Join(t.TempDir(), "launcher")}
	if _, err := d.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("load before install: %v", err)
	}
	if _, err := d.Install(strings.NewReader("")); err == nil {
		t.Error("an empty agent was installed")
	}
	install := func(program string) error {
		_, err := d.Install(strings.NewReader(program))
		return err
	}
	for range 2 {
		if err := install("old"); err != nil {
			t.Fatal(err)
		}
	}
	if err := install("new"); !errors.Is(err, ErrOccupied) {
		t.Errorf("second agent: %v, want ErrOccupied", err)
	}
	s, err := d.Load()
	if err != nil || s.Good != A || s.Sum.A != oldAgent || s.Gen != 1 {
		t.Errorf("state %+v, %v", s, err)
	}
	if err := os.WriteFile(d.Path(A), []byte("rot"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := install("old"); err != nil || d.Find().Found.A != oldAgent {
		t.Errorf("repair: %v", err)
	}
	if fi, err := os.Stat(d.Path(A)); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("mode of the agent: %v, %v", fi.Mode(), err)
	}
	if _, err := os.Stat(d.StagePath(A)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the staged file stays behind: %v", err)
	}
}

func TestInstallSurvivesEveryCrash(t *testing.T) {
	for at := 1; ; at++ {
		d := Store{Dir: t.TempDir()}
		stop, n := errors.New("power cut"), 0
		crashing := d
		crashing.OnStep = func(string) error {
			if n++; n == at {
				return stop
			}
			return nil
		}
		_, err := crashing.Install(strings.NewReader("old"))
		if _, again := d.Install(strings.NewReader("old")); again != nil {
			t.Fatalf("crash after step %d: second install: %v", at, again)
		}
		if c, cerr := d.Choose(Pair[bool]{}, noon); cerr != nil || c.Slot != A {
			t.Fatalf("crash after step %d: choice %+v, %v", at, c, cerr)
		}
		if err == nil {
			if at < 4 {
				t.Errorf("only %d steps: a hook is missing", at-1)
			}
			return
		}
	}
}

func TestSealRefusesOtherBytes(t *testing.T) {
	d := Store{Dir: t.TempDir()}
	if _, err := d.stage(B, strings.NewReader("rotten")); err != nil {
		t.Fatal(err)
	}
	if err := d.Seal(B, newAgent); !errors.Is(err, blob.ErrMismatch) {
		t.Errorf("seal: %v, want ErrMismatch", err)
	}
	if got := d.Find().Found.B; !got.IsZero() {
		t.Errorf("slot b holds %s", got)
	}
}

func TestChoiceIsOnDiskBeforeTheStart(t *testing.T) {
	d := installed(t)
	c, err := d.Choose(Pair[bool]{}, noon)
	if err != nil || c.Slot != B {
		t.Fatalf("choice %+v, %v", c, err)
	}
	if s, err := d.Load(); err != nil || s.Trial.Tries != 1 {
		t.Errorf("on disk: %+v, %v", s, err)
	}
}

// installed has the old agent in a and the new one on trial in b.
func installed(t *testing.T) Store {
	t.Helper()
	d := Store{Dir: t.TempDir()}
	if _, err := d.Install(strings.NewReader("old")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.stage(B, strings.NewReader("new")); err != nil {
		t.Fatal(err)
	}
	if err := d.Seal(B, newAgent); err != nil {
		t.Fatal(err)
	}
	s, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Save(s.Arm(B, newAgent)); err != nil {
		t.Fatal(err)
	}
	return d
}

func TestTrialWaitsWhileItCannotBeCounted(t *testing.T) {
	d := installed(t)
	failing := d
	// A full disk: the state cannot be replaced.
	failing.OnStep = func(string) error { return errors.New("no space left on device") }
	before, _ := os.ReadFile(d.statePath())
	c, err := failing.Choose(Pair[bool]{}, noon)
	if err == nil || c.Slot != A || c.Save {
		t.Errorf("choice %+v, %v: want slot a and the error", c, err)
	}
	if err := os.WriteFile(d.statePath(), before, 0o644); err != nil {
		t.Fatal(err)
	}
	if c, err := d.Choose(Pair[bool]{}, noon); err != nil || c.Slot != B {
		t.Errorf("with space again: %+v, %v: want the trial", c, err)
	}
}

func TestDamagedStateStillStartsAnAgent(t *testing.T) {
	d := installed(t)
	if err := os.WriteFile(d.statePath(), []byte("\x00\x00"), 0o644); err != nil {
		t.Fatal(err)
	}
	c, err := d.Choose(Pair[bool]{}, noon)
	if !errors.Is(err, ErrUnreadable) || c.Slot != A {
		t.Errorf("choice %+v, %v", c, err)
	}
	if s, err := d.Load(); err != nil || s.Good != B || s.Trial.Slot != A {
		t.Errorf("rebuilt state %+v, %v", s, err)
	}
}

func FuzzParseState(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "launcher-v1.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	f.Add([]byte(`{"v":1,"good":"a","sum":{"a":""}}` + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		// The checksum would keep the fuzzer out: try the data with one added, too.
		for _, in := range [][]byte{data, seal(append(bytes.Clone(data), '\n'))} {
			s, err := Parse(in)
			if err != nil {
				if !errors.Is(err, ErrUnreadable) || !reflect.DeepEqual(s, State{}) {
					t.Fatalf("error %v with state %+v", err, s)
				}
				continue
			}
			out, err := Encode(s)
			if err != nil {
				t.Fatalf("parsed but does not encode: %v", err)
			}
			again, err := Parse(out)
			if err != nil {
				t.Fatalf("encoded but does not parse: %v\n%s", err, out)
			}
			if out2, _ := Encode(again); !bytes.Equal(out, out2) {
				t.Fatalf("first %s then %s", out, out2)
			}
			// Whatever the state, one of the programs starts.
			if c := Pick(s, true, found(oldAgent, newAgent), noon); !c.Slot.Valid() {
				t.Fatalf("nothing starts with %s", out)
			}
		}
	})
}
