package enrol

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/edgeherd/edgeherd/agent/tpm"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

func nextDir(dir string) string { return filepath.Clean(dir) + ".new" }
func oldDir(dir string) string  { return filepath.Clean(dir) + ".old" }

// Enrolled reports whether dir holds an identity, readable or not.
func Enrolled(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "box.json"))
	return !errors.Is(err, fs.ErrNotExist)
}

// Load reads the identity of an enrolled box, wherever its key lies, after it
// has finished what a power cut left.
func Load(dir string) (*identity.Identity, error) {
	if err := finish(dir); err != nil {
		return nil, err
	}
	return read(dir)
}

func read(dir string) (*identity.Identity, error) {
	return identity.LoadKeyed(dir, func(dir string) (crypto.Signer, error) {
		k, err := openKey(dir)
		return k.Signer, err
	})
}

// key is a box's key with the chip that holds it, if one does.
type key struct {
	crypto.Signer
	chip   *tpm.TPM
	sealed tpmFile
}

// tpmFile is tpm.json.
type tpmFile struct {
	Device string      `json:"device"`
	Key    tpm.Sealed  `json:"key"`
	Seal   *tpm.Sealed `json:"seal,omitempty"` // see SealKeys
}

const (
	keyName = "key.pem"
	tpmName = "tpm.json"
)

// openKey reads the key that lies in dir.
func openKey(dir string) (key, error) {
	text, err := os.ReadFile(filepath.Join(dir, tpmName))
	if errors.Is(err, fs.ErrNotExist) {
		private, err := identity.ReadKey(filepath.Join(dir, keyName))
		return key{Signer: private}, err
	}
	var k key
	if err == nil {
		err = json.Unmarshal(text, &k.sealed)
	}
	if err != nil {
		return key{}, fmt.Errorf("read %s: %w", filepath.Join(dir, tpmName), err)
	}
	chip, err := tpm.At(k.sealed.Device)
	if err != nil {
		return key{}, err
	}
	k.chip = &chip
	if k.Signer, err = chip.Key(k.sealed.Key); err != nil {
		return key{}, err
	}
	return k, nil
}

// makeKey returns the key in dir, and makes one where there is none: in a TPM
// if the options want that. It is on the disk when makeKey returns.
func (o Options) makeKey(dir string) (key, error) {
	if k, err := openKey(dir); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return k, err
	}
	if err := durable.MkdirAll(dir, 0o700); err != nil {
		return key{}, fmt.Errorf("make directory of the next identity: %w", err)
	}
	chip, err := o.chip()
	switch {
	case err != nil:
		return key{}, err
	case chip == nil:
		private, err := identity.MakeKey(filepath.Join(dir, keyName))
		return key{Signer: private}, err
	}
	return makeTPMKey(dir, o.device(), *chip)
}

func (o Options) device() string {
	if o.TPM == "" || o.TPM == "auto" {
		return tpm.Device
	}
	return o.TPM
}

// chip is the TPM to use, or nil.
func (o Options) chip() (*tpm.TPM, error) {
	if o.TPM == "off" {
		return nil, nil
	}
	chip, err := tpm.At(o.device())
	if errors.Is(err, tpm.ErrAbsent) && o.device() == tpm.Device && o.TPM != tpm.Device {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%w; to keep the key in a file, use --tpm off", err)
	}
	return &chip, nil
}

func makeTPMKey(dir, device string, chip tpm.TPM) (key, error) {
	sealed, err := chip.Create()
	if err != nil {
		return key{}, err
	}
	k := key{chip: &chip, sealed: tpmFile{Device: device, Key: sealed}}
	if k.Signer, err = chip.Key(sealed); err != nil {
		return key{}, err
	}
	return k, k.seal(dir)
}

// seal writes tpm.json.
func (k key) seal(dir string) error {
	text, err := json.MarshalIndent(k.sealed, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", tpmName, err)
	}
	return durable.WriteFile(filepath.Join(dir, tpmName), append(text, '\n'), 0o600)
}

// tpm is what a request says of the chip.
func (k key) tpm() (*enrol.TPM, error) {
	if k.chip == nil {
		return nil, nil
	}
	e, err := k.chip.Endorsement()
	if err != nil {
		return nil, err
	}
	return &enrol.TPM{EKPublic: e.Public, EKCert: e.Certificate, KeyPublic: k.sealed.Key.Public}, nil
}

func (k key) activate(c enrol.Challenge) ([]byte, error) {
	sealed, ok := k.Signer.(*tpm.Key)
	if !ok {
		return nil, errors.New("the controller wants a proof of a TPM, and this key lies in a file")
	}
	return sealed.Activate(c.CredentialBlob, c.Secret)
}

// makeCSR asks for a certificate of k's key and the sealing key that goes with it
// in dir. The controller chooses all else.
func makeCSR(k key, dir string) ([]byte, error) {
	sealing, err := k.sealing(dir)
	if err != nil {
		return nil, fmt.Errorf("make sealing key: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		ExtraExtensions: []pkix.Extension{identity.SealingExtension(sealing)},
	}, k.Signer)
	if err != nil {
		return nil, fmt.Errorf("sign request for a certificate: %w", err)
	}
	return csr, nil
}

// publicBytes is the public key as SubjectPublicKeyInfo.
func publicBytes(k key) ([]byte, error) {
	spki, err := x509.MarshalPKIXPublicKey(k.Public())
	if err != nil {
		return nil, fmt.Errorf("encode public key: %w", err)
	}
	return spki, nil
}

// adopt makes the next identity whole and puts it in the place of the present.
func (o Options) adopt(k key, m enrol.Member) error {
	next := nextDir(o.Dir)
	for name, text := range map[string]string{"cert.pem": m.Certificate, "ca.pem": m.Authorities} {
		if err := durable.WriteFile(filepath.Join(next, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := m.Box.Write(next); err != nil { // last: with it the directory is whole
		return err
	}
	if _, err := read(next); err != nil {
		return fmt.Errorf("the controller's answer makes no identity: %w", err)
	}
	return swap(o.Dir)
}

// swap puts the next identity in the place of the present one. Load finishes it
// after a power cut at any point.
func swap(dir string) error {
	next, old := nextDir(dir), oldDir(dir)
	if err := removeTree(old); err != nil {
		return err
	}
	err := durable.Rename(dir, old)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set the present identity aside: %w", err)
	}
	if err := durable.Rename(next, dir); err != nil {
		return fmt.Errorf("put the next identity in place: %w", err)
	}
	return removeTree(old)
}

// finish brings an exchange to its end that was cut short: dir is absent only
// between the two renames of swap, when the next identity is whole.
func finish(dir string) error {
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if Enrolled(nextDir(dir)) {
		if _, err := read(nextDir(dir)); err == nil {
			return swap(dir)
		}
	}
	if Enrolled(oldDir(dir)) {
		return durable.Rename(oldDir(dir), dir)
	}
	return nil // never enrolled: who reads says so
}

// removeTree takes an identity away, its keys first.
func removeTree(dir string) error {
	for _, name := range []string{keyName, tpmName, identity.SealName, identity.SealBefore} {
		if err := durable.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s of an old identity: %w", name, err)
		}
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove old identity: %w", err)
	}
	return durable.SyncDir(filepath.Dir(dir))
}
