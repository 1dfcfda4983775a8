package controller

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/mqttws"
)

// deviceWrite bounds an answer to a box: a file over a thin link.
const deviceWrite = time.Hour

// strangerWait bounds a request to enrol, and its answer.
const strangerWait = 30 * time.Second

// entrance serves the port of the web pages. A connection on which a box has
// proved itself (identity.BoxProtocol, identity.RenewProtocol) gets what the
// ports of boxes give, MQTT over WebSocket, files and renewals, and nothing else;
// every other one gets the pages, and machines that are no boxes yet may enrol.
func (c *Controller) entrance(pages http.Handler) http.Handler {
	device, strangers := c.deviceEntrance(c.api.Device()), c.members.Public()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
			if r.URL.Path == mqttws.Path {
				refuse(w, "this address is for boxes: no box certificate was shown", "A box offers the ALPN protocol edgeherd-box. A proxy that ends TLS in between makes that impossible: let it pass TLS through.")
				return
			}
			if r.TLS != nil && strings.HasPrefix(r.URL.Path, "/api/enroll/") {
				// The pages' own limit is none, for their streams of events.
				c.bound(w, strangerWait)
				strangers.ServeHTTP(w, r)
				return
			}
			pages.ServeHTTP(w, r)
			return
		}
		switch {
		case r.URL.Path == mqttws.Path && len(r.TLS.VerifiedChains) > 0:
			c.serveWebSocket(w, r)
		case strings.HasPrefix(r.URL.Path, "/device/") || strings.HasPrefix(r.URL.Path, "/api/device/"):
			c.bound(w, deviceWrite)
			device.ServeHTTP(w, r)
		default:
			refuse(w, "a box may not see the pages", "")
		}
	})
}

// bound limits how long a request and its answer may take from now.
func (c *Controller) bound(w http.ResponseWriter, wait time.Duration) {
	r := http.NewResponseController(w)
	if err := errors.Join(r.SetReadDeadline(time.Now().Add(wait)), r.SetWriteDeadline(time.Now().Add(wait))); err != nil {
		c.log.Warn("a request is not bounded in time", "err", err)
	}
}

// serveWebSocket hands a box's WebSocket to the broker, as a connection to the
// MQTT port is: same hooks, limits and identity.
func (c *Controller) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	peer, err := broker.PeerOf(*r.TLS)
	if err != nil {
		refuse(w, err.Error(), "")
		return
	}
	c.websockets.Add(1)
	defer c.websockets.Done()
	conn, err := mqttws.Accept(w, r)
	if err != nil {
		c.log.Debug("WebSocket refused", "device", peer.ID, "remote", r.RemoteAddr, "err", err)
		return
	}
	if err := c.broker.ServeConn(r.Context(), conn, peer); err != nil {
		c.log.Debug("session ended", "device", peer.ID, "remote", r.RemoteAddr, "err", err)
	}
}

func refuse(w http.ResponseWriter, title, hint string) {
	p := fleetapi.Problem(http.StatusForbidden, title, hint)
	w.Header().Set("Content-Type", p.ContentType(""))
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client went away
}
