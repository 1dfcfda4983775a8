package sparkplug

import (
	"cmp"
	"maps"
	"math"
	"slices"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// The rules of Sparkplug 3.0 that this file keeps, by their numbers there:
//
//	topics-nbirth-seq-num              NBIRTH has seq 0, each message one more, 255 is followed by 0
//	payloads-dbirth-order              all DBIRTH follow NBIRTH at once, before any data
//	topics-dbirth-metric-reqs          what DDATA brings, DBIRTH has named; a new metric means a new DBIRTH
//	payloads-alias-uniqueness          one alias, one metric of one device
//	payloads-alias-data-cmd-requirement  with an alias, data has no name
//	data-commands-rebirth-name-aliases Node Control/Rebirth has no alias
//	data-publish-nbirth-order          what is not historical comes in the order of time

// rebirth is the command every edge node must know.
const rebirth = "Node Control/Rebirth"

// maxValues of one DDATA: some 20 KB.
const maxValues = 1000

// message is one publication.
type message struct {
	topic   string
	payload []byte
	samples int // stored samples in it
}

// node is the edge node: what was told to hosts in this session. It is pure;
// the caller publishes what its methods return, in that order.
type node struct {
	opts    *Options
	seq     uint8
	aliases uint64
	devices map[identity.ID]*device
	boxes   int64
	online  int64
}

// device is a box as hosts know it.
type device struct {
	box    export.Box
	born   bool
	byName map[string]*channel
	all    []*channel // in the order in which they appeared
	names  map[string]bool
}

// channel is one metric of a device.
type channel struct {
	name  string
	alias uint64
	known bool    // the fields below are set
	ms    int64   // of the newest sample that was not historical
	value float64 // then
}

func newNode(opts *Options) *node {
	return &node{opts: opts, aliases: nodeAliases, devices: map[identity.ID]*device{}}
}

// Aliases of the node's own metrics; those of devices follow.
const (
	aliasBoxes = iota + 1
	aliasOnline
	nodeAliases
)

func (n *node) topic(kind string, id identity.ID) string {
	t := "spBv1.0/" + n.opts.Group + "/" + kind + "/" + n.opts.Node
	if id != "" {
		t += "/" + string(id)
	}
	return t
}

// send makes a message with the next sequence number.
func (n *node) send(kind string, id identity.ID, nowMs int64, metrics []metric) message {
	n.seq++
	return message{topic: n.topic(kind, id), payload: encodePayload(nowMs, int(n.seq), metrics)}
}

func bdSeqMetric(nowMs int64, bdSeq uint8) metric {
	return metric{name: "bdSeq", ms: nowMs, datatype: typeInt64, integer: int64(bdSeq)}
}

// death is the payload of NDEATH for the session whose CONNECT had bdSeq.
func death(nowMs int64, bdSeq uint8) []byte {
	return encodePayload(nowMs, noSeq, []metric{bdSeqMetric(nowMs, bdSeq)})
}

// birth begins a session, or begins it anew for a host that asked for it.
func (n *node) birth(nowMs int64, bdSeq uint8) []message {
	n.seq = math.MaxUint8 // the next one is 0
	out := []message{n.send("NBIRTH", "", nowMs, append([]metric{
		bdSeqMetric(nowMs, bdSeq),
		{name: rebirth, ms: nowMs, datatype: typeBoolean},
		{name: "Properties/Version", ms: nowMs, datatype: typeString, text: n.opts.Version},
	}, n.counts(nowMs, true)...))}
	for _, id := range slices.Sorted(maps.Keys(n.devices)) {
		d := n.devices[id]
		if d.born = d.box.Connected && len(d.all) > 0; d.born {
			out = append(out, n.deviceBirth(d, nowMs))
		}
	}
	return out
}

func (n *node) counts(nowMs int64, birth bool) []metric {
	out := []metric{
		{name: "Boxes/Enrolled", alias: aliasBoxes, ms: nowMs, datatype: typeInt64, integer: n.boxes},
		{name: "Boxes/Connected", alias: aliasOnline, ms: nowMs, datatype: typeInt64, integer: n.online},
	}
	for i := range out {
		n.dress(&out[i], birth)
	}
	return out
}

// dress leaves out what the options do not want: a birth has name and type, data
// the alias or the name.
func (n *node) dress(m *metric, birth bool) {
	if n.opts.Names {
		m.alias = 0
	}
	if birth {
		return
	}
	if !n.opts.Names {
		m.name = ""
	}
	m.bare = !n.opts.IncludeDatatype
}

func (n *node) deviceBirth(d *device, nowMs int64) message {
	metrics := []metric{
		{name: "Properties/Name", ms: nowMs, datatype: typeString, text: d.box.Name},
		{name: "Properties/Site", ms: nowMs, datatype: typeString, text: d.box.Site},
	}
	for _, c := range d.all {
		m := metric{name: c.name, alias: c.alias, ms: nowMs, datatype: typeDouble, null: !c.known}
		if c.known {
			m.ms, m.double = c.ms, c.value
		}
		n.dress(&m, true)
		metrics = append(metrics, m)
	}
	return n.send("DBIRTH", d.box.ID, nowMs, metrics)
}

// value is one sample on its way.
type value struct {
	c  *channel
	ms int64
	v  float64
}

// data publishes what one block holds.
func (n *node) data(t export.Tailed, nowMs int64) (out []message) {
	d := n.device(t.Box)
	values, fresh := n.values(d, t)
	if len(values) == 0 {
		return nil
	}
	if fresh || !d.born {
		d.born = true
		out = append(out, n.deviceBirth(d, nowMs))
	}
	slices.SortStableFunc(values, func(a, b value) int { return cmp.Compare(a.ms, b.ms) })
	for len(values) > 0 {
		some := values[:min(len(values), maxValues)]
		values = values[len(some):]
		metrics := make([]metric, 0, len(some))
		for _, s := range some {
			m := metric{name: s.c.name, alias: s.c.alias, ms: s.ms, datatype: typeDouble, double: s.v}
			// Backlog, and what was sent before the connection broke: a host
			// files it without showing it as the present value.
			m.historical = s.c.known && s.ms <= s.c.ms || nowMs-s.ms > n.opts.HistoricalAfter.Milliseconds()
			if !m.historical {
				s.c.known, s.c.ms, s.c.value = true, s.ms, s.v
			}
			n.dress(&m, false)
			metrics = append(metrics, m)
		}
		one := n.send("DDATA", t.Box, nowMs, metrics)
		one.samples = len(some)
		out = append(out, one)
	}
	return out
}

func (n *node) device(id identity.ID) *device {
	d := n.devices[id]
	if d == nil {
		d = &device{box: export.Box{ID: id}, byName: map[string]*channel{}, names: map[string]bool{}}
		n.devices[id] = d
	}
	return d
}

// values lists the chosen samples of a block; fresh says that one belongs to a
// metric the device did not have.
func (n *node) values(d *device, t export.Tailed) (out []value, fresh bool) {
	for m, def := range t.Samples.Schema.Metrics {
		if !n.opts.Series.Match(def.Name) {
			continue
		}
		c := d.byName[def.Name]
		if c == nil {
			n.aliases++
			c = &channel{name: d.free(def.Name), alias: n.aliases}
			d.byName[def.Name] = c
			d.all = append(d.all, c)
			fresh = true
		}
		for row, rel := range t.Samples.TimesMs {
			if v := t.Samples.Values[m][row]; !math.IsNaN(v) {
				out = append(out, value{c, t.StartMs + rel, v})
			}
		}
	}
	return out, fresh
}

// free turns fan_rpm{rear} into fan_rpm/rear, which hosts show as a folder,
// unless the device has that name already.
func (d *device) free(raw string) string {
	name, label := export.SplitMetric(raw)
	if label != "" {
		name += "/" + label
	}
	if d.names[name] {
		name = raw
	}
	d.names[name] = true
	return name
}

// presence tells what changed about the boxes: births and deaths of devices,
// and the node's own counts.
func (n *node) presence(boxes []export.Box, nowMs int64) (out []message) {
	there := map[identity.ID]bool{}
	total, online := int64(len(boxes)), int64(0)
	for _, b := range boxes {
		there[b.ID] = true
		if b.Connected {
			online++
		}
		d := n.device(b.ID)
		renamed := d.box.Name != b.Name || d.box.Site != b.Site
		d.box = b
		switch {
		case d.born && !b.Connected:
			d.born = false
			out = append(out, n.send("DDEATH", b.ID, nowMs, nil))
		case b.Connected && len(d.all) > 0 && (!d.born || renamed):
			d.born = true
			out = append(out, n.deviceBirth(d, nowMs))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(n.devices)) {
		if d := n.devices[id]; !there[id] { // was removed from the fleet
			delete(n.devices, id)
			if d.born {
				out = append(out, n.send("DDEATH", id, nowMs, nil))
			}
		}
	}
	if total != n.boxes || online != n.online {
		n.boxes, n.online = total, online
		out = append(out, n.send("NDATA", "", nowMs, n.counts(nowMs, false)))
	}
	return out
}

// enlist takes the boxes before a birth, which tells all of it.
func (n *node) enlist(boxes []export.Box) {
	there := map[identity.ID]bool{}
	n.boxes, n.online = int64(len(boxes)), 0
	for _, b := range boxes {
		there[b.ID] = true
		if b.Connected {
			n.online++
		}
		n.device(b.ID).box = b
	}
	maps.DeleteFunc(n.devices, func(id identity.ID, _ *device) bool { return !there[id] })
}
