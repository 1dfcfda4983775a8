package controller

import (
	"fmt"

	"github.com/edgeherd/edgeherd/controller/broker"
)

// The files that a broker of others needs beside those of BrokerSetup.
const (
	BrokerFileCA   = broker.FileCA
	BrokerFileCert = broker.FileCert
	BrokerFileKey  = broker.FileKey
	BrokerFileCRL  = broker.FileCRL
)

// BrokerSetup is how a broker of others is to be set up.
type BrokerSetup struct {
	Kind  string // mosquitto or nats
	Dir   string // where its files will lie
	Port  int
	Users map[string]string // subjects of the boxes' certificates by id; for nats
}

// BrokerFile is one file for a broker.
type BrokerFile struct{ Name, Text string }

// Files returns the configuration.
func (s BrokerSetup) Files() ([]BrokerFile, error) {
	b := broker.Setup{Dir: s.Dir, Port: s.Port, Users: s.Users}
	switch s.Kind {
	case "mosquitto":
		conf, acl := b.Mosquitto()
		return []BrokerFile{{"mosquitto.conf", conf}, {broker.FileACL, acl}}, nil
	case "nats":
		conf, users := b.NATS()
		return []BrokerFile{{"nats.conf", conf}, {"users.conf", users}}, nil
	}
	return nil, fmt.Errorf("no configuration is known for %q: want mosquitto or nats; docs/operations.md says what any other broker needs", s.Kind)
}
