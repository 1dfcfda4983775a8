package boxconfig_test

import (
	"bytes"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/edgeherd/edgeherd/internal/boxconfig"
)

// doc is a document with a body below its head.
func doc(head, body string) string {
	return "kind: BoxConfig\nname: a\n" + head + "\n" + body
}

const all = `selector: name != ""`

var till = boxconfig.Facts{Box: boxconfig.BoxFacts{ID: "d-1", Name: "till-3"}, Site: "berlin", Labels: map[string]string{"line": "B7"}}

func read(t *testing.T, text string) boxconfig.Document {
	t.Helper()
	docs, err := boxconfig.ReadAll("f.yaml", []byte(text))
	if err != nil || len(docs) != 1 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	return docs[0]
}

// TestBadDocumentsAreExplained: each fault has its place and says what would do.
func TestBadDocumentsAreExplained(t *testing.T) {
	input := "runner:\n  inputs:\n    - name: dock\n      "
	for name, c := range map[string]struct{ text, want string }{
		"unknown field":       {doc(all, "agent: {sense_perod: 5s}"), `f.yaml:4:9: sense_perod is no field of agent; did you mean sense_period?`},
		"unknown section":     {doc(all, "cameras: []"), `f.yaml:4:1: cameras is no field; there are kind, name, selector, priority, agent, runner`},
		"unknown of an item":  {doc(all, input+"adress: x"), "f.yaml:7:7: adress is no field of runner.inputs[dock]; there are name, kind"},
		"of the box alone":    {doc(all, "agent: {state: /x}"), `f.yaml:4:9: state of agent stands in the file on the box alone: where things lie`},
		"of an item":          {doc(all, input+"ffmpeg: /x"), "ffmpeg of runner.inputs[dock] stands in the file on the box alone: it names programs"},
		"one of a list":       {doc(all, "runner: {routes: [{name: r, model: m, when: [tired], overflow: [{name: o, url: http://x, place: site}]}]}"), `"tired": want one of hot, busy, missing`},
		"no unit":             {doc(all, "agent: {sense_period: 5}"), `"5" has no unit; want a time such as 5s or 5m`},
		"wrong unit":          {doc(all, "agent: {sense_period: 5 seconds}"), `"5 seconds" is no time; want a number with its unit`},
		"out of range":        {doc(all, "agent: {sense_period: 2h}"), "2h is out of range; want 1s to 5m"},
		"threshold":           {doc(all, input+"min_score: 60"), `"60" is no number from 0 to 1`},
		"bytes":               {doc(all, "agent: {spool_bytes: 64MB}"), `"64MB" is no whole number; want 1048576 to`},
		"one of":              {doc(all, input+"kind: camera"), `"camera": want one of folder, http, stream, audio`},
		"a file as secret":    {doc(all, input+"password_file: /etc/shadow"), `"/etc/shadow" is no secret:NAME`},
		"template":            {doc(all, input+`path: "{{ .Box.Name"`), "runner.inputs[dock].path: unclosed action"},
		"template function":   {doc(all, input+`path: '{{ printf "%1000000d" 1 }}'`), `function "printf" is not taken in templates; there are label, lower`},
		"template loop":       {doc(all, input+`path: '{{ range .Labels }}x{{ end }}'`), "is not taken in templates: they have facts such as .Box.Name"},
		"template definition": {doc(all, input+`path: '{{ define "x" }}{{ end }}x'`), "define and block are not taken"},
		"template variable":   {doc(all, input+`path: '{{ $x := .Site }}x'`), "variables are not taken"},
		"template unquoted":   {doc(all, input+"path: {a: b}"), "wants one value: text; a template stands in quotes"},
		"empty selector":      {doc(`selector: ""`, "agent: {trial: 5s}"), "the selector is empty, which would be all boxes"},
		"no selector":         {doc("", "agent: {trial: 5s}"), "selector is missing"},
		"other kind":          {"kind: Deployment\nname: a\n" + all + "\nagent: {trial: 5s}", `kind "Deployment" is none of this program; want BoxConfig`},
		"bad name":            {"kind: BoxConfig\nname: A b\n" + all + "\nagent: {trial: 5s}", `"A b" is no name of a document`},
		"priority":            {doc(all+"\npriority: high", "agent: {trial: 5s}"), `priority: "high" is no whole number; want -1000 to 1000`},
		"sets nothing":        {doc(all, "agent: {}"), "document a sets nothing"},
		"twice":               {doc(all, "agent: {trial: 5s, trial: 6s}"), "trial is here twice"},
		"two items":           {doc(all, "runner: {inputs: [{name: a, kind: http}, {name: a}]}"), "runner.inputs has two items called a"},
		"item without a name": {doc(all, "runner: {inputs: [{kind: http}]}"), "an item needs a name"},
		"name as a template":  {doc(all, "runner: {inputs: [{name: '{{ .Site }}', kind: http}]}"), "and no template, since documents meet by it"},
		"alias":               {doc(all, "agent: &x {trial: 5s}\nrunner: *x"), "anchors and aliases are not taken"},
		"line end":            {doc(all, input+`path: "a\nb"`), "has a line end or another control character"},
		"no mapping":          {"- a", "the document wants keys with values"},
		"no yaml":             {"kind: [", "f.yaml: "},
		"nothing":             {"# nothing\n", "f.yaml has no document"},
		"too large":           {doc(all, "agent: {trial: 5s}\n"+strings.Repeat("# filler\n", 10000)), "bytes; at most 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := boxconfig.ReadAll("f.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v\nwant: %s", err, c.want)
			}
			_ = docs
		})
	}
}

// TestFaultsOfAFileAreToldTogether: with the lines of the file, also in its
// second document.
func TestFaultsOfAFileAreToldTogether(t *testing.T) {
	text := doc(all, "agent: {trial: 5}") + "\n---\n" + doc(all, "agent: {nope: 1}")
	_, err := boxconfig.ReadAll("f.yaml", []byte(text))
	if err == nil || !strings.Contains(err.Error(), "f.yaml:4:16: agent.trial") || !strings.Contains(err.Error(), "f.yaml:9:9: nope is no field of agent") {
		t.Error(err)
	}
}

// TestAFileOfNothingButMarksCostsLittle: whoever may look may ask for a comparison.
func TestAFileOfNothingButMarksCostsLittle(t *testing.T) {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, err := boxconfig.ReadAll("f.yaml", []byte(strings.Repeat("---\n", 1<<14)+"a: [\n"))
	runtime.ReadMemStats(&after)
	if err == nil || !strings.Contains(err.Error(), "f.yaml: line 16385: ") {
		t.Errorf("a fault after many marks: %v", err)
	}
	if took := after.TotalAlloc - before.TotalAlloc; took > 16<<20 {
		t.Errorf("64 KiB took %d MiB of memory", took>>20)
	}
}

func TestTemplatesAreFilledInForEachBox(t *testing.T) {
	for text, want := range map[string]string{
		`/srv/{{ .Box.Name }}/{{ .Labels.line }}`:                      "/srv/till-3/B7",
		`/{{ lower .Labels.line }}{{ upper .Site }}`:                   "/b7BERLIN",
		`{{ if eq .Site "berlin" }}/b{{ else }}/o{{ end }}`:            "/b",
		`{{ label "shelf" "none" }}-{{ label "line" "none" }}`:         "none-B7",
		`{{ if and (eq .Site "x") (not (ne .Site "x")) }}a{{ end }}/z`: "/z",
	} {
		s, err := read(t, doc(all, "runner: {inputs: [{name: c, path: '"+text+"'}]}")).Render(till)
		if err != nil || s["runner.inputs[c].path"] != want {
			t.Errorf("%s: %v %v", text, s, err)
		}
	}
	for text, want := range map[string]string{
		`{{ .Labels.shelf }}`: `f.yaml:4:35: runner.inputs[c].path: the box has no label "shelf"; {{ label "shelf" "…" }} takes another value then`,
		`{{ .Box.Nme }}`:      "there is no fact Nme; there are .Box.ID",
		`{{ .Sit }}`:          "there is no fact Sit;",
		strings.Repeat(`{{ .Labels.line }}`, 200) + strings.Repeat("x", 490): "it becomes longer than",
	} {
		facts := till
		facts.Labels = map[string]string{"line": strings.Repeat("y", 63)}
		if _, err := read(t, doc(all, "runner: {inputs: [{name: c, path: '"+text+"'}]}")).Render(facts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v", text, err)
		}
	}
	// A label is a value, whatever is in it: it never becomes structure.
	evil := till
	evil.Labels = map[string]string{"line": `x"}, {"name": "y`}
	s, err := read(t, doc(all, "runner: {inputs: [{name: c, kind: folder, pipeline: p, path: '{{ .Labels.line }}'}]}")).Render(evil)
	if err != nil {
		t.Fatal(err)
	}
	content, err := s.Content()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := boxconfig.Parse(content); err != nil || !reflect.DeepEqual(again, s) {
		t.Errorf("%s: %v, %v", content, again, err)
	}
}

// TestSettingsOfATemplateAreChecked: what comes out must be of the field's type.
func TestSettingsOfATemplateAreChecked(t *testing.T) {
	s, err := read(t, doc(all, "agent: {sense_period: '{{ label \"p\" \"5s\" }}'}")).Render(till)
	if err != nil || s["agent.sense_period"] != "5s" {
		t.Error(s, err)
	}
	_, err = read(t, doc(all, "agent: {sense_period: '{{ .Labels.line }}'}")).Render(till)
	if err == nil || !strings.Contains(err.Error(), `agent.sense_period: "B7" is no time`) {
		t.Error(err)
	}
}

func layer(name string, priority int, s boxconfig.Settings) boxconfig.Layer {
	return boxconfig.Layer{Document: name, Priority: priority, Settings: s}
}

func TestTheHigherPriorityCountsAndEqualOnesContradict(t *testing.T) {
	low := layer("low:1", 0, boxconfig.Settings{"agent.trial": "5s", "runner.inputs[c].path": "/a"})
	high := layer("high:2", 5, boxconfig.Settings{"agent.trial": "6s", "runner.inputs[c].min_score": 0.5})
	for _, order := range [][]boxconfig.Layer{{low, high}, {high, low}} {
		s, from, err := boxconfig.Merge(order)
		want := boxconfig.Settings{"agent.trial": "6s", "runner.inputs[c].path": "/a", "runner.inputs[c].min_score": 0.5}
		if err != nil || !reflect.DeepEqual(s, want) || from["agent.trial"] != "high:2" || from["runner.inputs[c].path"] != "low:1" {
			t.Errorf("%v %v %v", s, from, err)
		}
	}
	_, _, err := boxconfig.Merge([]boxconfig.Layer{low, layer("other:7", 0, boxconfig.Settings{"agent.trial": "5s"})})
	if err == nil || !strings.Contains(err.Error(), "documents low:1 and other:7 both set agent.trial at priority 0; give one of them another priority") {
		t.Error(err)
	}
}

// TestContentIsCheckedAgain: what a document cannot say, content cannot either.
func TestContentIsCheckedAgain(t *testing.T) {
	for text, want := range map[string]string{
		`{"agent":{"state":"/x"}}`:                                                                               "agent.state is no field",
		`{"runner":{"backends":[]}}`:                                                                             "runner.backends is no field",
		`{"agent":{"sense_period":5}}`:                                                                           "is not of the type time",
		`{"agent":{"sense_period":"1ms"}}`:                                                                       "out of range",
		`{"agent":{"blackbox":"yes"}}`:                                                                           "is not of the type true or false",
		`{"agent":{"spool_bytes":"5"}}`:                                                                          "is not of the type whole number",
		`{"agent":{"sensors":{"a":"sofa"}}}`:                                                                     "want one of die, inlet",
		`{"agent":[]}`:                                                                                           "agent is no section",
		`{"runner":{"inputs":[{"kind":"folder"}]}}`:                                                              "has an item without a name",
		`{"runner":{"inputs":[{"name":"a","kind":"folder"},{"name":"a"}]}}`:                                      "or two of one",
		`{"runner":{"inputs":[{"name":"a","kind":"folder","pipeline":"p"}]}}`:                                    "path is required",
		`{"runner":{"inputs":[{"name":"a","pipeline":"p"}]}}`:                                                    "kind is required",
		`{"runner":{"inputs":[{"name":"a","kind":"audio","path":"/x"}]}}`:                                        "pipeline is required",
		`{"runner":{"inputs":[{"name":"a","kind":"http","pipeline":"p","url":"u","path":"/x"}]}}`:                "kind http does not take path",
		`{"runner":{"inputs":[{"name":"a","kind":"http","pipeline":"p","url":"u","username":"u"}]}}`:             "username and password_file go together",
		`{"runner":{"inputs":[{"name":"a","kind":"http","pipeline":"p","url":"u","token_file":"/etc/shadow"}]}}`: "is no secret:NAME",
		`{"runner":{"results":{"targets":[{"name":"a","kind":"mqtt"}]}}}`:                                        "kind and url are required",
		`{"runner":{"routes":[{"name":"a","model":"m"}]}}`:                                                       "at least one server under overflow",
		`{"runner":{"routes":[{"name":"a","model":"m","overflow":[{"name":"o","url":"http://x"}]}]}}`:            "runner.routes[a].overflow[o]: url and place are required",
		`{"agent":{"proxy_auth_file":"secret:p"}}`:                                                               "without agent.proxy",
		`{"agent":`: "parse settings",
		`{"agent":{"trial":"5s` + strings.Repeat(" ", 25<<10) + `"}}`: "at most 24576",
	} {
		if s, err := boxconfig.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.80s: %v, %v, want %s", text, s, err, want)
		}
	}
	big := boxconfig.Settings{}
	for i := range 10 {
		big[fmt.Sprintf("runner.inputs[c%d].path", i)] = strings.Repeat("x", 4000)
	}
	if _, err := big.Content(); err == nil || !strings.Contains(err.Error(), "at most 24576") {
		t.Error(err)
	}
}

func TestDefaultsOfFieldsAreValuesOfThem(t *testing.T) {
	for _, f := range boxconfig.Fields() {
		if f.Doc == "" || f.Type == "" {
			t.Errorf("%s is not documented", f.Path)
		}
		if f.Default == "" || !strings.Contains(f.Path, ".") {
			continue
		}
		body := strings.ReplaceAll(f.Path, "[]", "[x]")
		s := boxconfig.Settings{body: f.Default}
		switch f.Type {
		case boxconfig.Whole, boxconfig.Share:
			continue // 0 may stand for "no bound" or "as the program says"
		case boxconfig.Flag:
			s[body] = f.Default == "true"
		case boxconfig.Duration:
			if _, err := time.ParseDuration(f.Default); err != nil {
				t.Error(err)
			}
		}
		content, err := s.Content()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := boxconfig.Parse(content); err != nil && !strings.Contains(err.Error(), "required") {
			t.Errorf("%s: default %s: %v", f.Path, f.Default, err)
		}
	}
}

func TestVersionsAreNamedByWhatTheySay(t *testing.T) {
	a := read(t, doc(all, "agent: {trial: 5s, probation: 2m}"))
	b := read(t, doc(all, "# a comment\nagent:\n  probation: 2m\n  trial: 5s"))
	c := read(t, doc(all, "agent: {trial: 6s, probation: 2m}"))
	if !bytes.Equal(a.Canonical(), b.Canonical()) || bytes.Equal(a.Canonical(), c.Canonical()) || a.Digest("1") == a.Digest("2") || a.Digest("1") != b.Digest("1") {
		t.Error("a comment is a change, or a value is none")
	}
}

// FuzzParse: content that is taken is written the same again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"agent":{"sensors":{"hwmon/x:temp1":"die"},"trial":"5s","blackbox":true},"runner":{"inputs":[{"name":"a","kind":"folder","pipeline":"p","path":"/x","min_score":0.5}],"results":{"targets":[{"name":"t","kind":"webhook","url":"http://x","inputs":["a"]}]},"routes":[{"name":"r","model":"m","when":["hot"],"overflow":[{"name":"o","url":"http://x","place":"site"}]}]}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := boxconfig.Parse(data)
		if err != nil {
			return
		}
		once, err := s.Content()
		if err != nil {
			t.Skip() // longer than it was: escapes
		}
		again, err := boxconfig.Parse(once)
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("%s: %v, %v", once, again, err)
		}
	})
}
