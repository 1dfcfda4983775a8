package accept

import (
	"strconv"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// view is a report in the words of one language, as page and PDF both show it.
type view struct {
	Lang                     string
	Title                    string
	Verdict, VerdictText     string
	Tone                     string // passed, passed-with-remarks, failed, aborted
	Count                    string
	Simulated, SimulatedText string // empty on a real board
	Facts                    []fact
	Levels                   []level
	Head                     [4]string // of the tables
	CurveTitle               string
	Panels                   []panel
	Times                    []mark // of all panels
	SignatureTitle           string
	Signed, Key              string
	Verified                 string
	HandedOver, TakenOver    string
	NameDate                 string
	MissingGlyphs            string
	Page                     func(page, of int) string
}

type fact struct{ Name, Value string }

type level struct {
	Title string
	Note  string // in place of rows
	Rows  []row
}

type row struct {
	Check, Measured, Expected string
	Tone                      acceptance.Result
	Result                    string
	Say                       string
}

func (d dictionary) view(a fleetapi.AcceptanceReport) view {
	r, verdict := a.Report, string(a.Verdict)
	v := view{
		Lang: d.lang, Title: d.word("report"), Verdict: d.word("verdict." + verdict), VerdictText: d.word("verdict-text." + verdict), Tone: verdict,
		Count: d.word("count", strconv.Itoa(a.Passed), strconv.Itoa(a.Warned), strconv.Itoa(a.Failed), strconv.Itoa(a.Skipped)),
		Head:  [4]string{d.word("check"), d.word("measured"), d.word("expected"), d.word("result")}, CurveTitle: d.word("curve"),
		SignatureTitle: d.word("signature"), Signed: d.word("signed"), Key: a.Key,
		Verified:   d.word("verified") + " " + d.word("received") + ": " + when(a.Received) + " UTC",
		HandedOver: d.word("handed-over"), TakenOver: d.word("taken-over"), NameDate: d.word("name-date"), MissingGlyphs: d.word("missing-glyphs"),
		Page: func(page, of int) string { return d.word("page", strconv.Itoa(page), strconv.Itoa(of)) },
	}
	if r.Simulated {
		v.Simulated, v.SimulatedText = d.word("simulated"), d.word("simulated-text")
	}
	list := r.Delivery
	if list == "" {
		list = d.word("no-list")
	}
	for _, f := range []fact{
		{d.word("box"), r.Name}, {d.word("place"), r.Site},
		{d.word("machine"), joined(r.Vendor, r.Product)}, {d.word("serial"), r.Serial},
		{d.word("began"), when(r.Started) + " UTC"}, {d.word("ended"), when(r.Ended) + " UTC"},
		{d.word("by"), r.By}, {d.word("list"), list},
		{d.word("agent"), joined("edgeherd-agent", r.Agent)}, {d.word("id"), r.ID},
		{d.word("boxid"), string(r.Box)},
	} {
		if f.Value == "" {
			f.Value = "–"
		}
		v.Facts = append(v.Facts, f)
	}
	asked := map[acceptance.Level]bool{}
	for _, l := range r.Levels {
		asked[l] = true
	}
	for _, l := range acceptance.Levels() {
		out := level{Title: d.word("level." + string(l))}
		for _, c := range r.Checks {
			if c.Level == l {
				out.Rows = append(out.Rows, row{d.title(c), d.value(c.Value), d.say(c.Expect), c.Result, d.word("result." + string(c.Result)), d.say(c.Say)})
			}
		}
		switch {
		case len(out.Rows) > 0:
		case asked[l]:
			out.Note = d.word("verdict.aborted")
		default:
			out.Note = d.word("not-asked")
		}
		v.Levels = append(v.Levels, out)
	}
	v.Panels, v.Times = d.panels(r)
	return v
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }

func joined(a, b string) string {
	switch {
	case a == "" || b == "":
		return a + b
	}
	return a + " " + b
}
