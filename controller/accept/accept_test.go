package accept

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/paper"
	"github.com/edgeherd/edgeherd/internal/phrase"
)

var write = flag.Bool("write", false, "write golden files, and reports to look at into EDGEHERD_REPORTS")

// sample is a report with something of everything.
func sample() fleetapi.AcceptanceReport {
	start := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	number := acceptance.Number
	check := func(l acceptance.Level, id, part string, res acceptance.Result, v acceptance.Measured, words ...phrase.Phrase) acceptance.Check {
		c := acceptance.Check{ID: id, Part: part, Level: l, Result: res, Value: v}
		if len(words) > 0 {
			c.Expect = words[0]
		}
		if len(words) > 1 {
			c.Say = words[1]
		}
		return c
	}
	say, none := acceptance.Say, phrase.Phrase{}
	disk := number(512.1, "GB")
	disk.Text = "nvme Samsung PM9A1 MZVL2512HCJQ-00B00"
	hw, sys, load, ops := acceptance.Hardware, acceptance.System, acceptance.Load, acceptance.Operations
	r := acceptance.Report{
		V: acceptance.Version, ID: "0f1e2d3c4b5a6978", Box: "d-abcdefghijklm", Name: "kasse-łódź-3", Site: "łódź-1", Vendor: "Lenovo", Product: "ThinkEdge SE30",
		Serial: "PF3K9ABC", By: "m.schröder", Agent: "1.4.0", BootID: "b", Delivery: "Auftrag 2026-117 (王府井店)", Levels: acceptance.Levels(), Started: start, Ended: start.Add(13 * time.Minute), Simulated: true,
		Checks: []acceptance.Check{
			check(hw, "cpu", "", acceptance.Pass, number(8, ""), say("expect.exactly", "8")),
			check(hw, "memory", "", acceptance.Pass, number(15.5, "GiB"), say("expect.exactly", "16 GiB")),
			check(hw, "accelerator", "", acceptance.Fail, acceptance.Measured{}, say("expect.exactly", "NVIDIA A2"), say("say.missing")),
			check(hw, "temperature", "die", acceptance.Pass, number(41.5, "°C"), say("expect.below", "85 °C")),
			check(hw, "temperature", "inlet", acceptance.Pass, number(24.1, "°C"), say("expect.below", "85 °C")),
			check(hw, "fan", "nct6798/fan1", acceptance.Pass, number(1240, "rpm"), say("expect.turns")),
			check(hw, "fan", "nct6798/fan2", acceptance.Warn, number(0, "rpm"), say("expect.turns"), say("say.still")),
			check(hw, "bmc", "", acceptance.Skipped, acceptance.Measured{}, none, say("say.no-bmc")),
			check(hw, "disk", "nvme0n1", acceptance.Pass, disk, say("expect.exactly", "nvme ≥ 500 GB")),
			check(hw, "nic", "eno1", acceptance.Pass, number(1000, "Mbit/s"), say("expect.at-least", "1000 Mbit/s")),
			check(sys, "os", "", acceptance.Pass, acceptance.Measured{Text: "Debian GNU/Linux 12 (bookworm)"}, say("expect.exactly", "Debian 12")),
			check(sys, "kernel", "", acceptance.Pass, acceptance.Measured{Text: "6.1.0-18-amd64"}),
			check(sys, "runtime", "", acceptance.Pass, acceptance.Measured{Text: "1.22.0"}, say("expect.exactly", "1.22")),
			check(load, "golden", "ocr-cls:2.0.0", acceptance.Pass, acceptance.Measured{Text: "4 / 4"}, say("expect.all", "4")),
			check(load, "inference", "ocr-cls:2.0.0", acceptance.Pass, number(212.4, "1/s"), say("expect.at-least", "150 1/s")),
			check(load, "latency", "", acceptance.Pass, number(11.87, "ms")),
			check(load, "heat", "", acceptance.Pass, number(71.25, "°C"), say("expect.at-most", "90 °C")),
			check(load, "disk-write", "", acceptance.Fail, acceptance.Measured{}, say("expect.at-least", "20 MB/s"), say("say.disk-error", "write /var/lib/edgeherd/agent/.accept-31: input/output error")),
			check(load, "net-rtt", "", acceptance.Pass, number(23.4, "ms"), say("expect.at-most", "1000 ms")),
			check(ops, "delivery", "", acceptance.Pass, acceptance.Measured{Text: "Auftrag 2026-117 (王府井店)"}),
			check(ops, "config", "", acceptance.Fail, acceptance.Measured{Text: "9f86d081884c7d65"}, say("expect.exactly", "60303ae22b998861"), say("say.config")),
			check(ops, "clock-offset", "", acceptance.Pass, number(1, "s"), say("expect.at-most", "30 s")),
			check(ops, "time-to-reach", "", acceptance.Pass, number(0.42, "s"), say("expect.at-most", "5 s")),
		},
	}
	var die, inlet, rate []*float64
	for i := range 120 {
		r.CurveSeconds = append(r.CurveSeconds, float64(i)*5)
		d, in, q := 71.3-29*math.Exp(-float64(i)/22)+0.4*math.Sin(float64(i)), 24+2*float64(i)/120, 214-3*math.Sin(float64(i)/7)
		die, inlet, rate = append(die, &d), append(inlet, &in), append(rate, &q)
	}
	die[60], die[61] = nil, nil
	r.Curve = []acceptance.Course{{Name: "die", Unit: "°C", Values: die}, {Name: "inlet", Unit: "°C", Values: inlet}, {Name: "inference", Unit: "1/s", Values: rate}}
	sealed := acceptance.Sealed{Report: r, Chain: []*x509.Certificate{{RawSubjectPublicKeyInfo: []byte("key")}}}
	return fleetapi.AcceptanceReport{Acceptance: Summary(sealed, start.Add(14*time.Minute)), Report: r}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEveryWordIsThereInEveryLanguage(t *testing.T) {
	all, err := read()
	check(t, err)
	english := all[English]
	for _, lang := range Languages() {
		d := all[lang]
		for code, text := range english.words {
			if code, counted := strings.CutSuffix(code, "_one"); counted {
				for _, n := range []uint64{1, 2, 5} {
					form := phrase.Form(lang, n)
					if _, ok := d.words[code+"_"+form]; !ok && form != "other" && form != "many" {
						t.Errorf("%s lacks %s_%s", lang, code, form)
					}
				}
				continue
			}
			if _, ok := d.words[code]; !ok {
				t.Errorf("%s lacks %s", lang, code)
			} else if verbs(text) != verbs(d.words[code]) {
				t.Errorf("%s: %s has %d arguments, in English %d", lang, code, verbs(d.words[code]), verbs(text))
			}
		}
		for code := range d.words {
			plain, _, _ := strings.Cut(code, "_")
			if _, ok := english.words[plain]; !ok && !strings.HasPrefix(code, "role.") {
				t.Errorf("%s has %s, which nobody says", lang, code)
			}
		}
	}
}

func TestOneIsNotCountedAsMany(t *testing.T) {
	all, err := read()
	check(t, err)
	for lang, want := range map[string][3]string{
		English: {"1 of 1 right", "all of 3 right", "all of 5 right"}, German: {"1 von 1 richtig", "alle 3 richtig", "alle 5 richtig"},
		Polish: {"1 z 1 poprawna", "wszystkie 3 poprawne", "wszystkich 5 poprawnych"}, Chinese: {"1 项全部正确", "3 项全部正确", "5 项全部正确"},
	} {
		for i, n := range []string{"1", "3", "5"} {
			if got := all[lang].say(acceptance.Say("expect.all", n)); got != want[i] {
				t.Errorf("%s: %q, want %q", lang, got, want[i])
			}
		}
	}
}

func verbs(format string) int { return strings.Count(format, "%s") + strings.Count(format, "]s") }

// The words of all languages must be in the fonts, or a customer reads boxes.
func TestTheFontsHaveAllCharactersOfAllWords(t *testing.T) {
	all, err := read()
	check(t, err)
	pen, err := paper.New("mm", time.Time{})
	check(t, err)
	pen.PDF.AddPage()
	for lang, d := range all {
		for code, text := range d.words {
			if pen.Write(margin, margin, text); pen.Missing {
				t.Fatalf("%s, %s: no font has all of %q", lang, code, text)
			}
		}
	}
}

func TestPagesAreAsTheyWere(t *testing.T) {
	for _, lang := range Languages() {
		data, err := HTML(sample(), lang)
		check(t, err)
		path := filepath.Join("testdata", "report-"+lang+".html")
		if *write {
			check(t, os.WriteFile(path, data, 0o644))
		}
		want, err := os.ReadFile(path)
		check(t, err)
		if !bytes.Equal(data, want) {
			t.Errorf("the page in %s has changed; look at it, then: go test ./controller/accept -run Pages -args -write", lang)
		}
	}
}

func TestThePrintIsTheSameEachTimeAndHasAllPages(t *testing.T) {
	for _, lang := range Languages() {
		one, err := PDF(sample(), lang)
		check(t, err)
		if dir := os.Getenv("EDGEHERD_REPORTS"); dir != "" && *write {
			page, err := HTML(sample(), lang)
			check(t, err)
			check(t, os.WriteFile(filepath.Join(dir, lang+".pdf"), one, 0o644))
			check(t, os.WriteFile(filepath.Join(dir, lang+".html"), page, 0o644))
		}
		two, err := PDF(sample(), lang)
		check(t, err)
		if !bytes.Equal(one, two) {
			t.Errorf("%s: two prints of one report differ", lang)
		}
		if !bytes.HasPrefix(one, []byte("%PDF-")) || len(one) > 600<<10 {
			t.Errorf("%s: %d bytes that begin with %.8q", lang, len(one), one)
		}
	}
}

func TestASimulatedBoxAndAMissingCharacterAreTold(t *testing.T) {
	for _, lang := range Languages() {
		d, err := inLanguage(lang)
		check(t, err)
		a := sample()
		page, err := HTML(a, lang)
		check(t, err)
		if !strings.Contains(string(page), d.word("simulated-text")) {
			t.Errorf("%s: the page does not say that the board is simulated", lang)
		}
		s, err := draw(d.view(a), a.Ended, 0, false)
		check(t, err)
		if s.Missing {
			t.Errorf("%s: a character of the sample is missing", lang)
		}
		a.Report.Simulated, a.Report.Name = false, "店 ☃ \U0001f600"
		page, err = HTML(a, lang)
		check(t, err)
		if strings.Contains(string(page), d.word("simulated")) {
			t.Errorf("%s: a real board is called simulated", lang)
		}
		s, err = draw(d.view(a), a.Ended, 0, false)
		check(t, err)
		if !s.Missing {
			t.Errorf("%s: nobody noticed that no font has a snowman", lang)
		}
	}
}

func TestHostileTextDoesNotLeaveThePage(t *testing.T) {
	a := sample()
	a.Report.Name = `<script>alert(1)</script>`
	a.Report.Checks[0].Say = phrase.Phrase{Code: "say.version", Args: []string{"%s", "%n"}, Text: `<img src=x onerror=alert(1)>`}
	a.Report.Checks[1].ID, a.Report.Checks[1].Part = "nobody-knows", strings.Repeat("W", 300)
	for _, lang := range Languages() {
		page, err := HTML(a, lang)
		check(t, err)
		if strings.Contains(string(page), "<script") || strings.Contains(string(page), "<img") {
			t.Errorf("%s: text became markup", lang)
		}
		if strings.Contains(string(page), "%!") {
			t.Errorf("%s: arguments do not fit a sentence", lang)
		}
		if _, err := PDF(a, lang); err != nil {
			t.Error(err)
		}
	}
}

func TestNumbersAreWrittenAsTheLanguageDoes(t *testing.T) {
	all, err := read()
	check(t, err)
	for _, c := range []struct{ lang, in, want string }{
		{German, "13.2", "13,2"}, {Polish, "1.5 MB/s", "1,5 MB/s"}, {Chinese, "13.2", "13.2"}, {English, "13.2", "13.2"},
		{German, "1.22.1", "1.22.1"}, {German, "Debian 12.5", "Debian 12.5"}, {German, "NVIDIA A2", "NVIDIA A2"},
	} {
		if got := all[c.lang].number(c.in); got != c.want {
			t.Errorf("%s: %q, want %q", c.in, got, c.want)
		}
	}
	p := phrase.Phrase{Code: "say.wrong-answers", Args: []string{"3", "1000", "x"}, Text: "3 of 1000 …"}
	if got := all[Chinese].say(p); got != "1000 个回答中有 3 个错误或失败：x" {
		t.Errorf("in Chinese: %s", got)
	}
}

// fleet makes a box of a fleet.
func fleet(t *testing.T) (*identity.CA, identity.ID, *ecdsa.PrivateKey, [][]byte) {
	t.Helper()
	ca, err := identity.OpenCA(t.TempDir(), nil)
	check(t, err)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	id := identity.NewID()
	pem, err := ca.IssueDevice(id, "a", identity.Keys{Sign: key.Public()})
	check(t, err)
	return ca, id, key, ders(t, pem)
}

func ders(t *testing.T, text []byte) (out [][]byte) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "c.pem")
	check(t, os.WriteFile(path, text, 0o600))
	certs, err := identity.ReadCertificates(path)
	check(t, err)
	for _, c := range certs {
		out = append(out, c.Raw)
	}
	return out
}

func TestAReportIsBelievedOnlyFromTheBoxThatSignedIt(t *testing.T) {
	ca, id, key, chain := fleet(t)
	foreignCA, _, _, _ := fleet(t)
	r := sample().Report
	r.Box = id
	good, err := acceptance.Seal(r, key, chain)
	check(t, err)
	if _, err := Judge(good, id, ca.Renewing); err != nil {
		t.Fatalf("a good report: %v", err)
	}
	if _, err := Judge(good, identity.NewID(), ca.Renewing); err == nil {
		t.Error("another box sent it, and it was believed")
	}
	if _, err := Judge(good, id, foreignCA.Renewing); err == nil {
		t.Error("the certificate is of another fleet, and it was believed")
	}
	// The certificate of the box with the key of somebody else.
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	forged, err := acceptance.Seal(r, other, chain)
	check(t, err)
	if _, err := Judge(forged, id, ca.Renewing); err == nil {
		t.Error("another key signed it, and it was believed")
	}
	asked := errors.New("asked")
	if _, err := Judge(good, id, func(tls.ConnectionState) (*x509.Certificate, error) { return nil, asked }); !errors.Is(err, asked) {
		t.Errorf("nobody was asked about the certificate: %v", err)
	}
}

func TestWordsBreakWhereALineMayEnd(t *testing.T) {
	for text, want := range map[string][]string{
		"ab cd": {"ab ", "cd"}, "温度，高 ok": {"温", "度，", "高 ", "ok"}, "a": {"a"},
	} {
		if got := words(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestTicksAreRoundAndHoldTheCurve(t *testing.T) {
	for _, c := range []struct{ low, high float64 }{{41.3, 71.9}, {0, 214}, {24, 25}, {-12, 3}, {0, 0.003}} {
		got := ticks(c.low, c.high, 4)
		if len(got) < 3 || len(got) > 9 || got[0] > c.low || got[len(got)-1] < c.high {
			t.Errorf("%v: %v", c, fmt.Sprint(got))
		}
	}
}
