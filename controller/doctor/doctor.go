// Package doctor looks at a controller's state directory and database and says
// what is wrong with them and what to do.
//
// It works beside a running controller and without one, and changes nothing.
// Each check gives one finding: ok, warn (works, but look at it some day) or
// fail (someone must act), with cause and way out.
//
// The one rule a caller can break: run it as the user of the controller, or
// files that it cannot read look like faults.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/edgeherd/edgeherd/controller/s3"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/trust/keyfile"
)

// Bounds of what is well.
const (
	// A full disk stops ingest; boxes keep their blocks meanwhile.
	fewBytes  = 1e9
	someBytes = 5e9
	// The authority of the boxes lasts years; its end needs planning.
	soon = 90 * 24 * time.Hour
)

// notBefore is when this program was written: an earlier clock is wrong.
var notBefore = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// Options say where a controller's things are. State is required.
type Options struct {
	State string
	// Database and PasswordFile are as in store.Options; empty means SQLite in State.
	Database, PasswordFile string
	// Retention is what the controller deletes by.
	Retention store.Retention
	// HTTP is where pages are served by TLS, under the first name of Hosts. Empty:
	// nothing is looked at there.
	HTTP  string
	Hosts []string
	// Broker is a broker of others; see controller.ExternalBroker.
	Broker Broker
	// S3 is the bucket behind the folder of models; nil: none.
	S3 *s3.Options
	// Keys opens sealed keys; nil: they are in plain text.
	Keys *keyfile.Lock
	// WallClock is the clock that is judged; nil means time.Now.
	WallClock func() time.Time
}

// Broker says where a broker of others is, who vouches for it (default our own
// authority), and what it is shown (default: made at each start).
type Broker struct{ URL, CA, Cert, Key string }

// Report is what Examine found.
type Report struct {
	Level    store.Level     `json:"level"` // the worst
	Findings []store.Finding `json:"findings"`
}

// Examine looks at everything.
func Examine(ctx context.Context, opts Options) Report {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	r := Report{Level: store.OK}
	r.Findings = append(r.Findings, state(opts.State))
	if r.Findings[0].Level != store.Fail {
		db := store.Options{
			Database: opts.Database, PasswordFile: opts.PasswordFile,
			Retention: opts.Retention, WallClock: opts.WallClock,
		}
		if db.Database == "" {
			db.Path = filepath.Join(opts.State, "store.db")
		}
		r.Findings = append(r.Findings, store.Examine(ctx, db)...)
		r.Findings = append(r.Findings, disk(opts.State))
		r.Findings = append(r.Findings, authority(filepath.Join(opts.State, "ca"), opts.WallClock(), opts.Keys)...)
		r.Findings = append(r.Findings, opts.shown(ctx)...)
		r.Findings = append(r.Findings, secrets(opts.State))
	}
	if opts.S3 != nil {
		r.Findings = append(r.Findings, bucket(ctx, *opts.S3)...)
	}
	r.Findings = append(r.Findings, clock(opts.WallClock()))
	for _, f := range r.Findings {
		if f.Level == store.Fail || f.Level == store.Warn && r.Level == store.OK {
			r.Level = f.Level
		}
	}
	return r
}

// bucket looks at the store of models as the controller does when it starts.
func bucket(ctx context.Context, opts s3.Options) (out []store.Finding) {
	b, err := s3.New(opts)
	if err != nil {
		return []store.Finding{{Check: "s3 settings", Level: store.Fail, Found: err.Error(), Way: "correct the settings s3 of server.yaml"}}
	}
	for _, f := range b.Check(ctx) {
		level := store.OK
		if f.Way != "" {
			level = store.Fail
		}
		out = append(out, store.Finding{Check: f.Check, Level: level, Found: f.Found, Way: f.Way})
	}
	return out
}

func state(dir string) store.Finding {
	f := store.Finding{Check: "state directory", Level: store.OK, Found: dir}
	if _, err := os.ReadDir(dir); err != nil {
		f.Level, f.Found, f.Way = store.Fail, err.Error(), "name it with --state, or run as the controller's user"
	}
	return f
}

func disk(dir string) store.Finding {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return store.Finding{Check: "free disk", Level: store.Fail, Found: err.Error(), Way: "mount the disk of the state directory"}
	}
	free := float64(fs.Bavail) * float64(fs.Bsize)
	f := store.Finding{Check: "free disk", Level: store.OK, Found: fmt.Sprintf("%.1f GB", free/1e9), Way: "make room, or shorten retention in server.yaml"}
	switch {
	case free < fewBytes:
		f.Level = store.Fail
	case free < someBytes:
		f.Level = store.Warn
	default:
		f.Way = ""
	}
	return f
}

// secrets: private keys are for the controller's user alone.
func secrets(dir string) store.Finding {
	f := store.Finding{Check: "private keys", Level: store.OK, Found: "readable by their owner only"}
	for _, top := range []string{"ca", "keys"} {
		err := filepath.WalkDir(filepath.Join(dir, top), func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !holdsKey(filepath.Base(p)) {
				return err
			}
			info, err := d.Info()
			if err == nil && info.Mode()&0o077 != 0 {
				f = store.Finding{Check: f.Check, Level: store.Fail, Found: fmt.Sprintf("%s has mode %o", p, info.Mode().Perm()), Way: "chmod 600 " + p}
			}
			return err
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return store.Finding{Check: f.Check, Level: store.Fail, Found: err.Error(), Way: "run as the controller's user"}
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "keys", "signing.key")); err != nil && f.Level == store.OK {
		return store.Finding{Check: f.Check, Level: store.Fail, Found: err.Error(), Way: "restore keys/ from the last backup: boxes obey no other"}
	}
	return f
}

// holdsKey tells private keys by their names: signing.key, ca-key.pem and those
// that wait beside it, issuing-*.pem.
func holdsKey(name string) bool {
	return strings.HasSuffix(name, ".key") || strings.HasSuffix(name, "-key.pem") || strings.HasPrefix(name, "issuing-")
}

// clock asks the kernel whether something disciplines its clock. Boxes are
// placed in time by it.
func clock(now time.Time) store.Finding {
	f := store.Finding{Check: "clock", Level: store.OK, Found: now.UTC().Format(time.RFC3339) + ", synchronised"}
	if now.Before(notBefore) {
		return store.Finding{Check: f.Check, Level: store.Fail, Found: "it says " + now.UTC().Format(time.DateOnly), Way: "set the clock and run chrony or systemd-timesyncd"}
	}
	state, err := unix.Adjtimex(&unix.Timex{})
	if err != nil {
		f.Found = now.UTC().Format(time.RFC3339) + "; the kernel does not tell whether it is synchronised"
		return f
	}
	if state == unix.TIME_ERROR {
		f.Level, f.Found, f.Way = store.Warn, now.UTC().Format(time.RFC3339)+", not synchronised", "run chrony or systemd-timesyncd"
	}
	return f
}
