package sparkplug

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/export/exporttest"
	"github.com/edgeherd/edgeherd/internal/assets"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// decoded is one message as the decoder of others reads it.
type decoded struct {
	Topic   string
	Ms      int64
	Seq     *int
	Metrics []decodedMetric
}

type decodedMetric struct {
	Name       string
	Alias      uint64
	Ms         int64
	Type       string
	Typed      bool
	Value      any
	Double     *float64
	Historical bool
	Null       bool
}

// heard is one message as it came from the broker.
type heard struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
	qos     byte
	retain  bool
}

// decodeAll lets npm's sparkplug-payload read messages.
func decodeAll(t *testing.T, messages []heard) []decoded {
	t.Helper()
	modules, err := filepath.Abs("../../../.ci/npm")
	must(t, err)
	if _, err := os.Stat(filepath.Join(modules, "node_modules", "sparkplug-payload")); err != nil {
		assets.Absent(t, errors.New("sparkplug-payload is not installed; run `make deps`"))
	}
	var in strings.Builder
	for _, m := range messages {
		line, err := json.Marshal(m)
		must(t, err)
		in.Write(append(line, '\n'))
	}
	cmd := exec.CommandContext(t.Context(), "node", "testdata/decode.cjs", modules)
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		t.Fatalf("%v: %s", err, exit.Stderr)
	}
	must(t, err)
	var all []decoded
	for line := range strings.Lines(string(out)) {
		var d decoded
		must(t, json.Unmarshal([]byte(line), &d))
		all = append(all, d)
	}
	if len(all) != len(messages) {
		t.Fatalf("%d of %d messages were decoded", len(all), len(messages))
	}
	return all
}

// sample is one value that a host has.
type sample struct {
	device, metric string
	ms             int64
}

// host is a host application that keeps to Sparkplug 3.0, and complains about
// an edge node that does not. It shares no code with the node.
type host struct {
	opts    Options
	alive   bool
	seq     int
	bdSeq   int
	bdSeen  bool
	devices map[string]map[uint64]string // born: name by alias
	names   map[string]map[string]bool   // born: names
	owner   map[uint64]string            // of an alias, in this session
	newest  map[string]int64             // by device and metric: of what is current
	have    map[sample]float64
	twice   int // samples that came again
	history int
	counts  map[string]int
	faults  []string
}

func newHost(opts Options) *host {
	return &host{opts: opts.withDefaults(), have: map[sample]float64{}, counts: map[string]int{}, bdSeq: -1}
}

func (h *host) fault(format string, args ...any) {
	if len(h.faults) < 20 {
		h.faults = append(h.faults, fmt.Sprintf(format, args...))
	}
}

// lost is what a host notes when its own connection ends: it knows nothing more
// of the edge node.
const lost = "lost"

func (h *host) hear(d decoded) {
	if d.Topic == lost {
		h.alive, h.bdSeen = false, false
		return
	}
	parts := strings.Split(d.Topic, "/")
	if len(parts) < 4 || parts[0] != "spBv1.0" || parts[1] != h.opts.Group || parts[3] != h.opts.Node {
		h.fault("topic %s", d.Topic)
		return
	}
	kind, device := parts[2], strings.Join(parts[4:], "/")
	if kind == "NCMD" {
		return // our own
	}
	h.counts[kind]++
	if (kind[0] == 'D') != (device != "") {
		h.fault("%s has device %q", kind, device)
	}
	if d.Ms == 0 {
		h.fault("%s without timestamp", d.Topic)
	}
	switch kind {
	case "NDEATH":
		h.nodeDeath(d)
		return
	case "NBIRTH":
		h.nodeBirth(d)
	default:
		h.inOrder(d)
	}
	switch kind {
	case "DBIRTH":
		h.deviceBirth(device, d)
	case "DDEATH":
		if h.devices[device] == nil || len(d.Metrics) > 0 {
			h.fault("DDEATH of %s, which is not born, or with metrics", device)
		}
		delete(h.devices, device)
	case "DDATA", "NDATA":
		h.data(device, d)
	}
}

func (h *host) inOrder(d decoded) {
	if !h.alive {
		h.fault("%s before NBIRTH", d.Topic)
	}
	want := (h.seq + 1) % 256
	if d.Seq == nil || *d.Seq != want {
		h.fault("%s: seq is not %d", d.Topic, want)
		return
	}
	h.seq = want
}

func (h *host) nodeDeath(d decoded) {
	if d.Seq != nil || len(d.Metrics) != 1 || d.Metrics[0].Name != "bdSeq" || d.Metrics[0].Type != "Int64" {
		h.fault("NDEATH %+v", d)
		return
	}
	if bd := int(d.Metrics[0].Value.(float64)); bd == h.bdSeq {
		h.alive, h.devices = false, nil
	}
}

func (h *host) nodeBirth(d decoded) {
	if d.Seq == nil || *d.Seq != 0 {
		h.fault("NBIRTH without seq 0")
	}
	h.seq = 0
	h.devices, h.names = map[string]map[uint64]string{"": {}}, map[string]map[string]bool{"": {}}
	h.owner, h.newest = map[uint64]string{}, map[string]int64{}
	has := map[string]decodedMetric{}
	for _, m := range d.Metrics {
		has[m.Name] = m
	}
	bd := int(has["bdSeq"].Value.(float64))
	if h.alive && bd != h.bdSeq {
		h.fault("rebirth with bdSeq %d, was %d", bd, h.bdSeq)
	}
	if !h.alive && h.bdSeen && bd != (h.bdSeq+1)%256 {
		h.fault("bdSeq %d after %d", bd, h.bdSeq)
	}
	h.alive, h.bdSeq, h.bdSeen = true, bd, true
	if r, ok := has["Node Control/Rebirth"]; !ok || r.Value != false || r.Type != "Boolean" || r.Alias != 0 {
		h.fault("NBIRTH: rebirth is %+v", r)
	}
	h.names_("", d)
}

// names_ takes the metrics of a birth.
func (h *host) names_(device string, d decoded) {
	for _, m := range d.Metrics {
		if m.Name == "" || !m.Typed || m.Ms == 0 || m.Value == nil && !m.Null || h.names[device][m.Name] {
			h.fault("birth of %q: %+v", device, m)
		}
		h.names[device][m.Name] = true
		if m.Alias == 0 {
			continue
		}
		if was, taken := h.owner[m.Alias]; h.opts.Names || taken && was != device+" "+m.Name {
			h.fault("alias %d of %s %s is that of %s", m.Alias, device, m.Name, was)
		}
		h.owner[m.Alias] = device + " " + m.Name
		h.devices[device][m.Alias] = m.Name
	}
}

func (h *host) deviceBirth(device string, d decoded) {
	h.devices[device], h.names[device] = map[uint64]string{}, map[string]bool{}
	h.names_(device, d)
}

func (h *host) data(device string, d decoded) {
	byAlias := h.devices[device]
	if byAlias == nil {
		h.fault("data of %s, which is not born", device)
		return
	}
	if len(d.Metrics) == 0 {
		h.fault("data of %s without metrics", device)
	}
	for _, m := range d.Metrics {
		name := m.Name
		if h.opts.Names == (m.Alias != 0) || h.opts.Names == (m.Name == "") {
			h.fault("data of %s: name %q and alias %d", device, m.Name, m.Alias)
		}
		if !h.opts.Names {
			name = byAlias[m.Alias]
		}
		if !h.names[device][name] {
			h.fault("data of %s: %q (alias %d) was not in the birth", device, name, m.Alias)
		}
		if m.Typed != h.opts.IncludeDatatype || m.Ms == 0 {
			h.fault("data of %s: %+v", device, m)
		}
		if device == "" {
			continue
		}
		h.take(device, name, m)
	}
}

func (h *host) take(device, name string, m decodedMetric) {
	// Without a type only the field of the wire tells, as the birth said.
	if m.Double == nil || m.Typed && m.Value != *m.Double || !m.Typed && m.Value != nil {
		h.fault("%s %s: value %v, field %v", device, name, m.Value, m.Double)
		return
	}
	key := device + " " + name
	if m.Historical {
		h.history++
	} else {
		if m.Ms <= h.newest[key] {
			h.fault("%s: %d after %d is not marked historical", key, m.Ms, h.newest[key])
		}
		h.newest[key] = m.Ms
	}
	s := sample{device, name, m.Ms}
	if was, again := h.have[s]; again {
		h.twice++
		if was != *m.Double {
			h.fault("%+v: %v, was %v", s, *m.Double, was)
		}
	}
	h.have[s] = *m.Double
}

// check compares what the host has with what is stored.
func (h *host) check(t *testing.T, rows []export.Tailed) {
	t.Helper()
	for _, f := range h.faults {
		t.Error(f)
	}
	want, missing := 0, 0
	for _, r := range rows {
		for m, def := range r.Samples.Schema.Metrics {
			if !h.opts.Series.Match(def.Name) {
				continue
			}
			name, label := export.SplitMetric(def.Name)
			if label != "" {
				name += "/" + label
			}
			for row, rel := range r.Samples.TimesMs {
				v := r.Samples.Values[m][row]
				if v != v { // missing
					continue
				}
				want++
				if got, ok := h.have[sample{string(r.Box), name, r.StartMs + rel}]; !ok || got != v {
					missing++
				}
			}
		}
	}
	if missing > 0 || len(h.have) != want {
		t.Errorf("%d of %d samples are missing or differ, the host has %d", missing, want, len(h.have))
	}
}

// TestAnyOrderOfEventsKeepsTheRules drives a node at random and lets another
// implementation read what it says.
func TestAnyOrderOfEventsKeepsTheRules(t *testing.T) {
	for _, c := range []struct {
		name string
		opts Options
	}{
		{"aliases", Options{}},
		{"aliases with type", Options{IncludeDatatype: true}},
		{"names", Options{Names: true}},
		{"names with type, everything", Options{Names: true, IncludeDatatype: true, Series: export.Series{"*"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			seed := assets.Seed(t)
			t.Logf("seed %d", seed)
			said, rows := drive(rand.New(rand.NewPCG(seed, 0)), c.opts)
			h := newHost(c.opts)
			for _, d := range decodeAll(t, said) {
				h.hear(d)
			}
			h.check(t, rows)
			for _, kind := range []string{"NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"} {
				if h.counts[kind] == 0 {
					t.Errorf("no %s: the test proves too little", kind)
				}
			}
			if h.history == 0 || h.twice == 0 {
				t.Errorf("%d historical, %d twice: the test proves too little", h.history, h.twice)
			}
		})
	}
}

// drive makes a life of a node: blocks in any order, boxes that come and go,
// new sensors, rebirths, lost connections, replays.
func drive(r *rand.Rand, opts Options) (said []heard, rows []export.Tailed) {
	opts = opts.withDefaults()
	n, now, bdSeq := newNode(&opts), int64(1_700_000_000_000), uint8(250)
	say := func(messages []message) {
		for _, m := range messages {
			said = append(said, heard{Topic: m.topic, Payload: base64.StdEncoding.EncodeToString(m.payload)})
		}
	}
	boxes := make([]export.Box, 6)
	for i := range boxes {
		boxes[i] = export.Box{ID: exporttest.Box(i), Name: fmt.Sprint("box-", i), Site: "berlin", Connected: true}
	}
	n.enlist(boxes)
	say(n.birth(now, bdSeq))
	next, used := make([]int, len(boxes)), map[[2]int64]bool{}
	for range 600 {
		now += int64(r.IntN(20_000))
		switch i := r.IntN(len(boxes)); {
		case r.IntN(30) == 0:
			say(n.birth(now, bdSeq)) // a host asks
		case r.IntN(40) == 0: // the connection breaks
			say([]message{{topic: n.topic("NDEATH", ""), payload: death(now, bdSeq)}})
			bdSeq++
			n.enlist(boxes)
			say(n.birth(now, bdSeq))
		case r.IntN(10) == 0:
			boxes[i].Connected = !boxes[i].Connected
			if r.IntN(4) == 0 {
				boxes[i].Name += "x"
			}
			say(n.presence(boxes, now))
		case r.IntN(20) == 0 && len(rows) > 0:
			say(n.data(rows[r.IntN(len(rows))], now)) // again
		default:
			minute := now/60_000 - 1
			if r.IntN(5) == 0 {
				minute -= 60 * 24 // backlog
			}
			for used[[2]int64{int64(i), minute}] {
				minute--
			}
			used[[2]int64{int64(i), minute}] = true
			t := exporttest.Rows(i, next[i], (minute-int64(next[i]))*60_000)
			if next[i] > 20 { // a sensor was plugged in
				t.Samples.Schema.Metrics[1].Name = "temp_celsius{nvme}"
			}
			next[i]++
			rows = append(rows, t)
			say(n.data(t, now))
		}
	}
	return said, rows
}

func TestOptionsThatCannotWorkAreNamed(t *testing.T) {
	for _, c := range []struct {
		key    string
		change func(*Options)
	}{
		{"", func(*Options) {}},
		{"broker", func(o *Options) { o.Broker = "broker.example.com:1883" }},
		{"broker", func(o *Options) { o.Broker = "mqtts://a:b@broker.example.com:8883" }},
		{"broker", func(o *Options) { o.Broker = "mqtts://broker.example.com" }},
		{"broker", func(o *Options) { o.Broker, o.User, o.PasswordFile = "mqtt://broker.example.com:1883", "a", "b" }},
		{"group", func(o *Options) { o.Group = "a/b" }},
		{"node", func(o *Options) { o.Node = "+" }},
		{"primary_host", func(o *Options) { o.PrimaryHost = "#" }},
		{"series", func(o *Options) { o.Series = export.Series{"["} }},
		{"user", func(o *Options) { o.User = "a" }},
		{"ca_file", func(o *Options) { o.Broker, o.CAFile = "mqtt://broker.example.com:1883", "x" }},
	} {
		o := Options{Broker: "mqtts://broker.example.com:8883"}
		c.change(&o)
		err := o.Check()
		var field *export.FieldError
		if c.key == "" && err != nil || c.key != "" && (!errors.As(err, &field) || field.Key != c.key) {
			t.Errorf("want %q: %v", c.key, err)
		}
	}
}

// FuzzCommand: whatever a host sends, the answer is a list within the bounds or
// an error without one.
func FuzzCommand(f *testing.F) {
	f.Add(encodePayload(1, noSeq, []metric{{name: rebirth, ms: 1, datatype: typeBoolean, boolean: true}}))
	f.Add([]byte{0x12, 0x02, 0x70})
	f.Fuzz(func(t *testing.T, data []byte) {
		cmds, err := decodeCommand(data)
		if err != nil && cmds != nil || len(cmds) > maxCommands {
			t.Errorf("%d commands, %v", len(cmds), err)
		}
		for _, c := range cmds {
			again, err := decodeCommand(encodePayload(1, noSeq, []metric{{name: c.name, ms: 1, datatype: typeBoolean, boolean: c.on}}))
			if err != nil || len(again) != 1 || again[0] != c {
				t.Errorf("%+v reads back as %+v, %v", c, again, err)
			}
		}
	})
}

// FuzzState: what is no STATE says nothing and changes nothing, and time does
// not run backwards.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"online":true,"timestamp":7}`))
	f.Add([]byte(`{"online":false,"timestamp":-7}`))
	f.Add([]byte(`OFFLINE`))
	f.Add([]byte(`{"online":1}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		h := hostState{last: 5}
		online, news := h.hear(body)
		if h.last < 5 || !news && (online || h.last != 5) {
			t.Errorf("%q: online %v, news %v, last %d", body, online, news, h.last)
		}
	})
}
