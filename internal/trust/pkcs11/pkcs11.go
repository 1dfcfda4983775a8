// Package pkcs11 signs with keys in hardware: a YubiKey, a smart card, an HSM.
//
// A module of PKCS #11 is a shared library, which programs without cgo cannot
// load. So OpenSC's pkcs11-tool does: it gets the digest of a message through its
// standard input and gives back the signature, which is checked before it is
// used. A key is named by an address of RFC 7512, such as
//
//	pkcs11:token=fleet;id=%01?module-path=/usr/lib/libykcs11.so&pin-source=/run/pin
//
// Keys are ECDSA on P-256, which all hardware has. Ed25519 signs whole messages,
// and pkcs11-tool (0.23) hands over 1024 bytes of one at most, which is less than
// a root needs.
//
// The one rule a caller can break: a PIN never travels in an argument of a
// program, where every user of the machine can read it.
package pkcs11

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/trust"
)

const scheme = "pkcs11:"

// tool is looked for in PATH; Debian has it in the package opensc.
const tool = "pkcs11-tool"

// patience is how long a key may take, with a person who has to touch it.
const patience = 2 * time.Minute

// pinVariable hands the PIN to the tool alone: its environment is for its user to
// read, its arguments are for everybody.
const pinVariable = "EDGEHERD_PKCS11_PIN"

// IsAddress says whether a word is meant as the address of a key in hardware.
func IsAddress(word string) bool { return strings.HasPrefix(word, scheme) }

// Address names a key in hardware.
type Address struct {
	text      string
	args      []string // for the tool: which module, token and key
	pinSource string
}

func (a Address) String() string { return a.text }

// Parse reads an address (RFC 7512). Attributes that the tool cannot look for
// are refused: leaving one out could choose another key.
func Parse(text string) (a Address, err error) {
	a.text = text
	path, query, _ := strings.Cut(strings.TrimPrefix(text, scheme), "?")
	key := false
	take := func(attribute string) error {
		name, coded, _ := strings.Cut(attribute, "=")
		value, err := url.PathUnescape(coded)
		if err != nil || value == "" {
			return fmt.Errorf("address of a key: %s has no value that can be read", name)
		}
		switch name {
		case "token":
			a.args = append(a.args, "--token-label", value)
		case "slot-id":
			a.args = append(a.args, "--slot", value)
		case "object":
			// The tool reads a public key by its name, but signs with whichever private
			// key comes first unless it is told the id.
			return fmt.Errorf("address of a key: %s signs by the id of a key alone: say id=%%01 in place of object=%s (`%s --list-objects` shows it)", tool, value, tool)
		case "id":
			a.args, key = append(a.args, "--id", hex.EncodeToString([]byte(value))), true
		case "module-path":
			a.args = append(a.args, "--module", value)
		case "pin-source":
			a.pinSource = strings.TrimPrefix(value, "file:")
		case "type":
		case "pin-value":
			return errors.New("address of a key: it must not hold the PIN, which others could read; use pin-source=FILE")
		default:
			return fmt.Errorf("address of a key: %q is not known here; use token, slot-id, id, module-path and pin-source", name)
		}
		return nil
	}
	for _, attribute := range append(strings.Split(path, ";"), strings.Split(query, "&")...) {
		if attribute == "" {
			continue
		}
		if err := take(attribute); err != nil {
			return a, err
		}
	}
	if !IsAddress(text) || !key {
		return a, fmt.Errorf("%q names no key: want pkcs11:token=NAME;id=%%01", text)
	}
	return a, nil
}

// Public reads the public half from the hardware, without a PIN.
func Public(a Address) (trust.PublicKey, error) {
	out, err := run("", nil, append([]string{"--read-object", "--type", "pubkey"}, a.args...)...)
	if err != nil {
		return trust.PublicKey{}, fmt.Errorf("read the public key of %s: %w", a, err)
	}
	if block, _ := pem.Decode(out); block != nil { // older ones write it bare
		out = block.Bytes
	}
	key, err := x509.ParsePKIXPublicKey(out)
	if err != nil {
		return trust.PublicKey{}, fmt.Errorf("read the public key of %s: %w", a, err)
	}
	if _, ok := key.(*ecdsa.PublicKey); !ok {
		return trust.PublicKey{}, fmt.Errorf("the key %s is not ECDSA on P-256; make one with %s --keypairgen --key-type EC:prime256v1", a, tool)
	}
	return trust.PublicKeyOf(key)
}

// Key is one in hardware. It implements trust.Signer.
type Key struct {
	at     Address
	public trust.PublicKey
	pin    string
}

// Open finds a key. ask gives the PIN, unless the address names a file with it. A
// PIN that is wrong shows when the key signs; hardware counts such attempts.
func Open(a Address, ask func(question string) ([]byte, error)) (*Key, error) {
	public, err := Public(a)
	if err != nil {
		return nil, err
	}
	var pin []byte
	if a.pinSource != "" {
		if pin, err = os.ReadFile(a.pinSource); err != nil {
			return nil, fmt.Errorf("read the PIN of %s: %w", a, err)
		}
	} else if pin, err = ask("PIN of " + a.String() + ": "); err != nil {
		return nil, err
	}
	line, _, _ := strings.Cut(string(pin), "\n")
	if line = strings.TrimRight(line, "\r"); line == "" {
		return nil, fmt.Errorf("the PIN of %s is empty: write it into the first line of the file that pin-source names, or give EDGEHERD_PIN", a)
	}
	return &Key{a, public, line}, nil
}

// Public implements trust.Signer.
func (k *Key) Public() trust.PublicKey { return k.public }

// Sign implements trust.Signer.
func (k *Key) Sign(message []byte) ([]byte, error) {
	sum := sha256.Sum256(message)
	args := []string{"--sign", "--mechanism", "ECDSA", "--signature-format", "sequence", "--login", "--pin", "env:" + pinVariable}
	sig, err := run(k.pin, sum[:], append(args, k.at.args...)...)
	if err != nil {
		return nil, fmt.Errorf("sign with %s: %w", k.at, err)
	}
	if !k.public.Verify(message, sig) {
		return nil, fmt.Errorf("sign with %s: what came back is no signature of its public key", k.at)
	}
	return sig, nil
}

func run(pin string, in []byte, args ...string) ([]byte, error) {
	path, err := exec.LookPath(tool)
	if err != nil {
		return nil, fmt.Errorf("keys in hardware need %s, on Debian of the package opensc: %w", tool, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), pinVariable+"="+pin)
	cmd.Stdin = bytes.NewReader(in)
	var out, words bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &words
	if err := cmd.Run(); err != nil {
		said := strings.Join(strings.Fields(words.String()), " ")
		return nil, fmt.Errorf("%s: %w: %s%s", tool, err, said, wayOut(said))
	}
	return out.Bytes(), nil
}

// wayOut is what to do about what the tool said; "" where its words have to do.
func wayOut(said string) string {
	for _, known := range []struct{ word, way string }{
		{"CKR_PIN_INCORRECT", "the PIN is wrong; the token locks itself after a few more wrong ones"},
		{"CKR_PIN_LOCKED", "too many wrong PINs: who has the token's SO PIN or PUK unlocks it"},
		{"Failed to load pkcs11 module", "name the module that came with the token: module-path=FILE"},
		{"No slot", "is the token plugged in, and module-path right? " + tool + " --module FILE --list-token-slots"},
		{"object not found", "the keys of the token: " + tool + " --module FILE --list-objects --type pubkey"},
	} {
		if strings.Contains(said, known.word) {
			return "; " + known.way
		}
	}
	return ""
}
