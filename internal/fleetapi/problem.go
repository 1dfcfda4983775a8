package fleetapi

import (
	"fmt"
	"net/http"
	"strings"
)

// Error is a problem as the API tells it (RFC 9457, application/problem+json).
// Hint says what to do about it.
type Error struct {
	Status int     `json:"status"`
	Title  string  `json:"title"`
	Detail string  `json:"detail,omitempty"`
	Hint   string  `json:"hint,omitempty"`
	Errors []Fault `json:"errors,omitempty"`
}

// Fault is one fault of a request, with its place such as body.waves[1].
type Fault struct {
	Location string `json:"location,omitempty"`
	Message  string `json:"message"`
}

// Problem makes an Error. Detail says what is wrong, hint what to do.
func Problem(status int, detail, hint string) *Error {
	return &Error{Status: status, Title: http.StatusText(status), Detail: detail, Hint: hint}
}

// Error says what is wrong and, after a line break, what to do.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Detail)
	if e.Detail == "" {
		b.WriteString(strings.ToLower(e.Title))
	}
	for _, f := range e.Errors {
		fmt.Fprintf(&b, "; %s", f.Message)
		if f.Location != "" {
			fmt.Fprintf(&b, " (%s)", f.Location)
		}
	}
	if e.Hint != "" {
		b.WriteString("\n" + e.Hint)
	}
	return b.String()
}

// GetStatus is the HTTP status; the server's framework asks for it.
func (e *Error) GetStatus() int { return e.Status }

// ContentType is the media type of problems; the server's framework asks for it.
func (e *Error) ContentType(string) string { return "application/problem+json" }
