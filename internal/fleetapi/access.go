package fleetapi

import (
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// LoginURL is a path of the controller that logs its first visitor in.
type LoginURL struct {
	Path    string    `json:"path"`
	Expires time.Time `json:"expires"`
}

// NewToken asks for a token for a command line.
type NewToken struct {
	Name       string  `json:"name" minLength:"1" maxLength:"63" pattern:"^[A-Za-z0-9._@-]+$"`
	Role       string  `json:"role" enum:"viewer,tech,ops,admin"`
	TTLSeconds float64 `json:"ttl_seconds,omitempty" minimum:"0" maximum:"31536000"` // default 90 days
}

// Token is a new token; the secret is shown this once.
type Token struct {
	Secret  string    `json:"secret"`
	Name    string    `json:"name"`
	Role    string    `json:"role"`
	Expires time.Time `json:"expires"`
}

// Blob is a stored file.
type Blob struct {
	Digest    blob.Digest `json:"digest"`
	SizeBytes int64       `json:"size_bytes"`
}
