package bmc

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

func tree(t testing.TB, name string) map[string][]byte {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, f := range archive.Files {
		files["/"+f.Name] = f.Data
	}
	return files
}

// service serves a tree to those who know the password.
func service(files map[string][]byte) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		body, found := files[r.URL.Path]
		switch {
		case user != "look" || password != "secret":
			w.WriteHeader(http.StatusUnauthorized)
		case !found:
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Write(body)
		}
	})
}

func options(t testing.TB, s *httptest.Server) Redfish {
	t.Helper()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := Redfish{URL: s.URL, User: "look", PasswordFile: file}
	if cert := s.Certificate(); cert != nil {
		sum := sha256.Sum256(cert.Raw)
		o.Fingerprint = hex.EncodeToString(sum[:])
	}
	return o
}

func TestRedfishModels(t *testing.T) {
	for name, c := range map[string]struct {
		want []Sensor
		errs []string
	}{
		"new": {want: []Sensor{{"CPU1Temp", Celsius, "", 44}, {"Exhaust", Celsius, Exhaust, 40.5}, {"Front panel", Celsius, Inlet, 24.5},
			{"Riser Card", Celsius, "", 51.5}, {"Fan Bay 1", DutyRatio, "", 0.45}, {"Chassis", Intrusion, "", 1},
			{"Fan Bay 1", RPM, "", 2200}, {"Bay 1", SupplyIn, "", 384}, {"Bay 1", SupplyOK, "", 1}, {"Bay 2", SupplyOK, "", 0},
			{"Bay 1", SupplyOut, "", 351}, {"Total Power", Watts, System, 374}}, errs: []string{"Fans/Gone: 404", "leads out of the service"}},
		"old-rpm": {want: []Sensor{{"CPU1 Temp", Celsius, "", 41}, {"System Board Exhaust Temp", Celsius, Exhaust, 31},
			{"System Board Inlet Temp", Celsius, Inlet, 22}, {"Chassis", Intrusion, "", 0}, {"System Board Fan1", RPM, "", 5880},
			{"PS1 Status", SupplyIn, "", 210}, {"PS1 Status", SupplyOK, "", 1}, {"PS2 Status", SupplyOK, "", 0}, {"Total Power", Watts, System, 194}}},
		"old-percent": {want: []Sensor{{"01-Inlet Ambient", Celsius, Inlet, 21}, {"02-CPU 1", Celsius, "", 40}, {"Fan 1", DutyRatio, "", 0.17}}},
	} {
		s := httptest.NewTLSServer(service(tree(t, name)))
		client, err := NewRedfish(options(t, s))
		if err != nil {
			t.Fatal(err)
		}
		got, err := client.Read(t.Context())
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v\nwant %v", name, got, c.want)
		}
		if len(c.errs) == 0 && err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, part := range c.errs {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: no %q in %v", name, part, err)
			}
		}
		s.Close()
	}
}

func TestControllerThatIsNotTheOneIsRefused(t *testing.T) {
	s := httptest.NewUnstartedServer(service(tree(t, "new")))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	o := options(t, s)
	o.Fingerprint = strings.Repeat("00", 32)
	client, err := NewRedfish(o)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := client.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "another fingerprint") || list != nil {
		t.Errorf("%v, %v", list, err)
	}
	for _, bad := range []Redfish{{URL: "http://bmc.example"}, {URL: "bmc"}, {URL: "https://bmc", Fingerprint: "12"}} {
		if _, err := NewRedfish(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

func TestWrongPasswordIsAnErrorAndNoReading(t *testing.T) {
	s := httptest.NewServer(service(tree(t, "new")))
	defer s.Close()
	o := options(t, s)
	o.User = "other"
	client, err := NewRedfish(o)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := client.Read(t.Context()); err == nil || !strings.Contains(err.Error(), "401") || list != nil {
		t.Errorf("%v, %v", list, err)
	}
}

// A service whose links lead in a circle, or that answers without end, costs a
// bounded number of requests and bytes.
func TestEndlessServiceIsLeft(t *testing.T) {
	requests := 0
	var members strings.Builder
	for range 500 {
		members.WriteString(`{"@odata.id": "/redfish/v1/Chassis/x"},`)
	}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests++
		w.Write([]byte(`{"Members": [` + strings.TrimSuffix(members.String(), ",") + `], "Sensors": {"@odata.id": "/redfish/v1/Chassis"}}`))
	}))
	defer s.Close()
	client, err := NewRedfish(Redfish{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(t.Context()); err == nil || requests > maxRequests {
		t.Errorf("%d requests, %v", requests, err)
	}
}

func TestSDR(t *testing.T) {
	text, err := os.ReadFile("testdata/sdr.txt")
	if err != nil {
		t.Fatal(err)
	}
	want := []Sensor{{"Ambient Temp", Celsius, Inlet, 22}, {"Exhaust Temp", Celsius, Exhaust, 35},
		{"Inlet Temp", Celsius, Inlet, 23}, {"PS1 Inlet Temp", Celsius, "", 31}, {"Temp", Celsius, "", 46}, {"System Air Flow", CFM, "", 46}, {"Fan 2 DutyCycle", DutyRatio, "", 0.392},
		{"Fan1A", RPM, "", 5880}, {"Pwr Consumption", Watts, System, 168}}
	if got := sdr(text); !slices.Equal(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	short := "Inlet Temp       | 23 degrees C      | ok\nFan1 | no reading | ns\n"
	if got := sdr([]byte(short)); !slices.Equal(got, []Sensor{{"Inlet Temp", Celsius, Inlet, 23}}) {
		t.Errorf("short form: %v", got)
	}
	long := "FAN 2            | 3400.000   | RPM        | ok    | 300.000   | 500.000   | 700.000   | 25300.000 | 25400.000 | 25500.000 \n"
	if got := sdr([]byte(long)); !slices.Equal(got, []Sensor{{"FAN 2", RPM, "", 3400}}) {
		t.Errorf("long form: %v", got)
	}
	if got := dcmi([]byte("\n    Instantaneous power reading:                   212 Watts\n    Minimum during sampling period:  4 Watts\n")); len(got) != 1 || got[0].Value != 212 || got[0].Place != System {
		t.Errorf("dcmi: %v", got)
	}
}

// Whatever a controller says, what comes out is plausible and has a name.
func FuzzControllers(f *testing.F) {
	text, err := os.ReadFile("testdata/sdr.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	for _, name := range []string{"new", "old-rpm", "old-percent"} {
		for _, data := range tree(f, name) {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		files := map[string][]byte{"/redfish/v1/Chassis": []byte(`{"Members": [{"@odata.id": "/redfish/v1/X"}]}`), "/redfish/v1/X": data}
		for _, kind := range []string{"Thermal", "Power", "ThermalSubsystem", "EnvironmentMetrics", "Sensors"} {
			files["/redfish/v1/"+kind] = data
		}
		client, err := NewRedfish(Redfish{URL: "http://localhost", User: "look"})
		if err != nil {
			t.Fatal(err)
		}
		client.http.Transport = inMemory(files)
		list, _ := client.Read(t.Context())
		for _, s := range append(list, append(sdr(data), dcmi(data)...)...) {
			if s.Name == "" || !plausible(s) {
				t.Errorf("sensor %+v", s)
			}
		}
	})
}

type inMemory map[string][]byte

func (m inMemory) RoundTrip(r *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	if body, found := m[r.URL.Path]; found {
		w.Write(body)
	} else {
		w.WriteHeader(http.StatusNotFound)
	}
	return w.Result(), nil
}
