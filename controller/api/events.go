package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

const (
	heartbeat    = 15 * time.Second
	eventPause   = 250 * time.Millisecond // changes within it travel together
	writeTimeout = 30 * time.Second       // of one write to a stream
)

// events is the stream of server-sent events (WHATWG HTML §9.2).
func (a *API) events(w http.ResponseWriter, r *http.Request) {
	s := a.opts.Hub.open(who(r.Context()).Key())
	if s == nil {
		w.Header().Set("Retry-After", "30")
		a.fail(w, r, fleetapi.Problem(http.StatusServiceUnavailable, fmt.Sprintf("%d streams of events are open, or %d of yours", maxStreams, ownStreams), "Close dashboards that nobody looks at."))
		return
	}
	defer a.opts.Hub.close(s)
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	rc := http.NewResponseController(w)
	send := func(text string) bool {
		// Not every writer knows deadlines; without one a write may wait longer.
		_ = rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, err := fmt.Fprint(w, text)
		return err == nil && rc.Flush() == nil
	}
	text := "retry: 3000\n\n"
	if r.Header.Get("Last-Event-ID") != "" {
		// The stream was broken: what happened meanwhile is not known.
		for _, t := range topics {
			text += eventText(fleetapi.Change{Topic: t})
		}
	}
	if !send(text) {
		return
	}
	beat := time.NewTicker(heartbeat)
	defer beat.Stop()
	for {
		text := ""
		select {
		case <-r.Context().Done():
			return
		case <-beat.C:
			if !a.stillIn(r) {
				return // who comes back is told why, or sees something else
			}
			text = ": still here\n\n"
		case <-s.ready:
			for _, c := range a.opts.Hub.take(s) {
				if c, ok := a.ownChange(r.Context(), c); ok {
					text += eventText(c)
				}
			}
			if text == "" {
				continue
			}
		}
		if !send(text) {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(eventPause):
		}
	}
}

// eventText is one event. Its id only says that there was one before.
func eventText(c fleetapi.Change) string {
	data, err := json.Marshal(c)
	if err != nil {
		panic("api: a Change always encodes: " + err.Error())
	}
	return fmt.Sprintf("event: change\nid: 1\ndata: %s\n\n", data)
}
