package enrol

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/freeport"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// TestABoxThatIsKeptOutAsksSoonHowItStands: it may have been retired. One that is
// connected leaves the controller alone.
func TestABoxThatIsKeptOutAsksSoonHowItStands(t *testing.T) {
	for connected, want := range map[bool]int{true: 2, false: 73} { // in six hours and a bit, from the first on
		synctest.Test(t, func(t *testing.T) {
			ca, err := identity.OpenCA(t.TempDir(), nil)
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := identity.Enrol(dir, ca, identity.Box{ID: identity.NewID(), Server: "ctl", HTTPS: "ctl:1"}); err != nil {
				t.Fatal(err)
			}
			id, err := Load(dir)
			if err != nil {
				t.Fatal(err)
			}
			asked := 0
			r := NewRenewer(RenewOptions{
				Dir: dir, Root: t.TempDir(), Box: id, Connected: func() bool { return connected },
				Dial: func(context.Context, string, string) (net.Conn, error) {
					asked++
					time.Sleep(time.Second) // a thin line, in the time of the bubble
					here, there := net.Pipe()
					go answerActive(there)
					return here, nil
				},
			}, slog.New(slog.DiscardHandler))
			ctx, stop := context.WithTimeout(t.Context(), standEvery+time.Minute)
			defer stop()
			if err := r.Run(ctx); err != nil || asked != want {
				t.Errorf("connected %v: asked %d times, want %d; %v", connected, asked, want, err)
			}
		})
	}
}

// answerActive answers one request of HTTP/1.1, whatever it is.
func answerActive(conn net.Conn) {
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 4096)); err != nil {
		return
	}
	const body = `{"v":1,"code":"active","server_time":"2000-01-01T00:00:00Z"}`
	_, _ = conn.Write([]byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + body)) // the test counts
}

func TestStoppingAnEnrolmentSaysThatNothingIsLost(t *testing.T) {
	address, err := freeport.Address() // nothing listens there
	if err != nil {
		t.Fatal(err)
	}
	at := netip.MustParseAddrPort(address)
	ctx, stop := context.WithCancel(t.Context())
	var said []string
	opts := Options{Dir: filepath.Join(t.TempDir(), "identity"), Root: t.TempDir(), TPM: "off", Say: func(text string) {
		said = append(said, text)
		stop()
	}}
	_, err = Enrol(ctx, opts, enrol.NewToken("127.0.0.1", at.Port(), enrol.Pin{1}))
	if !errors.Is(err, ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	if len(said) != 1 || strings.Count(said[0], at.String()) != 1 || !strings.HasPrefix(said[0], "Nothing listens at ") || !strings.Contains(said[0], "right? Trying again") {
		t.Errorf("said %q", said)
	}
}
