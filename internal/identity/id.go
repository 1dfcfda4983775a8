// Package identity names boxes and proves who they are.
//
// An ID is what the controller calls a box ("d-" and 13 letters or digits); it
// is the common name of the box's certificate, the first part of its MQTT
// client id and a level of its topics. A CA is the development certificate
// authority of one controller: ECDSA P-256, standard library only. The files
// of a box, written once by enrolment and read by the agent:
//
//	DIR/key.pem      the box's private key, mode 0600
//	DIR/seal.pem     the key that secrets for it are sealed to, mode 0600
//	DIR/cert.pem     its certificate, CN = ID, OU = "site:<site>"
//	DIR/ca.pem       the roots it trusts
//	DIR/box.json     Box: id, name, site, controller addresses, keyring
//
// The one rule a caller can break: take the ID of a peer from its certificate
// (PeerID), never from what the peer says.
package identity

import (
	"crypto/rand"
	"encoding/base32"
	"fmt"
	"regexp"
	"strings"
)

// ID names a box for life: safe in MQTT topics, file names and URLs.
type ID string

var idForm = regexp.MustCompile(`^d-[a-z2-7]{13}$`)

// NewID draws a random ID of 65 bits.
func NewID() ID {
	var raw [9]byte
	rand.Read(raw[:]) // never fails since Go 1.24
	return ID("d-" + strings.ToLower(base32.StdEncoding.EncodeToString(raw[:]))[:13])
}

// ParseID checks the form of s.
func ParseID(s string) (ID, error) {
	if !idForm.MatchString(s) {
		return "", fmt.Errorf("box id %q is not d- and 13 of a-z2-7", s)
	}
	return ID(s), nil
}

func (id ID) String() string { return string(id) }
