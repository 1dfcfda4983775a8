package acceptance_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

const box = "d-abcdefghijklm"

// signer is a key with a certificate that names the box.
func signer(t testing.TB) (*ecdsa.PrivateKey, [][]byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: box}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	check(t, err)
	return key, [][]byte{der}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func report() acceptance.Report {
	v, start := 41.5, time.Date(2026, 3, 14, 9, 0, 0, 0, time.UTC)
	return acceptance.Report{
		ID: "0f1e2d3c4b5a6978", Box: box, Name: "kasse-3", Started: start, Ended: start.Add(time.Minute), Levels: acceptance.Levels(),
		Checks: []acceptance.Check{
			{ID: "temperature", Part: "die", Level: acceptance.Hardware, Result: acceptance.Pass, Value: acceptance.Number(v, "°C"), Expect: acceptance.Say("expect.below", "85 °C")},
			{ID: "fan", Level: acceptance.Hardware, Result: acceptance.Skipped, Say: acceptance.Say("say.no-fan")},
		},
		CurveSeconds: []float64{0, 5}, Curve: []acceptance.Course{{Name: "die", Unit: "°C", Values: []*float64{&v, nil}}},
	}
}

func TestASealedReportComesBackAsItWas(t *testing.T) {
	key, chain := signer(t)
	data, err := acceptance.Seal(report(), key, chain)
	check(t, err)
	s, err := acceptance.Open(data)
	check(t, err)
	want := report()
	want.V = acceptance.Version
	a, err := json.Marshal(want)
	check(t, err)
	b, err := json.Marshal(s.Report)
	check(t, err)
	if !bytes.Equal(a, b) {
		t.Errorf("%s\nwant\n%s", b, a)
	}
	if len(s.Fingerprint()) != 64 {
		t.Errorf("fingerprint %q", s.Fingerprint())
	}
}

// Whatever byte of what was signed is changed, the report is refused. The bytes
// are changed, not their base64, whose last letter may have bits that say nothing.
func TestAChangedReportIsRefused(t *testing.T) {
	key, chain := signer(t)
	data, err := acceptance.Seal(report(), key, chain)
	check(t, err)
	var f map[string]any
	check(t, json.Unmarshal(data, &f))
	for _, field := range []string{"payload", "signature", "format"} {
		text := f[field].(string)
		content := []byte(text)
		if field != "format" {
			content, err = base64.StdEncoding.DecodeString(text)
			check(t, err)
		}
		for i := 0; i < len(content); i += max(1, len(content)/40) {
			other := bytes.Clone(content)
			other[i] ^= 1
			f[field] = string(other)
			if field != "format" {
				f[field] = other
			}
			changed, err := json.Marshal(f)
			check(t, err)
			if s, err := acceptance.Open(changed); err == nil {
				t.Fatalf("%s changed at %d, and it was believed: %+v", field, i, s.Report)
			}
		}
		f[field] = text
	}
	_, other := signer(t)
	f["chain"] = other
	changed, err := json.Marshal(f)
	check(t, err)
	if _, err := acceptance.Open(changed); err == nil {
		t.Error("the certificate of another key, and it was believed")
	}
}

func TestWhatIsOutOfBoundsIsNeitherSignedNorRead(t *testing.T) {
	key, chain := signer(t)
	inf := math.Inf(1)
	for name, spoil := range map[string]func(*acceptance.Report){
		"id":                 func(r *acceptance.Report) { r.ID = "../../etc/passwd" },
		"box":                func(r *acceptance.Report) { r.Box = "d-#" },
		"year":               func(r *acceptance.Report) { r.Started = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) },
		"level":              func(r *acceptance.Report) { r.Levels = []acceptance.Level{"root"} },
		"level of a check":   func(r *acceptance.Report) { r.Checks[0].Level = "root" },
		"result":             func(r *acceptance.Report) { r.Checks[0].Result = "fine" },
		"infinite value":     func(r *acceptance.Report) { r.Checks[0].Value.Number = &inf },
		"long text":          func(r *acceptance.Report) { r.Name = strings.Repeat("x", 301) },
		"control character":  func(r *acceptance.Report) { r.By = "a\x1b[31m" },
		"text that turns":    func(r *acceptance.Report) { r.Checks[0].Value.Text = "a\u202eb" },
		"many arguments":     func(r *acceptance.Report) { r.Checks[0].Say = phrase.Phrase{Args: make([]string, 9)} },
		"too many checks":    func(r *acceptance.Report) { r.Checks = make([]acceptance.Check, acceptance.MaxChecks+1) },
		"time that falls":    func(r *acceptance.Report) { r.CurveSeconds[0] = 9 },
		"values and times":   func(r *acceptance.Report) { r.Curve[0].Values = r.Curve[0].Values[:1] },
		"infinite in curve":  func(r *acceptance.Report) { r.Curve[0].Values[0] = &inf },
		"another box's name": func(r *acceptance.Report) { r.Box = "d-bbbbbbbbbbbbb" },
	} {
		r := report()
		spoil(&r)
		data, err := acceptance.Seal(r, key, chain)
		if name == "another box's name" { // only the reader knows whose key it was
			_, err = acceptance.Open(data)
		}
		if err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func TestTheVerdictIsTheWorstOfWhatCounts(t *testing.T) {
	for _, c := range []struct {
		results string
		aborted bool
		want    acceptance.Verdict
	}{
		{"pass skipped", false, acceptance.Passed}, {"pass warn", false, acceptance.Remarks}, {"warn fail", false, acceptance.Failed},
		{"pass", true, acceptance.Aborted}, {"warn", true, acceptance.Aborted}, {"fail", true, acceptance.Failed}, {"", false, acceptance.Passed},
	} {
		r := acceptance.Report{Aborted: c.aborted}
		for _, res := range strings.Fields(c.results) {
			r.Checks = append(r.Checks, acceptance.Check{Result: acceptance.Result(res)})
		}
		if got := r.Verdict(); got != c.want {
			t.Errorf("%q, aborted %t: %s, want %s", c.results, c.aborted, got, c.want)
		}
	}
}

func TestCleanTextFits(t *testing.T) {
	for _, s := range []string{"a\nb", "\xff\xfe", strings.Repeat("店", 200), "a\u202eb", "  x  "} {
		r := report()
		r.Name = acceptance.Clean(s)
		key, chain := signer(t)
		if _, err := acceptance.Seal(r, key, chain); err != nil {
			t.Errorf("%q became %q: %v", s, r.Name, err)
		}
	}
}

// What is read can be sealed again, and says the same.
func FuzzOpen(f *testing.F) {
	key, chain := signer(f)
	good, err := acceptance.Seal(report(), key, chain)
	check(f, err)
	f.Add(good)
	f.Add([]byte(`{"format":"edgeherd acceptance report 1","payload":"","signature":"","chain":[""]}`))
	f.Add(bytes.Replace(good, []byte("chain"), []byte("Chain"), 1))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := acceptance.Open(data)
		if err != nil {
			if s.Chain != nil || s.Report.Checks != nil {
				t.Fatal("an error came with a report")
			}
			return
		}
		s.Report.Verdict()
		for _, c := range s.Report.Checks {
			_ = c.Title() + c.Value.String()
		}
	})
}
