package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/agent/enrol"
	"github.com/edgeherd/edgeherd/agent/link"
	wireenrol "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// ways tries each way to the controller. While the agent is connected no other
// session is asked for: TLS has to do then, and what the agent says of itself.
func (e examination) ways(ctx context.Context, id *identity.Identity) []Finding {
	d, err := dial.New(dial.Options{
		Identity: id, Server: e.opts.Server, Proxy: e.opts.Proxy, ProxyAuth: e.opts.ProxyAuth,
		Net: e.opts.Net, WallClock: e.now,
	}, slog.New(slog.DiscardHandler))
	if err != nil {
		return []Finding{{"ways", Fail, err.Error(), "mend server and proxy in agent.yaml"}}
	}
	status, connected := e.linked()
	look := func(ctx context.Context, conn net.Conn) error { return link.Knock(ctx, conn, id.ID) }
	if connected {
		look = func(context.Context, net.Conn) error { return nil }
	}
	all := e.standing(ctx, d, id)
	judged := len(all) > 0
	open := 0
	for _, t := range d.Each(ctx, wayLimit, look) {
		f := Finding{Check: "way " + t.Way, Level: OK, Found: "the controller answers"}
		switch {
		case t.Err != "":
			f.Level, f.Found = Warn, t.Err // with its way out
		case connected:
			f.Found = "open up to TLS"
			open++
		default:
			open++
		}
		all = append(all, f)
	}
	switch {
	case connected:
		all = append(all, Finding{"agent", OK, fmt.Sprintf("connected by %s since %s", status.Ways.Way, status.Since.Format(time.RFC3339)), ""})
	case judged:
		all = append(all, Finding{"agent", Warn, "not connected: the controller keeps this box out", "see membership above"})
	case open > 0:
		all = append(all, Finding{"agent", Warn, "not connected, though the controller answers", "is it running? systemctl status edgeherd-agent"})
	default:
		all = append(all, Finding{"agent", Fail, "not connected: no way leads to the controller", "one of the ways above has to be opened; until then the box works on and keeps its telemetry"})
	}
	if open > 0 && !judged {
		all = append(all, e.offset(ctx, d, id))
	}
	return all
}

// standing asks the controller how it sees the box: one that is kept out cannot
// tell that from a way that is closed. It says nothing where all is well, or where
// the controller cannot be asked: the ways tell of that.
func (e examination) standing(ctx context.Context, d *dial.Dialer, id *identity.Identity) []Finding {
	ctx, stop := context.WithTimeout(ctx, wayLimit)
	defer stop()
	answer, err := enrol.Standing(ctx, id, e.opts.Root, d.Renewals)
	if err != nil {
		return nil
	}
	f := Finding{Check: "membership", Level: Fail, Found: strings.TrimSuffix(answer.Detail, ".")}
	switch answer.Code {
	case wireenrol.Quarantined:
		f.Way = "tell ops: the box gets neither models nor updates until they decide, by edgeherd box release or box replace"
	case wireenrol.Retired:
		f.Level, f.Way = Warn, "nothing: the agent wipes this box within minutes"
	case wireenrol.Revoked, wireenrol.IdentityFork:
		f.Way = "it serves on, and the controller takes nothing from it. To bring it back ask ops for a token, then: edgeherd-agent enroll TOKEN --re-enroll"
	default:
		return nil
	}
	return []Finding{f}
}

// farOff is how much the box's clock may differ from the controller's.
const farOff = 30 * time.Second

// offset asks the device API for its time: any answer has a Date.
func (e examination) offset(ctx context.Context, d *dial.Dialer, id *identity.Identity) Finding {
	f := Finding{Check: "downloads", Level: Fail, Way: "models and updates cannot come; telemetry can. Open this address as well"}
	ctx, stop := context.WithTimeout(ctx, wayLimit)
	defer stop()
	transport := &http.Transport{DialTLSContext: d.Files, DisableKeepAlives: true}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+id.HTTPS+"/", nil)
	if err != nil {
		f.Found = err.Error()
		return f
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		f.Found = err.Error()
		return f
	}
	resp.Body.Close()
	there, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		f.Found = fmt.Sprintf("%s answers without a date", id.HTTPS)
		return f
	}
	off := e.now().Sub(there).Round(time.Second)
	f = Finding{Check: "downloads", Level: OK, Found: fmt.Sprintf("%s answers; this clock is %s off", id.HTTPS, off.Abs())}
	if off.Abs() > farOff {
		f.Level, f.Way = Warn, "set the clock, see above; results are placed by the controller's clock meanwhile"
	}
	return f
}
