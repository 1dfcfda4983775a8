// Package accept is the controller's side of acceptance tests: it judges what a
// box sent, and writes reports as the page and the PDF that are handed to a
// customer, in English, German, Polish and Chinese.
//
// A report is believed when the key of a certificate signed it that an authority
// of this fleet issued to the box that sends it; the certificate may have ended
// since. What the checks come to is counted here and not taken from the box.
//
// The one rule a caller can break: Judge gets the box from the connection, not
// from the report.
package accept

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Renewing judges a chain as identity.CA.Renewing does: of this fleet, ended or not.
type Renewing func(tls.ConnectionState) (*x509.Certificate, error)

// Judge opens a report that box has sent and says whose it is.
func Judge(data []byte, box identity.ID, renewing Renewing) (acceptance.Sealed, error) {
	s, err := acceptance.Open(data)
	if err != nil {
		return acceptance.Sealed{}, err
	}
	if s.Report.Box != box {
		return acceptance.Sealed{}, fmt.Errorf("the report is of %s and was sent by %s", s.Report.Box, box)
	}
	if _, err := renewing(tls.ConnectionState{PeerCertificates: s.Chain}); err != nil {
		return acceptance.Sealed{}, fmt.Errorf("who signed the report: %w", err)
	}
	return s, nil
}

// Summary is what lists tell of a report.
func Summary(s acceptance.Sealed, received time.Time) fleetapi.Acceptance {
	r, n := s.Report, s.Report.Count()
	levels := r.Levels
	if levels == nil {
		levels = []acceptance.Level{}
	}
	return fleetapi.Acceptance{
		ID: r.ID, Verdict: r.Verdict(), Started: r.Started.UTC(), Ended: r.Ended.UTC(), Received: received.UTC(), By: r.By, Delivery: r.Delivery,
		Simulated: r.Simulated, Levels: levels, Key: s.Fingerprint(),
		Passed: n[acceptance.Pass], Warned: n[acceptance.Warn], Failed: n[acceptance.Fail], Skipped: n[acceptance.Skipped],
	}
}
