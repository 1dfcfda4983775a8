package controller

import (
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/broker"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/mqttws"
)

// deviceWrite bounds an answer to a box: a file over a thin link.
const deviceWrite = time.Hour

// entrance serves the port of the web pages. A connection on which a box has
// proved itself (identity.BoxProtocol) gets what the ports of boxes give, MQTT
// over WebSocket and files, and nothing else; every other one gets the pages.
func (c *Controller) entrance(pages, device http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			if r.URL.Path == mqttws.Path {
				refuse(w, "this address is for boxes: no box certificate was shown", "A box offers the ALPN protocol edgeherd-box. A proxy that ends TLS in between makes that impossible: let it pass TLS through.")
				return
			}
			pages.ServeHTTP(w, r)
			return
		}
		switch {
		case r.URL.Path == mqttws.Path:
			c.serveWebSocket(w, r)
		case strings.HasPrefix(r.URL.Path, "/device/"):
			// The pages' own limit is none, for their streams of events.
			if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(deviceWrite)); err != nil {
				c.log.Warn("answer to a box is not bounded in time", "err", err)
			}
			device.ServeHTTP(w, r)
		default:
			refuse(w, "a box may not see the pages", "")
		}
	})
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
