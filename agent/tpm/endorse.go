package tpm

import (
	"errors"
	"fmt"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// ekCertIndex is where a maker leaves the certificate of the RSA-2048
// endorsement key (TCG EK Credential Profile 2.5, section 2.2.1.4).
const ekCertIndex = tpm2.TPMHandle(0x01C00002)

// Endorsement is what a TPM shows of its maker's key: by it a controller knows
// the chip again, and by its certificate the maker.
type Endorsement struct {
	Public      []byte // TPMT_PUBLIC of the RSA-2048 endorsement key
	Certificate []byte // DER; empty where the maker left none
}

// Endorsement reads the endorsement key.
func (t TPM) Endorsement() (Endorsement, error) {
	var e Endorsement
	err := t.withEK(func(dev transport.TPM, ek *tpm2.CreatePrimaryResponse) error {
		e.Public = ek.OutPublic.Bytes()
		cert, err := readNV(dev, ekCertIndex)
		e.Certificate = cert
		return err
	})
	return e, err
}

func (t TPM) withEK(do func(dev transport.TPM, ek *tpm2.CreatePrimaryResponse) error) (err error) {
	dev, err := t.open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dev.Close()) }()
	ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.RSAEKTemplate)}.Execute(dev)
	if err != nil {
		return fmt.Errorf("derive endorsement key of TPM %s: %w", t.path, err)
	}
	defer flush(dev, ek.ObjectHandle, &err)
	return do(dev, ek)
}

// readNV reads a whole index, and nothing where there is none.
func readNV(dev transport.TPM, index tpm2.TPMHandle) ([]byte, error) {
	public, err := tpm2.NVReadPublic{NVIndex: index}.Execute(dev)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find certificate of endorsement key: %w", err)
	}
	area, err := public.NVPublic.Contents()
	if err != nil {
		return nil, fmt.Errorf("find certificate of endorsement key: %w", err)
	}
	var all []byte
	for size := int(area.DataSize); len(all) < size; {
		part, err := tpm2.NVRead{
			AuthHandle: tpm2.AuthHandle{Handle: index, Name: public.NVName, Auth: tpm2.PasswordAuth(nil)},
			NVIndex:    tpm2.NamedHandle{Handle: index, Name: public.NVName},
			Size:       uint16(min(size-len(all), 512)), // the least a TPM's buffer takes, rounded down
			Offset:     uint16(len(all)),
		}.Execute(dev)
		if err != nil {
			return nil, fmt.Errorf("read certificate of endorsement key: %w", err)
		}
		if len(part.Data.Buffer) == 0 {
			return nil, errors.New("read certificate of endorsement key: the TPM returned nothing")
		}
		all = append(all, part.Data.Buffer...)
	}
	return all, nil
}

// Activate opens a credential that was made for the key k and for the
// endorsement key of its TPM, and returns the secret in it: the proof that both
// are in one chip (TCG TPM 2.0 Library, Part 1, section 24).
func (k *Key) Activate(credential, secret []byte) ([]byte, error) {
	var out []byte
	err := k.use(func(dev transport.TPM, key tpm2.NamedHandle) (err error) {
		ek, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHEndorsement, InPublic: tpm2.New2B(tpm2.RSAEKTemplate)}.Execute(dev)
		if err != nil {
			return fmt.Errorf("derive endorsement key of TPM %s: %w", k.tpm.path, err)
		}
		defer flush(dev, ek.ObjectHandle, &err)
		got, err := tpm2.ActivateCredential{
			ActivateHandle: key,
			KeyHandle:      tpm2.AuthHandle{Handle: ek.ObjectHandle, Name: ek.Name, Auth: tpm2.Policy(tpm2.TPMAlgSHA256, 16, ekPolicy)},
			CredentialBlob: tpm2.TPM2BIDObject{Buffer: credential},
			Secret:         tpm2.TPM2BEncryptedSecret{Buffer: secret},
		}.Execute(dev)
		if err != nil {
			return fmt.Errorf("open credential with TPM %s: %w", k.tpm.path, err)
		}
		out = got.CertInfo.Buffer
		return nil
	})
	return out, err
}

// ekPolicy is how the reference template lets an endorsement key be used:
// PolicySecret with the empty password of the endorsement hierarchy.
func ekPolicy(dev transport.TPM, session tpm2.TPMISHPolicy, nonce tpm2.TPM2BNonce) error {
	_, err := tpm2.PolicySecret{AuthHandle: tpm2.TPMRHEndorsement, PolicySession: session, NonceTPM: nonce}.Execute(dev)
	return err
}
