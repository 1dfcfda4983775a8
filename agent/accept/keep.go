package accept

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/identity"
)

const (
	waits = ".json"
	sent  = ".sent.json"
	// keepSent reports stay on the box after the controller has them; maxWaiting
	// wait for it, the oldest go first.
	keepSent   = 20
	maxWaiting = 50
)

// Dir is where a box keeps its reports.
func Dir(state string) string { return filepath.Join(state, "accept") }

// Lock keeps a second test off the box until it is closed.
func Lock(state string) (*durable.Lock, error) {
	if err := durable.MkdirAll(Dir(state), 0o700); err != nil {
		return nil, fmt.Errorf("make folder of reports: %w", err)
	}
	l, err := durable.LockDir(Dir(state))
	if errors.Is(err, durable.ErrLocked) {
		return nil, errors.New("an acceptance test runs on this box already: wait for its end")
	}
	return l, err
}

// Keep signs a report with the box's key and writes it to the box's disk, from
// where Send takes it.
func Keep(state string, id *identity.Identity, r acceptance.Report) (path string, err error) {
	key, ok := id.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return "", errors.New("sign acceptance report: the box's key does not sign")
	}
	data, err := acceptance.Seal(r, key, id.Certificate.Certificate)
	if err != nil {
		return "", err
	}
	if err := durable.MkdirAll(Dir(state), 0o700); err != nil {
		return "", fmt.Errorf("make folder of reports: %w", err)
	}
	path = filepath.Join(Dir(state), r.ID+waits)
	if err := durable.WriteFile(path, data, 0o600); err != nil {
		return "", fmt.Errorf("keep acceptance report: %w", err)
	}
	return path, prune(state, maxWaiting, false)
}

// Waiting are the reports that the controller does not have yet, the oldest first.
func Waiting(state string) ([]string, error) { return list(state, false) }

func list(state string, received bool) ([]string, error) {
	entries, err := os.ReadDir(Dir(state))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list acceptance reports: %w", err)
	}
	type found struct {
		path string
		at   time.Time
	}
	var all []found
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), waits)
		name, was := strings.CutSuffix(name, strings.TrimSuffix(sent, waits))
		info, err := e.Info()
		if !ok || was != received || len(name) != 16 || err != nil { // an order is no report; what is gone was sent
			continue
		}
		all = append(all, found{filepath.Join(Dir(state), e.Name()), info.ModTime()})
	}
	slices.SortFunc(all, func(a, b found) int { return a.at.Compare(b.at) })
	var out []string
	for _, f := range all {
		out = append(out, f.path)
	}
	return out, nil
}

func prune(state string, most int, received bool) error {
	all, err := list(state, received)
	if err != nil {
		return err
	}
	for _, path := range all[:max(0, len(all)-most)] {
		err = errors.Join(err, durable.Remove(path))
	}
	return err
}

// Send gives the controller what it does not have yet. A report that it refuses
// for good is set aside as sent, since it will not be taken later either.
func Send(ctx context.Context, state string, id *identity.Identity, dial func(ctx context.Context, network, address string) (net.Conn, error), log *slog.Logger) error {
	paths, err := Waiting(state)
	if err != nil || len(paths) == 0 {
		return err
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialTLSContext: dial}}
	defer client.CloseIdleConnections()
	for _, path := range paths {
		refusal, err := post(ctx, client, "https://"+id.HTTPS+acceptance.PathReport, path)
		if errors.Is(err, os.ErrNotExist) {
			continue // the other program of this box was faster
		}
		if err != nil {
			return fmt.Errorf("send acceptance report: %w", err)
		}
		name := strings.TrimSuffix(filepath.Base(path), waits)
		if refusal != "" {
			log.Error("acceptance report refused by the controller, kept on the box only", "report", name, "err", refusal)
		} else {
			log.Info("acceptance report received by the controller", "report", name)
		}
		if err := durable.Rename(path, strings.TrimSuffix(path, waits)+sent); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("note that a report was sent: %w", err)
		}
	}
	return prune(state, keepSent, true)
}

// post returns why the controller will never take the report, or what kept it
// from coming there now.
func post(ctx context.Context, client *http.Client, url, path string) (refusal string, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	said, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	switch {
	case err != nil:
		return "", err
	case resp.StatusCode/100 == 2:
		return "", nil
	case resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusConflict || resp.StatusCode == http.StatusUnprocessableEntity:
		return string(said), nil
	}
	return "", fmt.Errorf("the controller answers %s: %.300s", resp.Status, said)
}
