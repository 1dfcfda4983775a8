package broker

import (
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Setup says where the files of a broker will lie and where it listens.
type Setup struct {
	Dir  string // of the certificates, such as /etc/mosquitto/edgeherd
	Port int
	// Users are the subjects of the certificates of all boxes, by id, for brokers
	// that cannot derive rights from a certificate.
	Users map[string]string
}

// The names of the files below Setup.Dir.
const (
	FileCA   = "ca.pem"
	FileCert = "server.pem"
	FileKey  = "server-key.pem"
	FileACL  = "acl"
	FileCRL  = identity.ListName
)

// Mosquitto returns the configuration and the access list for Mosquitto 2.
func (s Setup) Mosquitto() (conf, acl string) {
	at := func(name string) string { return path.Join(s.Dir, name) }
	conf = fmt.Sprintf(`# Mosquitto 2 as the broker of edgeherd: the whole file.
listener %d
cafile %s
certfile %s
keyfile %s
# Revoked certificates. Bring it anew when the controller has written it, and let
# Mosquitto read it (SIGHUP).
crlfile %s

# Who a client is says its certificate; what it may do says the access list.
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file %s

# Controllers may be slow for a moment: what waits for them must not be lost.
max_queued_messages 0
max_queued_bytes 0
max_inflight_messages 1000
max_inflight_bytes 0
message_size_limit %d

# Nothing here must outlive the broker: boxes keep what was not acknowledged by
# the database.
persistence false
retain_available false
set_tcp_nodelay true
log_type error
log_type warning
log_type notice
connection_messages false
`, s.Port, at(FileCA), at(FileCert), at(FileKey), at(FileCRL), at(FileACL), wire.MaxMessageBytes)
	base := fmt.Sprintf("eh/%d/%s/%%u", wire.Version, wire.Tenant)
	acl = fmt.Sprintf(`# The controllers.
user %s
topic readwrite eh/#

# A box: the topics of its own name (%%u is the common name of its certificate).
pattern write %s/up/#
pattern write %s/will
pattern read %s/dn/#
`, ControllerName, base, base, base)
	return conf, acl
}

// NATS returns the configuration of one server of a NATS cluster and the file
// of its users. NATS has no rights by pattern for certificates: every box is a
// user, so the second file is written anew when a box was enrolled.
func (s Setup) NATS() (conf, users string) {
	at := func(name string) string { return path.Join(s.Dir, name) }
	conf = fmt.Sprintf(`# One server of a NATS cluster as the broker of edgeherd. server_name, routes and
# store_dir differ from server to server.
server_name: edgeherd-1
listen: 127.0.0.1:4222

# MQTT of NATS stands on JetStream. Nothing in it must outlive the servers.
jetstream {
  store_dir: /var/lib/nats/edgeherd
  max_memory_store: 1GB
  max_file_store: 4GB
}
cluster {
  name: edgeherd
  listen: 0.0.0.0:6222
  routes: [ nats://nats-1:6222, nats://nats-2:6222, nats://nats-3:6222 ]
}

max_payload: 1MB
mqtt {
  listen: 0.0.0.0:%d
  tls {
    ca_file: %q
    cert_file: %q
    key_file: %q
    verify_and_map: true
  }
  max_ack_pending: 10000
  consumer_memory_storage: true
  reject_qos2_publish: true
}

include %q
`, s.Port, at(FileCA), at(FileCert), at(FileKey), "users.conf")
	var b strings.Builder
	b.WriteString("# Written by edgeherd server broker-config nats: one user for each box.\nauthorization {\n  users: [\n")
	fmt.Fprintf(&b, "    { user: %q, permissions: { publish: [\"eh.>\"], subscribe: [\"eh.>\", \"$MQTT.sub.>\"] } }\n", "CN="+ControllerName)
	for _, id := range slices.Sorted(maps.Keys(s.Users)) {
		base := fmt.Sprintf("eh.%d.%s.%s", wire.Version, wire.Tenant, id)
		fmt.Fprintf(&b, "    { user: %q, permissions: { publish: [\"%s.up.>\", \"%s.will\"], subscribe: [\"%s.dn\", \"%s.dn.>\", \"$MQTT.sub.>\"] } }\n",
			s.Users[id], base, base, base, base)
	}
	b.WriteString("  ]\n}\n")
	return conf, b.String()
}
