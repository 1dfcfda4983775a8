package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
)

// rootMark ends the names of roots beside key files: 3.root.json.
const rootMark = ".root.json"

// verify makes sure, before a key is opened, that the version which the next one
// builds on is what people signed. A controller in other hands would else have
// entries of its own signed along. What can be trusted begins with the root that
// lies beside a key file.
func (y *ceremony) verify(c *cli, role string) error {
	if y.docs[tufrepo.RoleRoot] == nil {
		return nil // in development nothing is built on
	}
	known, err := newestRoot(y.files)
	if err != nil {
		return err
	}
	if err := y.docs.CheckRoot(known); err != nil {
		return failure{exitConflict, fmt.Errorf("what the controller shows is not what the root beside the key file leads to; nothing is signed: %w", err)}
	}
	if err := keepRoot(c, y.files, known, y.docs[tufrepo.RoleRoot]); err != nil {
		return err
	}
	if role != tufrepo.RoleTargets {
		if err := y.docs.CheckRole(tufrepo.RoleTargets); err != nil {
			return failure{exitConflict, fmt.Errorf("%w: renew targets first", err)}
		}
	}
	return y.docs.CheckRole(role)
}

// verified is verify for who can look: a version that nobody vouches for, since
// its keys have changed, is shown whole.
func (y *ceremony) verified(c *cli, role string) error {
	err := y.verify(c, role)
	var final failure
	if err == nil || errors.As(err, &final) || !errors.Is(err, tufrepo.ErrUnsigned) {
		return err
	}
	all, shown := tufrepo.Documents{}.Explain(role, y.docs[role])
	if shown != nil {
		return shown
	}
	c.say("%s now. The next one takes over all that it says; look for what is not yours:\n%s", err, all)
	if c.mayAsk() && !c.ask("Go on?") {
		return errors.New("nothing was signed")
	}
	return nil
}

// newestRoot finds the newest root beside key files; nil: there is none.
func newestRoot(keys []string) (newest []byte, err error) {
	last := int64(0)
	for _, key := range keys {
		entries, err := os.ReadDir(keyFolder(key))
		if err != nil {
			return nil, fmt.Errorf("look for a root beside the key: %w", err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), rootMark) {
				continue
			}
			data, err := os.ReadFile(filepath.Join(keyFolder(key), e.Name()))
			if err != nil {
				return nil, fmt.Errorf("read the root beside the key: %w", err)
			}
			head, err := tufrepo.ParseHead(data)
			if err != nil {
				return nil, fmt.Errorf("the root %s beside the key: %w", e.Name(), err)
			}
			if head.Version > last {
				newest, last = data, head.Version
			}
		}
	}
	return newest, nil
}

// keepRoot writes a root that is new here beside the key files, for the next time.
func keepRoot(c *cli, keys []string, known, root []byte) error {
	head, err := tufrepo.ParseHead(root)
	if err != nil {
		return err
	}
	if known == nil && len(keys) > 0 {
		r, err := tufrepo.ParseRoot(root)
		if err != nil {
			return err
		}
		ids := []string{}
		for _, p := range r.Root.Public {
			ids = append(ids, string(p.ID()))
		}
		c.say("No root lies beside the key, so the controller is believed this time. Compare with who holds them: root version %d of the keys %s.", head.Version, strings.Join(ids, ", "))
	}
	for _, key := range keys {
		path := filepath.Join(keyFolder(key), fmt.Sprintf("%d%s", head.Version, rootMark))
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := durable.WriteFile(path, root, 0o644); err != nil {
			c.say("The root is not kept beside the key for the next time: %s", err)
		}
	}
	return nil
}
