package enrol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Version of requests and answers.
const Version = 1

// Where a controller listens for them. The first two are on the port of the
// pages, for everyone; the others are for boxes that show a certificate, on the
// port of files or on that of the pages, with identity.RenewProtocol.
const (
	PathRequests = "/api/enroll/v1/requests"
	PathRenew    = "/api/device/v1/renew"
	PathState    = "/api/device/v1/state"
	PathReceipt  = "/api/device/v1/receipt"
)

// PathChallenge is where the reply to a challenge goes.
func PathChallenge(requestID string) string { return PathRequests + "/" + requestID + "/challenge" }

// MaxBytes bounds a request, an answer and their files.
const MaxBytes = 32 << 10

// Request asks for a certificate. Subject and names in the CSR play no part:
// the controller chooses.
type Request struct {
	V       int    `json:"v"`
	TokenID string `json:"token_id"`
	// Secret of the token; empty in a file, which is signed with its hash.
	Secret   string   `json:"secret,omitempty"`
	CSR      []byte   `json:"csr"` // PKCS #10, DER; the key is ECDSA P-256
	Hardware Hardware `json:"hw"`
	TPM      *TPM     `json:"tpm,omitempty"` // the key lives in one
	Agent    Agent    `json:"agent"`
	NameHint string   `json:"name_hint,omitempty"` // used when no other box has it
}

// Hardware is what a machine says of itself. It tells machines apart and proves
// nothing: the key is the identity.
type Hardware struct {
	DMIUUID     string   `json:"dmi_product_uuid,omitempty"`
	BoardSerial string   `json:"board_serial,omitempty"`
	DTSerial    string   `json:"dt_serial,omitempty"` // device tree, as of a Jetson
	MACs        []string `json:"macs,omitempty"`      // of built-in ports, sorted
	DiskSerial  string   `json:"disk_serial,omitempty"`
	Arch        string   `json:"arch,omitempty"`
	Model       string   `json:"model,omitempty"`
}

// Agent is the program that asks.
type Agent struct {
	Version string `json:"version"`
	BootID  string `json:"boot_id"`
}

// TPM says where a key lives. Both public areas are TPMT_PUBLIC as TPM 2.0
// marshals it. The controller has it proved by a challenge.
type TPM struct {
	EKPublic  []byte `json:"ek_public"`
	EKCert    []byte `json:"ek_cert,omitempty"` // DER, when the maker left one
	KeyPublic []byte `json:"key_public"`        // of the key in the CSR
}

// Challenge is what TPM2_ActivateCredential wants: only the TPM that has both
// the endorsement key and the key of the CSR finds the answer. Both are the
// content of TPM2B structures, without their lengths.
type Challenge struct {
	CredentialBlob []byte `json:"credential_blob"` // TPM2B_ID_OBJECT
	Secret         []byte `json:"secret"`          // TPM2B_ENCRYPTED_SECRET
}

// ChallengeReply brings what the TPM found.
type ChallengeReply struct {
	V      int    `json:"v"`
	Answer []byte `json:"answer"`
}

// Renewal asks for the next certificate, over a connection that shows the
// present one. A key in a file is a new one each time. Without CSR it asks how the
// box stands (PathState).
type Renewal struct {
	V        int      `json:"v"`
	CSR      []byte   `json:"csr,omitempty"`
	Hardware Hardware `json:"hw"`
	Agent    Agent    `json:"agent"`
	// Fence counts starts of the agent on this disk; 0: not kept. A disk that
	// was copied or put back repeats numbers.
	Fence uint64 `json:"fence,omitempty"`
}

// A Code says what an answer means; it never changes its meaning.
type Code string

// What a controller answers.
const (
	Issued       Code = "issued"        // 201, or 200 when it was said before
	Pending      Code = "pending"       // 202: a person must agree; ask again with the same request
	TPMChallenge Code = "tpm_challenge" // 202: prove that the key is in the TPM

	TokenUnknown     Code = "token_unknown"     // 401
	TokenExpired     Code = "token_expired"     // 403
	TokenSite        Code = "token_site"        // 403: not from this network, or not this hardware
	Denied           Code = "denied"            // 403: a person said no
	TokenUsed        Code = "token_used"        // 409: by another key
	HardwareKnown    Code = "hardware_known"    // 409: this machine is a member already
	IdentityConflict Code = "identity_conflict" // 409: this key is another box's
	IdentityFork     Code = "identity_fork"     // 409: this certificate was replaced; somebody has a copy
	BadRequest       Code = "bad_request"       // 400
	BadCSR           Code = "bad_csr"           // 422
	BadKeyType       Code = "bad_key_type"      // 422
	BadTPM           Code = "bad_tpm"           // 422: what is said of the TPM does not hold
	AgentTooOld      Code = "agent_too_old"     // 426
	Busy             Code = "busy"              // 429 and 503, with Retry-After

	// Of members.
	Active      Code = "active"      // 200
	Quarantined Code = "quarantined" // 200: telemetry only, until a person decides
	Revoked     Code = "revoked"     // 403: never again
	Retired     Code = "retired"     // 200: wipe, and send the receipt
	Received    Code = "received"    // 200: the receipt was stored
)

// Answer is all that a controller says. The fields after Detail are set with
// the codes named there.
type Answer struct {
	V    int  `json:"v"`
	Code Code `json:"code"`
	// Detail is a sentence for whom it concerns; English, one line.
	Detail string `json:"detail,omitempty"`

	RequestID    string      `json:"request_id,omitempty"`    // Pending, TPMChallenge
	PollSeconds  int         `json:"poll_after_s,omitempty"`  // Pending
	ShortCode    string      `json:"short_code,omitempty"`    // Pending: shown to the person who agrees
	Challenge    *Challenge  `json:"challenge,omitempty"`     // TPMChallenge
	Member       *Member     `json:"member,omitempty"`        // Issued
	DeviceID     identity.ID `json:"device_id,omitempty"`     // TokenUsed, HardwareKnown, IdentityConflict, and of members
	MinAgent     string      `json:"min_agent,omitempty"`     // AgentTooOld
	RetrySeconds int         `json:"retry_after_s,omitempty"` // Busy
	ServerTime   time.Time   `json:"server_time"`             // always
}

// Member is what makes a machine a box: its files.
type Member struct {
	Box identity.Box `json:"box"` // box.json
	// Certificate and Authorities are PEM: cert.pem (leaf and what stands between
	// it and the root) and ca.pem (roots; two while one replaces the other).
	Certificate string    `json:"certificate"`
	Authorities string    `json:"authorities"`
	RenewAfter  time.Time `json:"renew_after"`
}

// Status is the HTTP status of a code. Issued is 201 the first time.
func (c Code) Status() int {
	switch c {
	case Issued:
		return http.StatusCreated
	case Pending, TPMChallenge:
		return http.StatusAccepted
	case TokenUnknown:
		return http.StatusUnauthorized
	case TokenExpired, TokenSite, Denied, Revoked:
		return http.StatusForbidden
	case TokenUsed, HardwareKnown, IdentityConflict, IdentityFork:
		return http.StatusConflict
	case BadRequest:
		return http.StatusBadRequest
	case BadCSR, BadKeyType, BadTPM:
		return http.StatusUnprocessableEntity
	case AgentTooOld:
		return http.StatusUpgradeRequired
	case Busy:
		return http.StatusServiceUnavailable
	}
	return http.StatusOK
}

// decode reads one JSON value of at most MaxBytes and nothing after it. Fields
// that this version does not know are let pass: newer agents may say more.
func decode[T any](r io.Reader) (v T, err error) {
	var none T
	data, err := io.ReadAll(io.LimitReader(r, MaxBytes+1))
	if err != nil {
		return none, err
	}
	if len(data) > MaxBytes {
		return none, fmt.Errorf("longer than %d bytes", MaxBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&v); err != nil {
		return none, err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return none, errors.New("more than one JSON value")
	}
	return v, nil
}

// ReadRequest reads and bounds a request.
func ReadRequest(r io.Reader) (Request, error) {
	q, err := decode[Request](r)
	if err == nil {
		err = q.check()
	}
	if err != nil {
		return Request{}, fmt.Errorf("read enrolment request: %w", err)
	}
	return q, nil
}

// ReadRenewal reads and bounds a renewal.
func ReadRenewal(r io.Reader) (Renewal, error) {
	q, err := decode[Renewal](r)
	if err == nil {
		err = errors.Join(checkVersion(q.V), q.Hardware.check(), q.Agent.check())
	}
	if err != nil {
		return Renewal{}, fmt.Errorf("read renewal: %w", err)
	}
	return q, nil
}

// ReadChallengeReply reads and bounds a reply to a challenge.
func ReadChallengeReply(r io.Reader) (ChallengeReply, error) {
	q, err := decode[ChallengeReply](r)
	if err == nil {
		err = checkVersion(q.V)
	}
	if err != nil {
		return ChallengeReply{}, fmt.Errorf("read reply to challenge: %w", err)
	}
	return q, nil
}

// ReadAnswer reads an answer, whatever its HTTP status was.
func ReadAnswer(r io.Reader) (Answer, error) {
	a, err := decode[Answer](r)
	switch {
	case err != nil:
	case a.Code == "":
		err = errors.New("it has no code: this is not a controller of edgeherd")
	case a.Code == Issued && (a.Member == nil || a.Member.Certificate == "" || a.Member.Authorities == ""):
		err = errors.New("it brings no certificate")
	case a.Code == TPMChallenge && (a.Challenge == nil || a.RequestID == ""):
		err = errors.New("it brings no challenge")
	}
	if err == nil && a.Code == Issued {
		_, err = identity.ParseID(string(a.Member.Box.ID))
	}
	if err != nil {
		return Answer{}, fmt.Errorf("read the controller's answer: %w", err)
	}
	return a, nil
}

func checkVersion(v int) error {
	if v != Version {
		return fmt.Errorf("version %d, this program speaks %d", v, Version)
	}
	return nil
}

// maxWord bounds every text that a machine says of itself.
const maxWord = 128

func words(what string, list ...string) error {
	for _, s := range list {
		if len(s) > maxWord {
			return fmt.Errorf("%s of %d bytes, at most %d", what, len(s), maxWord)
		}
	}
	return nil
}

func (q Request) check() error {
	var err error
	if t := q.TPM; t != nil && (len(t.EKPublic) == 0 || len(t.KeyPublic) == 0) {
		err = errors.New("tpm without its public areas")
	}
	return errors.Join(checkVersion(q.V), err, words("field", q.TokenID, q.Secret, q.NameHint), q.Hardware.check(), q.Agent.check())
}

func (h Hardware) check() error {
	if len(h.MACs) > 32 {
		return fmt.Errorf("%d network ports, at most 32", len(h.MACs))
	}
	return words("field of hw", append([]string{h.DMIUUID, h.BoardSerial, h.DTSerial, h.DiskSerial, h.Arch, h.Model}, h.MACs...)...)
}

func (a Agent) check() error { return words("field of agent", a.Version, a.BootID) }
