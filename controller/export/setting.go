package export

import (
	"crypto/x509"
	"fmt"
	"net"
	"net/url"
	"os"
)

// A FieldError says which option of an export is wrong; Key is its name in
// server.yaml.
type FieldError struct {
	Key string
	Err error
}

func (e *FieldError) Error() string { return e.Key + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

// Fault makes a FieldError.
func Fault(key, format string, args ...any) error {
	return &FieldError{key, fmt.Errorf(format, args...)}
}

// ParseAddress reads the address of a receiver. Its errors do not repeat what
// may hold a password; want says how an address is written.
func ParseAddress(key, text, want string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, Fault(key, "not an address: write %s", want)
	case u.User != nil:
		return nil, Fault(key, "secrets do not belong into an address: name files that hold them")
	}
	return u, nil
}

// Loopback reports whether a host is this machine.
func Loopback(host string) bool { return host == "localhost" || net.ParseIP(host).IsLoopback() }

// Roots reads the authority of a receiver.
func Roots(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read authority of the receiver: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read authority of the receiver: %s holds no certificate in PEM form", file)
	}
	return pool, nil
}
