package boxconfig

import (
	"regexp"
	"strings"
)

// Type is what a setting takes.
type Type string

// The types.
const (
	Text     Type = "text"
	Whole    Type = "whole number"
	Share    Type = "share" // a number from 0 to 1
	Duration Type = "time"
	Flag     Type = "true or false"
	Texts    Type = "list of texts"
	Words    Type = "texts by name"
	Items    Type = "list of items with a name"
	Group    Type = "section"
)

// Field documents one setting. Low and High bound numbers, and times in seconds.
type Field struct {
	Path      string // items are written as runner.inputs[].path
	Type      Type
	Unit      string
	Default   string // as it would be written; empty: none
	Low, High float64
	OneOf     []string
	// Secret says that only secret:NAME is taken.
	Secret bool
	// Host says that it is an address to which the box sends what it has: results,
	// inputs, credentials.
	Host bool
	// Way says that a wrong value may cost the box its connection.
	Way bool
	Doc string
}

const (
	kib = 1 << 10
	mib = 1 << 20
	tib = 1 << 40
)

// fields are all settings, in the order in which they are explained. Paths are
// keys of agent.yaml and runner.yaml; tests of those programs hold them to it.
var fields = []Field{
	{Path: "agent", Type: Group, Doc: "Settings of the agent. It starts anew with them; serving goes on."},
	{Path: "agent.sense_period", Type: Duration, Default: "10s", Low: 1, High: 300, Doc: "How often sensors are read."},
	{Path: "agent.seal_period", Type: Duration, Default: "1m", Low: 1, High: 3600, Doc: "How often readings are committed to disk; each commit writes about 32 KB."},
	{Path: "agent.sensors", Type: Words, OneOf: []string{"die", "inlet", "board", "ssd", "exhaust", "room", "power", "fan", "none"}, Doc: "What sensors stand for where the agent chooses wrongly: the key of a sensor to its role. edgeherd-agent sensors lists the keys."},
	{Path: "agent.trial", Type: Duration, Default: "30s", Low: 1, High: 86400, Doc: "How long a new model is watched before it is kept."},
	{Path: "agent.probation", Type: Duration, Default: "3m", Low: 1, High: 600, Doc: "How long a new agent must be well before it stays."},
	{Path: "agent.first_delay", Type: Duration, Default: "0s", Low: 0, High: 3600, Way: true, Doc: "The first connection after a start waits a random part of this."},
	{Path: "agent.spool_bytes", Type: Whole, Unit: "bytes", Default: "67108864", Low: mib, High: tib, Doc: "What waits for the controller may take so much of the disk."},
	{Path: "agent.min_free_bytes", Type: Whole, Unit: "bytes", Default: "1073741824", Low: mib, High: tib, Doc: "How much of the disk downloads leave free."},
	{Path: "agent.download_bytes_per_second", Type: Whole, Unit: "bytes a second", Default: "0", Low: 0, High: tib, Doc: "What downloads may take of the line; 0 is no bound."},
	{Path: "agent.download_bytes_per_month", Type: Whole, Unit: "bytes a calendar month", Default: "0", Low: 0, High: tib, Doc: "The same for lines that are paid by volume; 0 is no bound."},
	{Path: "agent.server", Type: Text, Default: "auto", Way: true, Doc: "How the box reaches its controller: auto, mqtts://HOST:PORT or wss://HOST:PORT/mqtt."},
	{Path: "agent.proxy", Type: Text, Way: true, Doc: "An HTTP proxy with CONNECT, such as http://proxy.example.com:3128; empty is none."},
	{Path: "agent.proxy_auth_file", Type: Text, Secret: true, Way: true, Doc: "The line USER:PASSWORD for the proxy, as secret:NAME."},
	{Path: "agent.peer_listen", Type: Text, Doc: "Where the box gives models to others of its site: a port such as \":7443\"; empty: it does not share."},
	{Path: "agent.peer_address", Type: Text, Doc: "What those dial; empty: the address by which the box reaches the controller."},
	{Path: "agent.blackbox", Type: Flag, Default: "true", Doc: "Keep the last hour of readings for the case of a reset."},
	{Path: "agent.blackbox_period", Type: Duration, Default: "1m", Low: 10, High: 60, Doc: "How often the last hour is written in quiet times."},

	{Path: "runner", Type: Group, Doc: "Settings of the runner. It takes them up while models go on serving."},
	{Path: "runner.inputs", Type: Items, Doc: "Cameras and microphones with the pipeline that reads them; docs/pipelines.md."},
	{Path: "runner.inputs[].kind", Type: Text, OneOf: []string{"folder", "http", "stream", "audio"}, Doc: "What it is: pictures in a folder, a camera's snapshot, a stream that ffmpeg reads, or sound."},
	{Path: "runner.inputs[].pipeline", Type: Text, Doc: "The pipeline of a model that serves on the box, or MODEL/PIPELINE."},
	{Path: "runner.inputs[].interval", Type: Duration, Default: "1s", Low: 0.01, High: 86400, Doc: "From the start of one item to the next at full duty."},
	{Path: "runner.inputs[].min_score", Type: Share, Default: "0", Low: 0, High: 1, Doc: "The threshold: a result that scores less is no result."},
	{Path: "runner.inputs[].path", Type: Text, Doc: "Folder or clip; kinds folder and audio."},
	{Path: "runner.inputs[].url", Type: Text, Host: true, Doc: "Address of a snapshot or stream, without user and password."},
	{Path: "runner.inputs[].username", Type: Text, Doc: "User of the camera; goes with password_file."},
	{Path: "runner.inputs[].password_file", Type: Text, Secret: true, Doc: "Password of the camera, as secret:NAME."},
	{Path: "runner.inputs[].token_file", Type: Text, Secret: true, Doc: "Bearer token of the camera in place of a user, as secret:NAME; kind http."},
	{Path: "runner.inputs[].timeout", Type: Duration, Low: 0.1, High: 600, Doc: "Of one snapshot, default 10s; of a stream without frames, default 15s."},
	{Path: "runner.inputs[].transport", Type: Text, Default: "tcp", OneOf: []string{"tcp", "udp"}, Doc: "Transport of RTSP."},
	{Path: "runner.inputs[].max_width", Type: Whole, Unit: "pixels", Default: "1280", Low: 1, High: 8192, Doc: "Bound of a stream's frames where the pipeline asks for no size."},
	{Path: "runner.inputs[].max_height", Type: Whole, Unit: "pixels", Default: "720", Low: 1, High: 8192, Doc: "As max_width."},
	{Path: "runner.results", Type: Group, Doc: "Who gets results on the site's own network; docs/pipelines.md."},
	{Path: "runner.results.targets", Type: Items, Doc: "Webhooks and brokers that get results as they come."},
	{Path: "runner.results.targets[].kind", Type: Text, OneOf: []string{"webhook", "mqtt"}, Doc: "What it is."},
	{Path: "runner.results.targets[].url", Type: Text, Host: true, Doc: "http:// or https:// of a webhook, mqtt:// or mqtts:// of a broker."},
	{Path: "runner.results.targets[].inputs", Type: Texts, Doc: "Inputs whose results it gets; none: all."},
	{Path: "runner.results.targets[].secret_file", Type: Text, Secret: true, Doc: "Key that webhooks are signed with, as secret:NAME."},
	{Path: "runner.results.targets[].username", Type: Text, Doc: "User of a broker."},
	{Path: "runner.results.targets[].password_file", Type: Text, Secret: true, Doc: "Password of a broker, as secret:NAME."},
	{Path: "runner.results.targets[].topic", Type: Text, Default: "edgeherd/results/{input}", Doc: "Topic of a broker, with {input} for the input's name."},
	{Path: "runner.results.targets[].queue_bytes", Type: Whole, Unit: "bytes", Default: "4194304", Low: 64 * kib, High: tib, Doc: "Bound of what waits for it."},
	{Path: "runner.routes", Type: Items, Doc: "Where requests for a model go when the box is hot, busy or has no such model; docs/backends.md."},
	{Path: "runner.routes[].model", Type: Text, Doc: "Name of the model on the box."},
	{Path: "runner.routes[].when", Type: Texts, OneOf: []string{"hot", "busy", "missing"}, Doc: "The reasons; none: all."},
	{Path: "runner.routes[].leaves_site", Type: Text, Default: "never", OneOf: []string{"never", "allowed"}, Doc: "Speaks for a model that the box does not have."},
	{Path: "runner.routes[].overflow", Type: Items, Doc: "The servers, tried in the order of their names."},
	{Path: "runner.routes[].overflow[].url", Type: Text, Host: true, Doc: "http://, https://, grpc:// or grpcs:// with host and port."},
	{Path: "runner.routes[].overflow[].place", Type: Text, OneOf: []string{"site", "central"}, Doc: "Whose machine that is: it decides whose inputs may go there."},
	{Path: "runner.routes[].overflow[].model", Type: Text, Doc: "What the model is called there; empty: the same."},
	{Path: "runner.routes[].overflow[].version", Type: Text, Doc: "Its version there; empty: the server chooses."},
	{Path: "runner.routes[].overflow[].credential", Type: Text, Secret: true, Doc: "Bearer token, as secret:NAME."},
	{Path: "runner.routes[].overflow[].timeout", Type: Duration, Default: "30s", Low: 0.1, High: 600, Doc: "Of one request."},
}

// heads document what a document has beside settings.
var heads = []Field{
	{Path: "kind", Type: Text, OneOf: []string{Kind}, Doc: "What the document is."},
	{Path: "name", Type: Text, Doc: "Name of the document: lower case letters, digits and . _ -, at most 63."},
	{Path: "selector", Type: Text, Doc: `Boxes that get it: an AIP-160 filter, as in edgeherd box list --filter, such as label:"role=dock".`},
	{Path: "priority", Type: Whole, Default: "0", Low: -1000, High: 1000, Doc: "Where documents overlap the higher one counts; two of the same that set the same are an error."},
}

// Fields are all that a document may have, heads first.
func Fields() []Field { return append(append([]Field{}, heads...), fields...) }

// lookup finds the field of a path of the table.
func lookup(path string) (Field, bool) {
	for _, f := range fields {
		if f.Path == path {
			return f, true
		}
	}
	return Field{}, false
}

// FieldOf is the field of a setting: items are named, such as
// runner.inputs[dock].path.
func FieldOf(path string) (Field, bool) { return lookup(shape(path)) }

// shape takes the names of items out of the path of a setting.
func shape(path string) string {
	if open := strings.LastIndexByte(path, '['); strings.HasSuffix(path, "]") && open >= 0 {
		path = path[:open] // a word, or an item as a whole
	}
	return itemOf.ReplaceAllString(path, "[]")
}

var itemOf = regexp.MustCompile(`\[[^]]*\]`)

// below lists the keys of a group or of the items of a list.
func below(path string) (keys []string) {
	for _, f := range fields {
		rest, ok := strings.CutPrefix(f.Path, path+".")
		if path == "" {
			rest, ok = f.Path, true
		}
		if ok && !strings.ContainsAny(rest, ".[") {
			keys = append(keys, rest)
		}
	}
	return keys
}
