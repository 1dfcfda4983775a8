package dial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/mqttws"
)

// Stage is how far a way led.
type Stage string

// The stages, in order.
const (
	StageDNS     Stage = "DNS"
	StageTCP     Stage = "TCP"
	StageProxy   Stage = "proxy"
	StageTLS     Stage = "TLS"
	StageUpgrade Stage = "HTTP upgrade"
	StageMQTT    Stage = "MQTT"
)

// Fault is why a way failed.
type Fault struct {
	Way    string
	Stage  Stage
	What   string // in one sentence, with the way out
	Reason error  // nil if What says all
}

func (f *Fault) Error() string {
	text := fmt.Sprintf("%s failed at %s: %s", f.Way, f.Stage, f.What)
	if f.Reason != nil {
		text += " (" + f.Reason.Error() + ")"
	}
	return text
}

func (f *Fault) Unwrap() error { return f.Reason }

// tcpFault is for a host that was not reached: the controller or the proxy.
func tcpFault(w way, address string, err error) error {
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns):
		return &Fault{w.name, StageDNS, "the name in " + address + " is not found; ask who runs the network for its DNS, or use an address", err}
	case timedOut(err):
		return &Fault{w.name, StageTCP, "nothing answers at " + address + "; a firewall that drops packets looks like this", nil}
	case errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.ENETDOWN):
		return &Fault{w.name, StageTCP, "this box has no network that leads to " + address + "; is the cable in, and did the site give it an address?", err}
	case errors.Is(err, syscall.ECONNREFUSED):
		return &Fault{w.name, StageTCP, "nothing listens at " + address + "; is the controller running, and the port right?", err}
	}
	return &Fault{w.name, StageTCP, "no connection to " + address, err}
}

// tlsFault is for a handshake that our side gave up.
func tlsFault(w way, err error) error {
	var unverified *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var alien tls.RecordHeaderError
	switch {
	case errors.As(err, &unknown) || errors.As(err, &unverified) && selfMade(unverified):
		issuer := "unknown"
		if errors.As(err, &unverified) && len(unverified.UnverifiedCertificates) > 0 {
			issuer = fmt.Sprintf("%.120q", unverified.UnverifiedCertificates[0].Issuer.String())
		}
		return &Fault{w.name, StageTLS, "TLS is intercepted: the certificate is not of this controller's CA, its issuer is " + issuer +
			"; nothing was sent; exempt " + w.address + " from TLS inspection", nil}
	case errors.As(err, &name):
		return &Fault{w.name, StageTLS, "the certificate is of our CA but for another name; add the name to the key hosts of server.yaml, or enrol the box anew", err}
	case errors.As(err, &alien):
		return &Fault{w.name, StageTLS, "what answers at " + w.address + " does not speak TLS: a captive portal, or another port", nil}
	case refusedUs(err):
		return &Fault{w.name, StageTLS, "the controller does not take this box's certificate; is the box enrolled there?", err}
	case timedOut(err):
		return &Fault{w.name, StageTLS, "the handshake got no answer; a firewall that looks into connections does this", nil}
	case errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET):
		return &Fault{w.name, StageTLS, "the connection was closed during the handshake; a firewall that looks into connections does this", err}
	}
	return &Fault{w.name, StageTLS, "no TLS with " + w.address, err}
}

// selfMade tells a certificate of strangers from one of ours that is out of
// its time or for another use.
func selfMade(err *tls.CertificateVerificationError) bool {
	var ours x509.CertificateInvalidError
	var name x509.HostnameError
	return !errors.As(err.Err, &ours) && !errors.As(err.Err, &name)
}

// upgradeFault is for what came in place of a WebSocket.
func (d *Dialer) upgradeFault(w way, err error) error {
	var refused *mqttws.Refused
	switch {
	case errors.As(err, &refused):
		return &Fault{w.name, StageUpgrade, "WebSocket is refused; is this an edgeherd controller, new enough for it?", err}
	case refusedUs(err):
		return tlsFault(w, err) // the controller judges the box after its own side of TLS
	case timedOut(err):
		return &Fault{w.name, StageUpgrade, "the request for a WebSocket got no answer", nil}
	}
	return &Fault{w.name, StageUpgrade, "no WebSocket with " + w.address, err}
}

// refusedUs reports whether the other side ended TLS because of us.
func refusedUs(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// answered is a connection whose first answer has not come. In TLS 1.3 the
// controller judges the box after the box thinks that all is well, so a
// refusal shows as an error of the first read.
type answered struct {
	net.Conn
	way      string
	notAfter time.Time
	heard    atomic.Bool
}

func (c *answered) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(true)
	}
	if err == nil || c.heard.Load() || errors.Is(err, net.ErrClosed) {
		return n, err
	}
	what := "the controller closed the connection before it answered; its log says why"
	if refusedUs(err) || strings.Contains(err.Error(), "remote error: tls") {
		what = fmt.Sprintf("the controller refuses this box's certificate, which ends on %s; is the box enrolled there?", c.notAfter.UTC().Format(time.DateOnly))
	}
	return n, &Fault{c.way, StageMQTT, what, err}
}
