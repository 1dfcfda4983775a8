package results

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/secrets"
)

const (
	keepAlive    = 15 * time.Second
	writeTimeout = 10 * time.Second
	// maxAtOnce is how many results go out before a look at whether the
	// subscriber is still within what is kept.
	maxAtOnce = 64
)

// serve answers subscribers until ctx ends.
func (h *Hub) serve(ctx context.Context) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /edge/v1/results", h.subscribe)
	mux.HandleFunc("GET /edge/v1/targets", h.tellTargets)
	srv := &http.Server{
		Handler: h.guard(mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
		ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelDebug),
		// A stream ends with the runner, not with its subscriber.
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(h.listen) }()
	h.log.Info("serving results", "addr", h.listen.Addr().String())
	select {
	case err := <-ended:
		return fmt.Errorf("serve results: %w", err)
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		_ = srv.Close() // a subscriber that does not read
	}
	<-ended
	return nil
}

// guard lets in who shows the token; without one, who asks this box by its
// address: a web page elsewhere can make a browser ask by a name of its own.
func (h *Hub) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength != 0 {
			// net/http waits for it before it answers.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Second))
			refuse(w, http.StatusBadRequest, "a request for results has no body")
			return
		}
		if h.opts.TokenFile == "" {
			host, _, err := net.SplitHostPort(r.Host)
			if err != nil {
				host = r.Host
			}
			if host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil {
				refuse(w, http.StatusForbidden, "ask by address or as localhost")
				return
			}
			next.ServeHTTP(w, r)
			return
		}
		token, err := secrets.Read(h.opts.TokenFile)
		shown, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		// Hashed, so that neither content nor length is told by the time it takes.
		a, b := sha256.Sum256([]byte(token)), sha256.Sum256([]byte(shown))
		if err != nil || !ok || subtle.ConstantTimeCompare(a[:], b[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			refuse(w, http.StatusUnauthorized, "show the token of `results: token_file:` as Authorization: Bearer")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text}) // the caller went away
}

// cursor is where a subscriber goes on: after since, and with the newest only
// when it names none.
func (h *Hub) cursor(r *http.Request) (seq uint64, other bool, err error) {
	since := r.Header.Get("Last-Event-ID")
	if q := r.URL.Query().Get("since"); q != "" {
		since = q
	}
	h.mu.Lock()
	last := h.last
	h.mu.Unlock()
	if since == "" {
		return last, false, nil
	}
	if since == "0" {
		return 0, false, nil
	}
	run, number, _ := strings.Cut(since, "-")
	seq, err = strconv.ParseUint(number, 10, 64)
	if err != nil {
		return 0, false, fmt.Errorf("since is %q, want the id of an event, or 0 for all that is kept", since)
	}
	if run != h.run || seq > last {
		return 0, true, nil // of another life of the runner: all that is kept is new
	}
	return seq, false, nil
}

func (h *Hub) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.guests >= h.opts.Subscribers {
		return false
	}
	h.guests++
	return true
}

func (h *Hub) leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.guests--
}

// subscribe is GET /edge/v1/results?input=NAME&since=ID.
func (h *Hub) subscribe(w http.ResponseWriter, r *http.Request) {
	seq, other, err := h.cursor(r)
	if err != nil {
		refuse(w, http.StatusBadRequest, err.Error())
		return
	}
	inputs := r.URL.Query()["input"]
	for _, name := range inputs { // else it would wait for ever
		if len(h.opts.Inputs) > 0 && !slices.Contains(h.opts.Inputs, name) {
			refuse(w, http.StatusNotFound, fmt.Sprintf("there is no input %.100q here, but %s", name, strings.Join(h.opts.Inputs, ", ")))
			return
		}
	}
	if !h.enter() {
		w.Header().Set("Retry-After", "30")
		refuse(w, http.StatusServiceUnavailable, fmt.Sprintf("%d programs subscribe already", h.opts.Subscribers))
		return
	}
	defer h.leave()
	s := &stream{w: w, c: http.NewResponseController(w)}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	s.send(": results of this box\n\n")
	if other {
		s.send("event: gap\ndata: {\"reason\":\"the runner was started anew\"}\n\n")
	}
	h.follow(r.Context(), s, seq, inputs)
}

// follow sends what comes after seq until the subscriber leaves or is too slow.
func (h *Hub) follow(ctx context.Context, s *stream, seq uint64, inputs []string) {
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for started := false; s.err == nil; started = true {
		events, lost, fresh := h.after(seq)
		if lost > 0 && started {
			s.send(fmt.Sprintf("event: dropped\ndata: {\"lost\":%d,\"reason\":\"too slow: read faster, or ask for fewer inputs; come back with since\"}\n\n", lost))
			h.log.Warn("subscriber was too slow and is dropped", "lost", lost)
			return
		}
		if lost > 0 {
			s.send(fmt.Sprintf("event: gap\ndata: {\"lost\":%d,\"reason\":\"no longer kept\"}\n\n", lost))
			seq += lost
		}
		for _, e := range events[:min(len(events), maxAtOnce)] {
			seq = e.seq
			if len(inputs) == 0 || slices.Contains(inputs, e.input) {
				s.send(fmt.Sprintf("id: %s-%d\nevent: result\ndata: %s\n\n", h.run, e.seq, e.body))
			}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-fresh:
		case <-tick.C:
			s.send(": still here\n\n")
		}
	}
}

// stream writes to one subscriber, each time within writeTimeout.
type stream struct {
	w   http.ResponseWriter
	c   *http.ResponseController
	err error
}

func (s *stream) send(text string) {
	if s.err != nil {
		return
	}
	if s.err = s.c.SetWriteDeadline(time.Now().Add(writeTimeout)); s.err != nil {
		return
	}
	if _, s.err = s.w.Write([]byte(text)); s.err == nil {
		s.err = s.c.Flush()
	}
}

// TargetStatus tells how a target is doing.
type TargetStatus struct {
	Name    string `json:"name"`
	Kind    string `json:"kind"`
	Waiting int64  `json:"waiting"`
	Dropped int64  `json:"dropped"`
	Refused int64  `json:"refused"`
	Sent    int64  `json:"sent"`
	Err     string `json:"err,omitempty"`
}

// Targets tells how each target is doing.
func (h *Hub) Targets() []TargetStatus {
	out := []TargetStatus{}
	for _, t := range h.targets {
		out = append(out, t.status())
	}
	return out
}

func (h *Hub) tellTargets(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"targets": h.Targets()}) // the caller went away
}
