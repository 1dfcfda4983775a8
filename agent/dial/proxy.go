package dial

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/edgeherd/edgeherd/internal/mqttws"
)

// Bounds of what a proxy may answer and of the file with its password.
const (
	maxAnswerBytes = 32 << 10
	maxAuthBytes   = 1024
)

// Server is a parsed Options.Server.
type Server struct {
	Address string // host:port; empty means what enrolment wrote
	Pages   bool   // wss
}

// ParseServer reads Options.Server.
func ParseServer(text string) (Server, error) {
	if text == "" || text == "auto" {
		return Server{}, nil
	}
	wrong := func(why string) (Server, error) {
		return Server{}, fmt.Errorf("server: %s; want auto, mqtts://HOST:8883 or wss://HOST:8443%s", why, mqttws.Path)
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return wrong("not an address")
	case u.User != nil:
		return wrong("a user is given, but a box proves itself by its certificate")
	case u.RawQuery != "" || u.Fragment != "":
		return wrong("nothing may follow the address")
	case u.Scheme == "mqtts" && (u.Path == "" || u.Path == "/"):
		return Server{Address: withPort(u, "8883")}, nil
	case u.Scheme == "wss" && (u.Path == "" || u.Path == "/" || u.Path == mqttws.Path):
		return Server{Address: withPort(u, "443"), Pages: true}, nil
	case u.Scheme == "mqtts" || u.Scheme == "wss":
		return wrong(fmt.Sprintf("the path is %q", u.Path))
	}
	return wrong(fmt.Sprintf("the scheme is %q", u.Scheme))
}

// ParseProxy reads Options.Proxy and returns host:port. Its errors do not
// repeat the text: a password may be in it.
func ParseProxy(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Hostname() == "":
		return "", errors.New("proxy: not an address; want http://HOST:3128")
	case u.User != nil:
		return "", errors.New("proxy: a user or password is in the address; put USER:PASSWORD into a file of mode 0600 and name it with the key proxy_auth_file")
	case u.Scheme != "http":
		return "", fmt.Errorf("proxy: the scheme is %.20q; want http://HOST:3128 (what goes through it is encrypted from end to end)", u.Scheme)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
		return "", errors.New("proxy: nothing may follow the address; want http://HOST:3128")
	}
	return withPort(u, "3128"), nil
}

func withPort(u *url.URL, port string) string {
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// ReadAuth reads USER:PASSWORD from a file that only its owner may read.
func ReadAuth(path string) (user, password string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", "", fmt.Errorf("proxy_auth_file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", "", fmt.Errorf("proxy_auth_file: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", "", fmt.Errorf("proxy_auth_file: others may read %s (mode %#o): run chmod 600 %[1]s", path, info.Mode().Perm())
	}
	data, err := io.ReadAll(io.LimitReader(f, maxAuthBytes+1))
	if err != nil {
		return "", "", fmt.Errorf("proxy_auth_file: %w", err)
	}
	user, password, ok := strings.Cut(strings.TrimRight(string(data), "\r\n"), ":")
	if !ok || user == "" || len(data) > maxAuthBytes || strings.ContainsAny(user+password, "\r\n\x00") {
		return "", "", fmt.Errorf("proxy_auth_file: %s is not one line USER:PASSWORD of at most %d bytes", path, maxAuthBytes)
	}
	return user, password, nil
}

// connect asks the proxy for a tunnel to the way's address.
func (d *Dialer) connect(ctx context.Context, w way) (net.Conn, error) {
	header := http.Header{"User-Agent": {"edgeherd-agent"}}
	if d.opts.ProxyAuth != "" {
		user, password, err := ReadAuth(d.opts.ProxyAuth)
		if err != nil {
			return nil, &Fault{w.name, StageProxy, err.Error(), nil}
		}
		header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+password)))
	}
	conn, err := d.opts.Net(ctx, "tcp", d.proxy)
	if err != nil {
		return nil, tcpFault(w, d.proxy+", the proxy", err)
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: w.address}, Host: w.address, Header: header}
	if err := req.Write(conn); err != nil {
		conn.Close()
		return nil, d.proxyFault(ctx, w, err)
	}
	in := bufio.NewReader(io.LimitReader(conn, maxAnswerBytes))
	answer, err := http.ReadResponse(in, req)
	if err != nil {
		conn.Close()
		return nil, d.proxyFault(ctx, w, err)
	}
	if err := d.judge(w, answer, in.Buffered()); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

func (d *Dialer) proxyFault(ctx context.Context, w way, err error) error {
	if ctx.Err() != nil {
		return &Fault{w.name, StageProxy, "the proxy does not answer; it may be unable to reach " + w.address, nil}
	}
	return &Fault{w.name, StageProxy, "what answers at " + d.proxy + " is no HTTP proxy", err}
}

// judge tells a tunnel from all else that may come back, the page of a captive
// portal included.
func (d *Dialer) judge(w way, answer *http.Response, early int) error {
	fault := func(format string, args ...any) error {
		return &Fault{w.name, StageProxy, fmt.Sprintf(format, args...), nil}
	}
	status := strconv.Itoa(answer.StatusCode)
	switch code := answer.StatusCode; {
	case code == http.StatusProxyAuthRequired && !offersBasic(answer):
		return fault("the proxy wants a login that is not Basic (407, %.80q): let it pass %s without one, or allow Basic", answer.Header.Get("Proxy-Authenticate"), w.address)
	case code == http.StatusProxyAuthRequired && d.opts.ProxyAuth == "":
		return fault("the proxy wants a user and password (407): name a file that holds USER:PASSWORD with the key proxy_auth_file")
	case code == http.StatusProxyAuthRequired:
		return fault("the proxy refuses the user or password (407): correct %s", d.opts.ProxyAuth)
	case code == http.StatusForbidden:
		return fault("the proxy forbids a tunnel to %s (403): let it allow CONNECT to this host and port", w.address)
	case code == http.StatusBadGateway || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout:
		return fault("the proxy cannot reach %s (%s)", w.address, status)
	case code >= 300 && code < 400:
		return fault("a redirect to %.120q came in place of a tunnel (%s): a captive portal wants a person to log in", answer.Header.Get("Location"), status)
	case code < 200 || code >= 300:
		return fault("the proxy answered %s %s in place of a tunnel", status, http.StatusText(code))
	case early > 0:
		// Nothing follows a success before we speak: it has no body (RFC 9110
		// section 9.3.6), and in TLS the client begins. A page that comes later
		// is told by tlsFault.
		return fault("a page came in place of a tunnel (%s): a captive portal, or not a proxy", status)
	}
	return nil
}

func offersBasic(answer *http.Response) bool {
	for _, scheme := range answer.Header.Values("Proxy-Authenticate") {
		for part := range strings.SplitSeq(scheme, ",") {
			if word, _, _ := strings.Cut(strings.TrimSpace(part), " "); strings.EqualFold(word, "basic") {
				return true
			}
		}
	}
	return false
}
