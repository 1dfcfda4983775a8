package serve

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/edgeherd/edgeherd/agent/worker"
)

// statusClientGone is nginx's 499: the client left before the answer; nobody
// reads it, but logs and metrics do.
const statusClientGone = 499

// fault is an error with the HTTP status that tells it.
type fault struct {
	status int
	err    error
}

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }

func faultf(status int, format string, args ...any) error {
	return &fault{status, fmt.Errorf(format, args...)}
}

// statusOf maps an error of the worker or of this package to HTTP.
func statusOf(err error) int {
	var f *fault
	var l *later
	switch {
	case errors.As(err, &l):
		return http.StatusServiceUnavailable
	case errors.Is(err, errSlowBody): // whoever read it holds the rest against the request
		return http.StatusRequestTimeout
	case errors.As(err, &f):
		return f.status
	case errors.Is(err, worker.ErrBadInput):
		return http.StatusBadRequest
	case errors.Is(err, context.Canceled):
		return statusClientGone
	case errors.Is(err, worker.ErrDeadline), errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	case errors.Is(err, worker.ErrDied):
		return http.StatusServiceUnavailable
	}
	return http.StatusInternalServerError
}

// countsAgainst reports whether an error speaks against the model, as opposed
// to the request or to how many there are: rollouts are judged by it.
func countsAgainst(err error) bool {
	var passes *later
	return statusOf(err) >= http.StatusInternalServerError && !errors.Is(err, errOverload) && !errors.As(err, &passes)
}

// writeError answers with the protocol's error object.
func writeError(w http.ResponseWriter, err error) {
	status := statusOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", retryAfter(err))
	}
	writeJSON(w, status, struct {
		Error string `json:"error"`
	}{err.Error()})
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic("serve: answer that JSON cannot hold: " + err.Error())
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n')) // a client that left is no error of ours
}

// later is a fault that passes by itself, not before wait is over.
type later struct {
	wait time.Duration
	err  error
}

func (l *later) Error() string { return l.err.Error() }
func (l *later) Unwrap() error { return l.err }

// retryAfter is when to ask again, in seconds: what is not known to last longer
// may have passed in one.
func retryAfter(err error) string {
	wait := time.Second
	if l := (*later)(nil); errors.As(err, &l) {
		wait = max(wait, l.wait)
	}
	return strconv.FormatInt(int64(math.Ceil(wait.Seconds())), 10)
}
