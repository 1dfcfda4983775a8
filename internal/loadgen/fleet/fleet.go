// Package fleet gives a load generator what it needs of a controller: boxes
// that are enrolled, their certificates, a controller process of its own, and
// a look into the database afterwards.
//
// Boxes of the load belong to the site "load" and are called load-00000 and so
// on. They share one private key that lives in memory only; each has its own
// certificate by the controller's CA. Whatever opens the database does so while
// no controller runs on the state directory, and holds its lock.
//
// The one rule a caller can break: never with the state of a fleet that matters,
// since its CA key is used here and its database fills with made-up boxes.
package fleet

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/loadgen"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Site is where all boxes of the load are.
const Site = "load"

// ErrRunning says that a controller runs on the state directory.
var ErrRunning = errors.New("a controller runs on it")

// withStore opens the database of a controller that does not run.
func withStore(ctx context.Context, state string, f func(*store.Store) error) error {
	if err := os.MkdirAll(state, 0o700); err != nil {
		return fmt.Errorf("open state directory: %w", err)
	}
	lock, err := durable.LockDir(state)
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("open state %s: %w", state, ErrRunning)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := store.Open(ctx, store.Options{Path: filepath.Join(state, "store.db")})
	if err != nil {
		return err
	}
	return errors.Join(f(s), s.Close())
}

// Enrol makes sure of n boxes and returns them. A database without any is
// made.
func Enrol(ctx context.Context, state string, n int) ([]identity.ID, error) {
	var ids []identity.ID
	err := withStore(ctx, state, func(s *store.Store) (err error) {
		ids, err = Add(ctx, s, n)
		return err
	})
	return ids, err
}

// Add is Enrol for a database that is open.
func Add(ctx context.Context, s *store.Store, n int) ([]identity.ID, error) {
	all, err := s.Places(ctx)
	if err != nil {
		return nil, err
	}
	have := map[string]identity.ID{}
	for _, b := range all {
		if b.Site == Site {
			have[b.Name] = b.ID
		}
	}
	var ids []identity.ID
	for i := range n {
		name := fmt.Sprintf("load-%05d", i)
		id, known := have[name]
		if !known {
			id = identity.NewID()
			if err := s.AddBox(ctx, id, name, Site); err != nil {
				return nil, err
			}
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// Certificates issues a certificate to each box and returns them with the
// configuration of their side of TLS.
func Certificates(state string, ids []identity.ID) ([]tls.Certificate, *tls.Config, error) {
	ca, err := identity.OpenCA(filepath.Join(state, "ca"), nil)
	if err != nil {
		return nil, nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key of the load: %w", err)
	}
	certs := make([]tls.Certificate, len(ids))
	for i, id := range ids {
		text, err := ca.IssueDevice(id, Site, identity.Keys{Sign: key.Public()})
		if err != nil {
			return nil, nil, err
		}
		certs[i] = tls.Certificate{PrivateKey: key}
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			certs[i].Certificate = append(certs[i].Certificate, block.Bytes)
		}
		// The authority above is the same for all: kept once.
		copy(certs[i].Certificate[1:], certs[0].Certificate[1:])
	}
	return certs, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: ca.Pool(), ServerName: "127.0.0.1"}, nil
}

// Check compares the ledger in a file with the database.
func Check(ctx context.Context, state, ledger string) (loadgen.Verdict, error) {
	f, err := os.Open(ledger)
	if err != nil {
		return loadgen.Verdict{}, fmt.Errorf("open ledger: %w", err)
	}
	defer f.Close()
	var v loadgen.Verdict
	err = withStore(ctx, state, func(s *store.Store) (err error) {
		v, err = Compare(ctx, s, f)
		return err
	})
	return v, err
}

// Compare is Check for a ledger and a database that are open.
func Compare(ctx context.Context, s *store.Store, ledger io.Reader) (loadgen.Verdict, error) {
	books, err := loadgen.ReadLedger(ledger)
	if err != nil {
		return loadgen.Verdict{}, err
	}
	return books.Check(func(id identity.ID) (loadgen.Stored, error) { return look(ctx, s, id) })
}

func look(ctx context.Context, s *store.Store, id identity.ID) (loadgen.Stored, error) {
	out := loadgen.Stored{Keys: map[wire.Key]int{}}
	if err := s.Keys(ctx, id, func(k wire.Key) { out.Keys[k]++ }); err != nil {
		return out, err
	}
	// Clocks of the load jump to 1970 and by ten years.
	err := s.Samples(ctx, id, time.Unix(0, 0), time.Now().AddDate(20, 0, 0), func(_ int64, samples wire.Samples) error {
		out.Rows += len(samples.TimesMs)
		return nil
	})
	return out, err
}
