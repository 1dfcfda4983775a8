package archtest

import (
	"fmt"
	"strings"
)

const module = "github.com/edgeherd/edgeherd/"

// row says what the non-test files of a package may import of ours. A name
// that ends in /... means the folder and all below it, which may import one
// another.
type row struct {
	pkg  string
	ours string
}

// rows is the import table. The first row that matches a package holds.
var rows = []row{
	{"internal/durable", ""},
	{"internal/memnet", ""},
	{"internal/timerslack", ""},
	{"internal/freeport", ""},
	{"internal/outbound", ""},
	{"internal/assets", ""},
	{"internal/bench", ""},
	{"internal/archtest", ""},
	{"internal/protosim", ""},
	{"internal/mqttws", ""},
	{"internal/blob", "internal/durable"},
	{"internal/trust", ""},
	{"internal/trust/...", "internal/trust/... internal/blob internal/durable"},
	{"internal/identity", "internal/trust/keyfile internal/durable internal/trust"},
	{"internal/enrol", "internal/identity"},
	{"internal/slot", "internal/blob internal/durable"},
	{"internal/wire", "internal/blob internal/identity internal/phrase internal/trust"},
	{"internal/boxconfig", "internal/blob internal/wire"},
	{"models/...", "internal/blob internal/trust"},
	{"firmware/...", "internal/blob internal/trust"},
	{"internal/runnerapi", "internal/blob models"},
	{"internal/acceptance", "internal/identity internal/phrase"},
	{"internal/deviceapi", "internal/blob internal/identity"},
	{"internal/bundle", "internal/blob internal/deviceapi internal/durable internal/identity internal/trust/tufrepo"},
	{"internal/fleetapi", "firmware internal/blob internal/enrol internal/identity internal/phrase internal/runnerapi internal/trust internal/wire models internal/acceptance"},
	{"internal/simboard", "internal/durable internal/runnerapi internal/wire"},
	{"internal/simboard/plant", ""},
	{"internal/labels", "internal/durable"},
	{"internal/qrtext", ""},
	{"internal/paper", ""},
	{"internal/drift", ""},
	{"internal/phrase", ""},
	{"internal/rank", ""},
	{"web/src/i18n", "internal/phrase"},
	{"internal/health", "internal/phrase internal/rank"},
	{"agent/sense/...", "internal/durable internal/health"},
	{"agent/govern", "internal/wire agent/sense"},
	{"agent/condition", "internal/durable internal/health internal/wire"},
	{"agent/blackbox", "internal/durable internal/phrase internal/wire"},
	{"agent/fan", "internal/durable"},
	{"agent/spool", "internal/blob internal/durable internal/wire"},
	{"agent/link", "agent/spool internal/blob internal/identity internal/trust internal/wire"},
	{"agent/dial", "internal/durable internal/identity internal/mqttws"},
	{"agent/tpm", ""},
	{"agent/enrol", "agent/dial agent/tpm internal/durable internal/enrol internal/identity"},
	{"agent/secrets", "internal/durable internal/identity internal/wire"},
	{"agent/accept", "agent/sense internal/acceptance internal/blob internal/durable internal/identity internal/phrase internal/runnerapi internal/trust models"},
	{"agent/config", "internal/boxconfig internal/durable internal/runnerapi internal/wire"},
	{"agent/witness", "internal/durable internal/trust internal/wire"},
	{"agent/doctor", "agent agent/dial agent/enrol agent/link agent/sense internal/enrol internal/identity internal/runnerapi"},
	{"agent/fetch", "internal/blob internal/deviceapi internal/durable internal/identity internal/outbound models models/wdelta"},
	{"agent/peer", "agent/fetch internal/blob internal/deviceapi internal/identity"},
	{"agent/trust", "internal/blob internal/trust/..."},
	{"agent/activate", "internal/blob internal/durable internal/runnerapi internal/trust internal/wire models"},
	{"agent/update", "firmware internal/blob internal/durable internal/slot internal/trust internal/wire"},
	{"agent/worker/onnxtest", "agent/worker internal/assets models"},
	{"agent/worker/...", "internal/timerslack models"},
	{"agent/inputs/pipelinetest", "agent/inputs/pipeline agent/worker internal/assets internal/blob models"},
	{"agent/inputs/...", "agent/inputs/... agent/secrets agent/worker internal/blob internal/drift internal/durable internal/runnerapi internal/timerslack internal/wire models"},
	{"agent/results", "agent/inputs agent/secrets"},
	{"agent/backend", "agent/serve/oip internal/timerslack models"},
	{"agent/serve/...", "agent/backend agent/govern agent/inputs agent/worker internal/blob internal/durable internal/runnerapi internal/trust models"},
	{"agent", "agent/... firmware internal/blob internal/boxconfig internal/bundle internal/durable internal/enrol internal/health internal/identity internal/runnerapi internal/slot internal/trust/... internal/wire models"},
	{"controller/authz", ""},
	{"controller/audit", ""},
	{"controller/people/...", "controller/audit controller/authz controller/store internal/outbound internal/trust"},
	{"controller/fault", "internal/identity"},
	{"controller/balancer", ""},
	{"controller/broker", "controller/fault internal/identity internal/wire"},
	{"controller/cluster", "controller/store internal/fleetapi internal/identity internal/wire"},
	{"controller/metrics", ""},
	{"controller/trust", "controller/store internal/trust/..."},
	{"controller/export/exporttest", "controller/export internal/assets internal/freeport internal/identity internal/wire"},
	{"controller/export/...", "controller/metrics internal/identity internal/wire"},
	{"controller/registry", "controller/care controller/store internal/blob internal/fleetapi internal/health internal/identity internal/wire"},
	{"controller/series", "internal/rank internal/wire"},
	{"controller/site", "internal/fleetapi internal/identity"},
	{"controller/care", "internal/fleetapi internal/health internal/identity internal/phrase internal/rank web/src/i18n"},
	{"controller/notify", "controller/care controller/rollout controller/site controller/store internal/fleetapi internal/outbound internal/phrase internal/trust/tufrepo web/src/i18n"},
	{"controller/upkeep", "controller/care controller/site controller/store internal/fleetapi internal/health internal/identity internal/wire web/src/i18n"},
	{"controller/rollout", "controller/site firmware internal/blob internal/fleetapi internal/identity internal/phrase internal/runnerapi internal/wire models"},
	{"controller/store/storetest", "internal/assets"},
	{"controller/store/...", "controller/audit controller/care controller/fault controller/rollout controller/series controller/site firmware internal/blob internal/drift internal/enrol internal/fleetapi internal/identity internal/runnerapi internal/trust internal/trust/tufrepo internal/wire models"},
	{"controller/backup", "controller/audit controller/store internal/durable"},
	{"controller/doctor", "internal/trust/keyfile controller/s3 controller/store internal/identity"},
	{"controller/deliver", "controller/store internal/blob internal/fleetapi models models/container models/wdelta"},
	{"controller/s3", "internal/blob"},
	{"models/oci", "internal/blob models"},
	{"controller/s3/s3test", "internal/assets internal/durable internal/freeport"},
	{"controller/accept", "internal/acceptance internal/fleetapi internal/identity internal/paper internal/phrase"},
	{"controller/enrol", "controller/audit controller/store internal/enrol internal/identity"},
	{"controller/secrets", "internal/trust/keyfile controller/audit controller/store internal/durable internal/fleetapi internal/identity internal/wire"},
	{"controller/ingest", "controller/fault controller/registry controller/series controller/store internal/blob internal/drift internal/fleetapi internal/health internal/identity internal/runnerapi internal/wire models"},
	{"controller/config", "controller/registry controller/rollout controller/store internal/boxconfig internal/fleetapi internal/identity internal/wire models"},
	{"controller/api/...", "controller/... firmware internal/blob internal/boxconfig internal/bundle internal/deviceapi internal/drift internal/enrol internal/fleetapi internal/health internal/identity internal/phrase internal/runnerapi internal/trust/... internal/wire models models/wdelta internal/acceptance"},
	{"controller", "controller/... firmware internal/blob internal/durable internal/enrol internal/fleetapi internal/health internal/identity internal/mqttws internal/runnerapi internal/trust/... internal/wire models web/src/i18n internal/acceptance"},
	{"internal/fleettest/...", "agent/... controller/... firmware internal/... models"},
	{"internal/e2e", ""},
	{"deploy/...", ""},
	{"cmd/edgeherd-agent", "internal/boxconfig agent agent/condition agent/dial agent/doctor agent/enrol agent/fan agent/secrets agent/spool agent/update internal/runnerapi agent/sense internal/durable internal/enrol internal/health internal/identity internal/qrtext internal/trust internal/wire agent/accept internal/acceptance"},
	{"cmd/edgeherd-runner", "agent/backend agent/inputs agent/results agent/secrets agent/serve agent/worker internal/blob internal/durable internal/runnerapi internal/timerslack internal/trust models"},
	{"internal/loadgen", "internal/identity internal/wire"},
	{"internal/loadgen/fleet", "controller/store internal/durable internal/freeport internal/identity internal/loadgen internal/wire"},
	{"cmd/edgeherd-launcher", "internal/blob internal/durable internal/slot"},
	{"cmd/edgeherd-tufconformance", "internal/durable internal/trust/tufclient"},
	{"cmd/edgeherd-load", "internal/fleetapi internal/identity internal/loadgen internal/loadgen/fleet"},
	{"cmd/edgeherd/...", "controller/store models/oci internal/boxconfig internal/bundle controller controller/deliver controller/s3 controller/api controller/audit controller/authz controller/backup controller/doctor controller/export/... controller/notify controller/people firmware internal/blob internal/durable internal/enrol internal/fleetapi internal/freeport internal/health internal/identity internal/labels internal/outbound internal/paper internal/qrtext internal/runnerapi internal/simboard internal/slot internal/trust/... internal/wire models models/container models/wdelta internal/acceptance"},
}

// door says which packages of ours may import a module in non-test files;
// * means any.
type door struct {
	module string
	pkgs   string
}

// doors names every third-party module. The first that matches an import holds.
var doors = []door{
	{"github.com/eclipse/paho.mqtt.golang", "agent/link agent/results controller/broker controller/export/sparkplug"},
	{"github.com/gorilla/websocket", "internal/mqttws"},
	{"github.com/mochi-mqtt/server/v2", "controller/broker"},
	{"github.com/pires/go-proxyproto", "controller/balancer"},
	{"go.etcd.io/bbolt", "agent/spool agent/inputs internal/trust/tufclient"},
	{"github.com/theupdateframework/go-tuf/v2", "internal/trust/... cmd/edgeherd-tufconformance"},
	{"github.com/secure-systems-lab/go-securesystemslib", "internal/trust/tufrepo"},
	{"github.com/minio/selfupdate", "agent/update"},
	{"github.com/minio/minio-go/v7", "controller/s3"},
	{"oras.land/oras-go/v2", "models/oci"},
	{"github.com/opencontainers/go-digest", "models/oci"},
	{"github.com/opencontainers/image-spec", "models/oci"},
	{"github.com/google/go-tpm", "agent/tpm controller/enrol"},
	{"github.com/hashicorp/go-retryablehttp", "agent/fetch"},
	{"github.com/ebitengine/purego", "agent/worker/..."},
	{"modernc.org/sqlite", "controller/store/..."},
	{"github.com/jackc/pgx/v5", "controller/store/..."},
	{"github.com/pressly/goose/v3", "controller/store/..."},
	{"github.com/danielgtaylor/huma/v2", "controller/api/..."},
	{"go.einride.tech/aip", "controller/api controller/registry"},
	{"google.golang.org/genproto", "controller/registry"},
	{"github.com/fxamacker/cbor/v2", "internal/wire"},
	{"github.com/klauspost/compress", "agent/serve internal/wire models/... controller/store controller/api controller/export/remotewrite"},
	{"google.golang.org/grpc", "agent/serve/... agent/backend"},
	{"google.golang.org/protobuf", "models/... agent/worker/... agent/serve/... controller/api controller/registry internal/fleettest controller/export/..."},
	{"github.com/spf13/cobra", "cmd/..."},
	{"github.com/spf13/pflag", "cmd/..."},
	{"go.yaml.in/yaml/v3", "cmd/... internal/boxconfig models/... agent agent/accept controller controller/rollout"},
	{"golang.org/x/mod", "firmware/... controller/enrol internal/trust/tufrepo"},
	{"golang.org/x/image", "agent/serve agent/inputs internal/labels internal/paper models/..."},
	{"github.com/nicholas-fedor/shoutrrr", "controller/notify"},
	{"github.com/coreos/go-oidc/v3", "controller/people"},
	{"golang.org/x/oauth2", "controller/people"},
	{"golang.org/x/crypto/argon2", "controller/people"},
	{"golang.org/x/crypto/nacl/secretbox", "internal/trust/keyfile"},
	{"golang.org/x/crypto/scrypt", "internal/trust/keyfile"},
	{"github.com/boombuler/barcode/qr", "internal/qrtext"},
	{"charm.land/bubbletea/v2", "cmd/edgeherd-agent"},
	{"codeberg.org/go-pdf/fpdf", "internal/paper"},
	{"golang.org/x/sync", "*"},
	{"golang.org/x/sys", "*"},
	{"golang.org/x/time", "*"},
	{"github.com/prometheus/client_golang", "controller/metrics"},
	{"pgregory.net/rapid", "tests"},
	{"github.com/nats-io/nats-server/v2", "tests"},
	{"github.com/rogpeppe/go-internal", "tests"},
}

// topLevel is all that may lie in the top folder.
var topLevel = strings.Fields(`
	agent controller cmd models firmware deploy internal web docs .ci
	go.mod go.sum README.md LICENSE NOTICE CONTRIBUTING.md SECURITY.md Makefile
	.gitignore .gitattributes .dockerignore .editorconfig`)

// unversioned lies in the top folder of a checkout without being part of it.
var unversioned = strings.Fields(`.git build edgeherd-data node_modules .idea .vscode .DS_Store`)

// rawWrites lists the files outside internal/durable that may call os.Rename
// or os.WriteFile, each with the reason.
var rawWrites = map[string]string{
	"internal/fleettest/": "test support: model folders in a test's own directory",
	"internal/simboard/":  "sysfs-like files of a simulated board: rebuilt at every start, no state",
}

// matches reports whether pkg is in a list of packages and /... patterns.
func matches(list, pkg string) bool {
	for _, p := range strings.Fields(list) {
		base, tree := strings.CutSuffix(p, "/...")
		if p == "*" || pkg == base || tree && strings.HasPrefix(pkg, base+"/") {
			return true
		}
	}
	return false
}

func rowOf(pkg string) (row, bool) {
	for _, r := range rows {
		if matches(r.pkg, pkg) {
			return r, true
		}
	}
	return row{}, false
}

func doorOf(path string) (door, bool) {
	for _, d := range doors {
		if path == d.module || strings.HasPrefix(path, d.module+"/") {
			return d, true
		}
	}
	return door{}, false
}

// markdown is the import table as docs/design.md shows it.
func markdown() string {
	var b strings.Builder
	b.WriteString("| package | may import of ours | third-party doors |\n|---|---|---|\n")
	for _, r := range rows {
		var modules []string
		for _, d := range doors {
			if d.pkgs != "*" && d.pkgs != "tests" && matches(d.pkgs, strings.TrimSuffix(r.pkg, "/...")) {
				modules = append(modules, d.module)
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s |\n", r.pkg, cell(strings.Fields(r.ours)), cell(modules))
	}
	var anywhere, tests []string
	for _, d := range doors {
		switch d.pkgs {
		case "*":
			anywhere = append(anywhere, d.module)
		case "tests":
			tests = append(tests, d.module)
		}
	}
	fmt.Fprintf(&b, "\nOpen to every package: %s. For tests only: %s.\n", strings.Join(anywhere, ", "), strings.Join(tests, ", "))
	return b.String()
}

func cell(words []string) string {
	if len(words) == 0 {
		return "–"
	}
	return strings.Join(words, ", ")
}
