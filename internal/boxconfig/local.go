package boxconfig

// LocalKey is a key of agent.yaml or runner.yaml that documents cannot set, and why.
type LocalKey struct{ Path, Why string }

// The reasons. What a document can say, a thief of the controller can say.
const (
	whyPlace    = "where things lie is decided when the box is installed"
	whyProgram  = "it names programs to run or files to read, which needs somebody on the box"
	whyHardware = "it is of this machine, and a wrong value can harm it or leave it without models"
	whyAllow    = "it says what the controller may do, so the controller must not change it"
	whyDoor     = "it says who reaches the box, which is for its site"
)

// locals are checked by tests of both programs: every key of their files is here
// or among fields.
var locals = []LocalKey{
	{"agent.state", whyPlace}, {"agent.root", whyPlace}, {"agent.runner", whyPlace}, {"agent.secrets", whyPlace},
	{"agent.log", "it is for whoever reads the log on the box"},
	{"agent.measure_heat", "it depends on the power sensor that the box has"},
	{"agent.outside", whyProgram}, {"agent.fan", whyHardware},
	{"agent.bucket_allow", whyAllow}, {"agent.bucket_hosts", whyAllow}, {"agent.settings_allow", whyAllow},
	{"runner.state", whyPlace}, {"runner.active", whyPlace}, {"runner.identity", whyPlace}, {"runner.secrets", whyPlace}, {"runner.library", whyProgram},
	{"runner.http", whyDoor}, {"runner.grpc", whyDoor}, {"runner.socket", whyDoor}, {"runner.hosts", whyDoor}, {"runner.repository", whyDoor}, {"runner.results.http", whyDoor},
	{"runner.backends", whyProgram},
	{"runner.providers", whyHardware}, {"runner.cpus", whyHardware}, {"runner.nice", whyHardware}, {"runner.threads", whyHardware},
	{"runner.model_memory_bytes", whyHardware}, {"runner.max_in_flight", whyHardware}, {"runner.max_queue", whyHardware}, {"runner.max_connections", whyHardware},
	{"runner.inputs[].ffmpeg", whyProgram}, {"runner.inputs[].ca_file", whyProgram}, {"runner.results.token_file", whyDoor}, {"runner.results.targets[].ca_file", whyProgram},
	{"runner.routes[].overflow[].ca", whyProgram}, {"runner.routes[].overflow[].health", "only other programs of the box have it"},
}

// Locals are the keys that only files on the box have.
func Locals() []LocalKey { return append([]LocalKey{}, locals...) }

// local says why a path is not among fields; empty: nobody knows it.
func local(path string) string {
	for _, l := range locals {
		if l.Path == path {
			return l.Why
		}
	}
	return ""
}
