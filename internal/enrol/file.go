package enrol

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Names of files that travel by hand.
const (
	RequestSuffix = ".ehreq"
	AnswerSuffix  = ".ehresp"
	// KitDir and KitToken are where a stick carries a token:
	// <mount>/edgeherd-kit/token.txt.
	KitDir   = "edgeherd-kit"
	KitToken = "token.txt"
)

// What a signature is for, so that none can be taken for another.
const (
	formatRequest = "edgeherd enrolment request 1"
	formatAnswer  = "edgeherd enrolment answer 1"
	formatReceipt = "edgeherd receipt 1"
)

// RequestName is the name of the file of a request, by the key of its CSR.
func RequestName(spki []byte) string { return "d-req-" + KeyID(spki) + RequestSuffix }

// AnswerName is the name of the answer to the file of a request.
func AnswerName(request string) string {
	return strings.TrimSuffix(request, RequestSuffix) + AnswerSuffix
}

// KitTokenText returns the token in the text of KitToken: its first line that is
// neither empty nor a comment.
func KitTokenText(text []byte) string {
	for line := range bytes.Lines(text) {
		if line = bytes.TrimSpace(line); len(line) > 0 && line[0] != '#' {
			return string(line)
		}
	}
	return ""
}

// Signed is a payload with a signature by an ECDSA key over its format and it.
type Signed struct {
	Format    string `json:"format"`
	Payload   []byte `json:"payload"`
	Signature []byte `json:"signature"` // ASN.1
	// Code is the HMAC-SHA256 of format and payload with the hash of the token's
	// secret. Requests have it, so that nobody changes a file on the stick.
	Code []byte `json:"code,omitempty"`
	// Chain is who signed, DER, leaf first. Answers have it.
	Chain [][]byte `json:"chain,omitempty"`
}

func (s Signed) message() []byte { return append([]byte(s.Format+"\x00"), s.Payload...) }

func sign(format string, v any, key crypto.Signer) (s Signed, err error) {
	s.Format = format
	if s.Payload, err = json.Marshal(v); err != nil {
		return Signed{}, fmt.Errorf("encode %s: %w", format, err)
	}
	sum := sha256.Sum256(s.message())
	if s.Signature, err = key.Sign(rand.Reader, sum[:], crypto.SHA256); err != nil {
		return Signed{}, fmt.Errorf("sign %s: %w", format, err)
	}
	return s, nil
}

func (s Signed) verify(format string, public any) error {
	if s.Format != format {
		return fmt.Errorf("the file is %q, want %q", s.Format, format)
	}
	key, ok := public.(*ecdsa.PublicKey)
	if !ok {
		return fmt.Errorf("signed with a key of type %T", public)
	}
	sum := sha256.Sum256(s.message())
	if !ecdsa.VerifyASN1(key, sum[:], s.Signature) {
		return errors.New("the signature does not fit: the file was changed")
	}
	return nil
}

func (s Signed) mac(secretHash [32]byte) []byte {
	h := hmac.New(sha256.New, secretHash[:])
	h.Write(s.message())
	return h.Sum(nil)
}

func encodeFile(s Signed) ([]byte, error) {
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", s.Format, err)
	}
	return append(data, '\n'), nil
}

// RequestFile is a request to carry by hand, signed by the key of its CSR. The
// secret does not travel.
func RequestFile(q Request, t Token, key crypto.Signer) ([]byte, error) {
	q.V, q.TokenID, q.Secret = Version, t.ID, ""
	s, err := sign(formatRequest, q, key)
	if err != nil {
		return nil, err
	}
	s.Code = s.mac(t.SecretHash())
	return encodeFile(s)
}

// OpenRequest reads the file of a request and checks that the key of its CSR
// signed it. Whether the token's holder wrote it says Authentic.
func OpenRequest(file []byte) (Request, Signed, error) {
	fail := func(err error) (Request, Signed, error) {
		return Request{}, Signed{}, fmt.Errorf("open the file of a request: %w", err)
	}
	s, err := decode[Signed](bytes.NewReader(file))
	if err != nil {
		return fail(err)
	}
	q, err := ReadRequest(bytes.NewReader(s.Payload))
	if err != nil {
		return fail(err)
	}
	csr, err := x509.ParseCertificateRequest(q.CSR)
	if err != nil {
		return fail(err)
	}
	if err := s.verify(formatRequest, csr.PublicKey); err != nil {
		return fail(err)
	}
	return q, s, nil
}

// Authentic says whether who made the file of a request knew the token.
func (s Signed) Authentic(secretHash [32]byte) bool { return hmac.Equal(s.Code, s.mac(secretHash)) }

// AnswerFile is an answer to carry by hand, signed by the key of the
// controller's own certificate. chain is that certificate, DER, leaf first, with
// all authorities above it.
func AnswerFile(a Answer, chain [][]byte, key crypto.Signer) ([]byte, error) {
	s, err := sign(formatAnswer, a, key)
	if err != nil {
		return nil, err
	}
	s.Chain = chain
	return encodeFile(s)
}

// OpenAnswer reads the file of an answer and believes it as Token.Verify would
// believe a connection.
func (t Token) OpenAnswer(file []byte, now time.Time) (Answer, error) {
	fail := func(err error) (Answer, error) {
		return Answer{}, fmt.Errorf("open the file of an answer: %w", err)
	}
	s, err := decode[Signed](bytes.NewReader(file))
	if err != nil {
		return fail(err)
	}
	var chain []*x509.Certificate
	for _, der := range s.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return fail(err)
		}
		chain = append(chain, c)
	}
	if err := t.Verify(chain, now); err != nil {
		return fail(err)
	}
	if err := s.verify(formatAnswer, chain[0].PublicKey); err != nil {
		return fail(err)
	}
	a, err := ReadAnswer(bytes.NewReader(s.Payload))
	if err != nil {
		return fail(err)
	}
	return a, nil
}

// Receipt is what a retired box leaves: that it has wiped itself.
type Receipt struct {
	V        int         `json:"v"`
	DeviceID identity.ID `json:"device_id"`
	// Wiped names what is gone: "spool", "models", "results". The identity goes
	// when the receipt was received.
	Wiped []string `json:"wiped"`
	// Lost counts blocks of telemetry that had not been acknowledged.
	Lost    uint64    `json:"lost_blocks"`
	Time    time.Time `json:"time"` // by the box's clock
	BootID  string    `json:"boot_id"`
	Version string    `json:"agent"`
}

// SignReceipt has the box's key sign its receipt, as the body for PathReceipt.
func SignReceipt(r Receipt, key crypto.Signer) ([]byte, error) {
	r.V = Version
	s, err := sign(formatReceipt, r, key)
	if err != nil {
		return nil, err
	}
	return encodeFile(s)
}

// OpenReceipt reads a receipt and checks that it was signed with a box's key.
func OpenReceipt(body []byte, public any) (Receipt, error) {
	s, err := decode[Signed](bytes.NewReader(body))
	if err == nil {
		err = s.verify(formatReceipt, public)
	}
	var r Receipt
	if err == nil {
		r, err = decode[Receipt](bytes.NewReader(s.Payload))
	}
	if err == nil {
		err = errors.Join(checkVersion(r.V), words("field of receipt", append([]string{r.BootID, r.Version}, r.Wiped...)...))
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("read receipt: %w", err)
	}
	return r, nil
}
