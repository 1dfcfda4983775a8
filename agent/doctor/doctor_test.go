package doctor_test

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/doctor"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// box is an enrolled box whose controller answers CONNECT with the code, and says
// how the box stands if it says anything.
func box(t *testing.T, code byte, says ...enrol.Answer) (doctor.Options, net.Listener) {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir(), nil)
	check(t, err)
	cert, err := ca.IssueServer([]string{"127.0.0.1"})
	check(t, err)
	admit := func(identity.ID) error { return nil }
	broker, err := tls.Listen("tcp", "127.0.0.1:0", ca.ServerTLS(cert, admit))
	check(t, err)
	t.Cleanup(func() { broker.Close() })
	go answer(broker, code)
	mux := http.NewServeMux()
	for _, a := range says {
		mux.HandleFunc("POST "+enrol.PathState, func(w http.ResponseWriter, _ *http.Request) {
			a.V, a.ServerTime = enrol.Version, time.Now()
			check(t, json.NewEncoder(w).Encode(a))
		})
	}
	files := httptest.NewUnstartedServer(mux)
	files.TLS = ca.ServerTLS(cert, admit)
	files.TLS.Certificates = []tls.Certificate{cert} // or httptest shows one of its own
	files.StartTLS()
	t.Cleanup(files.Close)
	state := t.TempDir()
	dir := filepath.Join(state, "identity")
	check(t, os.Mkdir(dir, 0o700))
	check(t, identity.Enrol(dir, ca, identity.Box{
		ID: identity.NewID(), Name: "wallbox-07", Site: "hamburg-3", Tenant: "default", Server: "127.0.0.1",
		MQTT: broker.Addr().String(), HTTPS: files.Listener.Addr().String(),
	}))
	return doctor.Options{State: state, Root: t.TempDir(), RunnerSocket: filepath.Join(state, "none.sock"), MinFreeBytes: 1}, broker
}

// answer plays a broker up to its CONNACK.
func answer(l net.Listener, code byte) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if _, err := conn.Read(make([]byte, 512)); err == nil {
			conn.Write([]byte{0x20, 2, 0, code}) // MQTT 3.1.1 section 3.2
		}
		conn.Close()
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, r doctor.Report, prefix string) doctor.Finding {
	t.Helper()
	for _, f := range r.Findings {
		if strings.HasPrefix(f.Check, prefix) {
			return f
		}
	}
	t.Fatalf("nothing about %s in %+v", prefix, r)
	return doctor.Finding{}
}

func want(t *testing.T, f doctor.Finding, level doctor.Level, text string) {
	t.Helper()
	if f.Level != level || !strings.Contains(f.Found+" → "+f.Way, text) {
		t.Errorf("%+v, want %s with %q", f, level, text)
	}
	if f.Level != doctor.OK && f.Way == "" && !strings.HasPrefix(f.Check, "way ") {
		t.Errorf("%s has no way out", f.Check)
	}
}

func TestABoxThatIsNotEnrolledIsToldHow(t *testing.T) {
	r := doctor.Examine(t.Context(), doctor.Options{State: t.TempDir(), Root: t.TempDir(), RunnerSocket: "/nowhere"})
	want(t, find(t, r, "identity"), doctor.Fail, "edgeherd-agent enroll")
	want(t, find(t, r, "runner"), doctor.Fail, "journalctl")
	if r.Level != doctor.Fail {
		t.Errorf("level %s", r.Level)
	}
}

func TestAControllerThatAnswersIsTold(t *testing.T) {
	opts, _ := box(t, 0)
	told := 0
	opts.Each = func(doctor.Finding) { told++ }
	r := doctor.Examine(t.Context(), opts)
	want(t, find(t, r, "way mqtts"), doctor.OK, "answers")
	want(t, find(t, r, "agent"), doctor.Warn, "is it running")
	want(t, find(t, r, "downloads"), doctor.OK, "off")
	want(t, find(t, r, "disk"), doctor.OK, "GB free")
	if told != len(r.Findings) {
		t.Errorf("told of %d of %d findings", told, len(r.Findings))
	}
}

func TestARefusalByTheBrokerIsTold(t *testing.T) {
	opts, _ := box(t, 5)
	r := doctor.Examine(t.Context(), opts)
	want(t, find(t, r, "way mqtts"), doctor.Warn, "refuses the box")
	want(t, find(t, r, "agent"), doctor.Fail, "no way leads to the controller")
}

// TestABoxThatIsKeptOutIsToldWhy: a way that is closed wants another person.
func TestABoxThatIsKeptOutIsToldWhy(t *testing.T) {
	for _, c := range []struct {
		says  enrol.Answer
		level doctor.Level
		way   string
	}{
		{enrol.Answer{Code: enrol.Revoked, Detail: "This box was revoked: stolen"}, doctor.Fail, "enroll TOKEN --re-enroll"},
		{enrol.Answer{Code: enrol.IdentityFork, Detail: "This certificate was withdrawn; another machine has taken this place."}, doctor.Fail, "enroll TOKEN --re-enroll"},
		{enrol.Answer{Code: enrol.Quarantined, Detail: "This box is in quarantine: its disk was copied"}, doctor.Fail, "edgeherd box release"},
		{enrol.Answer{Code: enrol.Retired, Detail: "This box was retired: sold"}, doctor.Warn, "wipes this box"},
	} {
		opts, _ := box(t, 5, c.says)
		r := doctor.Examine(t.Context(), opts)
		f := find(t, r, "membership")
		want(t, f, c.level, strings.TrimSuffix(c.says.Detail, "."))
		if !strings.Contains(f.Way, c.way) {
			t.Errorf("%s: the way out is %q", c.says.Code, f.Way)
		}
		want(t, find(t, r, "agent"), doctor.Warn, "keeps this box out")
	}
	opts, _ := box(t, 0, enrol.Answer{Code: enrol.Active})
	for _, f := range doctor.Examine(t.Context(), opts).Findings {
		if f.Check == "membership" {
			t.Errorf("a box that is well is told %+v", f)
		}
	}
}

func TestAClosedPortAndAWrongClockAreTold(t *testing.T) {
	opts, broker := box(t, 0)
	broker.Close()
	opts.WallClock = func() time.Time { return time.Unix(0, 0) } // a box without a battery
	r := doctor.Examine(t.Context(), opts)
	want(t, find(t, r, "way mqtts"), doctor.Warn, "failed at TCP")
	want(t, find(t, r, "clock"), doctor.Warn, "not set")
}

func TestAStateDirectoryThatTakesNothingIsTold(t *testing.T) {
	opts, _ := box(t, 0)
	state := filepath.Join(t.TempDir(), "gone")
	if _, err := os.Stat(state); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	opts.State = state
	want(t, find(t, doctor.Examine(t.Context(), opts), "disk"), doctor.Fail, "no writes")
}

// TestADiskOfModelsIsLookedAt, where it is another one: /proc has no room at all.
func TestADiskOfModelsIsLookedAt(t *testing.T) {
	opts, _ := box(t, 0)
	if err := os.Symlink("/proc", filepath.Join(opts.State, "blobs")); err != nil {
		t.Fatal(err)
	}
	opts.MinFreeBytes = 1 // of the state folder there is
	want(t, find(t, doctor.Examine(t.Context(), opts), "disk"), doctor.Warn, "of models in "+opts.State+"/blobs: 0.0 of 0.0 GB")
}

// A box that is asked why it takes nothing new says so before it is late.
func TestTheEndOfTheMetadataIsTold(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		left  time.Duration
		level doctor.Level
		text  string
	}{{29 * 24 * time.Hour, doctor.OK, "good until"}, {3 * 24 * time.Hour, doctor.Warn, "timestamp ends"}, {-time.Hour, doctor.Warn, "what runs goes on"}} {
		data, err := json.Marshal(agent.Status{Trust: &agent.TrustStatus{Ends: time.Now().Add(c.left), Role: "timestamp", Error: "no route"}})
		check(t, err)
		check(t, os.WriteFile(filepath.Join(dir, "status.json"), data, 0o600))
		r := doctor.Examine(t.Context(), doctor.Options{State: dir, Root: t.TempDir(), RunnerSocket: "/nowhere"})
		want(t, find(t, r, "fleet's metadata"), c.level, c.text)
	}
}
