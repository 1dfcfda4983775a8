package inputs

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Source is a camera or microphone and what is done with its items.
type Source struct {
	// Name is unique on the box; results carry it.
	Name string `yaml:"name"`
	// Kind is "folder" (pictures), "http" (a camera's snapshot), "stream" (RTSP
	// or whatever else ffmpeg reads) or "audio" (a WAV clip or a folder of them).
	Kind string `yaml:"kind"`
	// Pipeline is one that a serving model declares, or MODEL/PIPELINE.
	Pipeline string `yaml:"pipeline"`
	// MinScore is the threshold: a result that scores less is no result; default 0.
	MinScore float64 `yaml:"min_score"`
	// Interval from the start of one item to the next at full duty; default 1 s.
	Interval time.Duration `yaml:"interval"`

	// Path is of a folder or clip.
	Path string `yaml:"path"`

	// URL is of a snapshot or stream, without user and password.
	URL string `yaml:"url"`
	// Username and the file with the password, of which the first line counts.
	Username     string `yaml:"username"`
	PasswordFile string `yaml:"password_file"`
	// TokenFile holds a bearer token, instead of a user; snapshots only.
	TokenFile string `yaml:"token_file"`
	// CAFile holds the certificates (PEM) to trust for https, instead of the
	// system's; snapshots only.
	CAFile string `yaml:"ca_file"`
	// Timeout of one snapshot, default 10 s; of a stream, how long it may bring
	// no frame before it is opened anew, default 15 s.
	Timeout time.Duration `yaml:"timeout"`
	// Transport of RTSP: tcp (default) or udp.
	Transport string `yaml:"transport"`
	// MaxWidth and MaxHeight bound the frames of a stream whose pipeline does
	// not say what size it needs; default 1280 × 720.
	MaxWidth  int `yaml:"max_width"`
	MaxHeight int `yaml:"max_height"`
	// FFmpeg is the program for streams; default ffmpeg, found by PATH.
	FFmpeg string `yaml:"ffmpeg"`
}

// The kinds of sources and the keys each takes beyond name, pipeline, interval.
var sourceKinds = map[string][]string{
	"folder": {"path"},
	"audio":  {"path"},
	"http":   {"url", "username", "password_file", "token_file", "ca_file", "timeout"},
	"stream": {"url", "username", "password_file", "timeout", "transport", "max_width", "max_height", "ffmpeg"},
}

var schemes = map[string][]string{"http": {"http", "https"}, "stream": {"rtsp", "rtsps", "http", "https", "rtmp", "srt", "udp", "tcp"}}

// withDefaults checks the source and fills in what it leaves open.
func (s Source) withDefaults() (Source, error) {
	if s.Name == "" || s.Pipeline == "" {
		return s, fmt.Errorf("input %q: name and pipeline are required", s.Name)
	}
	if err := s.check(); err != nil {
		return s, fmt.Errorf("input %s: %w", s.Name, err)
	}
	if s.Interval == 0 {
		s.Interval = time.Second
	}
	if s.Timeout == 0 {
		s.Timeout = 10 * time.Second
		if s.Kind == "stream" {
			s.Timeout = 15 * time.Second
		}
	}
	if s.Transport == "" {
		s.Transport = "tcp"
	}
	if s.MaxWidth == 0 {
		s.MaxWidth = 1280
	}
	if s.MaxHeight == 0 {
		s.MaxHeight = 720
	}
	if s.FFmpeg == "" {
		s.FFmpeg = "ffmpeg"
	}
	return s, nil
}

func (s Source) check() error {
	takes, ok := sourceKinds[s.Kind]
	if !ok {
		return fmt.Errorf("kind %q is unknown; use folder, http, stream or audio", s.Kind)
	}
	for key, set := range map[string]bool{
		"path": s.Path != "", "url": s.URL != "", "username": s.Username != "", "password_file": s.PasswordFile != "",
		"token_file": s.TokenFile != "", "ca_file": s.CAFile != "", "timeout": s.Timeout != 0, "transport": s.Transport != "",
		"max_width": s.MaxWidth != 0, "max_height": s.MaxHeight != 0, "ffmpeg": s.FFmpeg != "",
	} {
		if set && !slices.Contains(takes, key) {
			return fmt.Errorf("kind %s does not take %s; it takes %s", s.Kind, key, strings.Join(takes, ", "))
		}
	}
	switch {
	case slices.Contains(takes, "path") && s.Path == "":
		return errors.New("path is required")
	case s.MinScore < 0 || s.MinScore > 1:
		return fmt.Errorf("min_score is %v, want 0 to 1", s.MinScore)
	case s.Interval < 0 || s.Timeout < 0:
		return fmt.Errorf("interval %v or timeout %v is negative", s.Interval, s.Timeout)
	case (s.Username == "") != (s.PasswordFile == ""):
		return errors.New("username and password_file go together")
	case s.Username != "" && s.TokenFile != "":
		return errors.New("username and token_file are both given, want one")
	case s.Transport != "" && s.Transport != "tcp" && s.Transport != "udp":
		return fmt.Errorf("transport is %q, want tcp or udp", s.Transport)
	case s.MaxWidth < 0 || s.MaxWidth > 8192 || s.MaxHeight < 0 || s.MaxHeight > 8192:
		return fmt.Errorf("max_width %d and max_height %d: want 1 to 8192", s.MaxWidth, s.MaxHeight)
	case slices.Contains(takes, "url"):
		return s.checkURL()
	}
	return nil
}

// checkURL never repeats the URL: it may hold a password that belongs elsewhere.
func (s Source) checkURL() error {
	u, err := url.Parse(s.URL)
	if err != nil || u.Host == "" || !slices.Contains(schemes[s.Kind], u.Scheme) {
		return fmt.Errorf("url is no address of %s", strings.Join(schemes[s.Kind], ", "))
	}
	if u.User != nil {
		return errors.New("url holds a user or password, which would show in logs: use username and password_file")
	}
	return nil
}
