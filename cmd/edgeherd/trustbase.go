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

// verify makes sure, before a key is opened, that the version which the next one
// builds on is what people signed, and the newest that is known here. A controller
// in other hands would else have entries of its own signed along, or have what was
// revoked since an old version signed anew. What can be trusted begins with the
// documents that lie beside a key file.
func (y *ceremony) verify(c *cli, role string) error {
	known, err := newest(y.files, tufrepo.RoleRoot)
	if err != nil {
		return err
	}
	if y.docs[tufrepo.RoleRoot] == nil {
		if known != nil {
			return failure{exitConflict, errors.New("the controller shows no root, and one lies beside the key file; nothing is signed. Is this the right controller (--context)?")}
		}
		return nil // in development nothing is built on
	}
	if err := y.docs.CheckRoot(known); err != nil {
		return failure{exitConflict, fmt.Errorf("what the controller shows is not what the root beside the key file leads to; nothing is signed: %w. Is this the right controller (--context)? Keys of two fleets need a folder each", err)}
	}
	if known == nil && len(y.files) > 0 {
		if err := tellRoot(c, y.docs[tufrepo.RoleRoot]); err != nil {
			return err
		}
	}
	if err := keep(c, y.files, tufrepo.RoleRoot, y.docs[tufrepo.RoleRoot]); err != nil {
		return err
	}
	if role != tufrepo.RoleTargets && role != tufrepo.RoleRoot {
		if err := y.follow(c, tufrepo.RoleTargets, false); err != nil {
			return err
		}
		if err := y.docs.CheckRole(tufrepo.RoleTargets); err != nil {
			return failure{exitConflict, fmt.Errorf("%w: renew targets first", err)}
		}
		if err := keep(c, y.files, tufrepo.RoleTargets, y.docs[tufrepo.RoleTargets]); err != nil {
			return err
		}
	}
	if role == tufrepo.RoleRoot {
		return nil
	}
	if err := y.follow(c, role, y.forward); err != nil {
		return err
	}
	if err := y.docs.CheckRole(role); err != nil {
		return err
	}
	return keep(c, y.files, role, y.docs[role])
}

// follow refuses a role that is older than one beside the key files. With forward
// the next version builds on that one.
func (y *ceremony) follow(c *cli, role string, forward bool) error {
	known, err := newest(y.files, role)
	if err != nil {
		return err
	}
	err = y.docs.CheckKnown(role, known)
	switch {
	case forward && errors.Is(err, tufrepo.ErrOlder):
		c.say("What the controller shows, %s. The next one builds on that, which lies beside the key.", err)
		y.docs[role] = known
		return nil
	case errors.Is(err, tufrepo.ErrOlder):
		return failure{exitConflict, fmt.Errorf("what the controller shows, %w, which lies beside the key file; nothing is signed. It came back from a backup, or is in other hands. To go on from the version that is known: edgeherd trust renew %s --key FILE", err, role)}
	case err != nil:
		return failure{exitConflict, fmt.Errorf("%w, which lies beside the key file; nothing is signed", err)}
	}
	return nil
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

// documentName is the name of a document beside key files: 3.root.json.
func documentName(version int64, role string) string {
	return fmt.Sprintf("%d.%s.json", version, role)
}

// newest finds the newest document of a role beside key files; nil: there is none.
func newest(keys []string, role string) (found []byte, err error) {
	last := int64(0)
	for _, key := range keys {
		entries, err := os.ReadDir(keyFolder(key))
		if err != nil {
			return nil, fmt.Errorf("look for the %s beside the key: %w", role, err)
		}
		for _, e := range entries {
			if _, is, _ := strings.Cut(e.Name(), "."); is != role+".json" {
				continue
			}
			data, err := os.ReadFile(filepath.Join(keyFolder(key), e.Name()))
			if err != nil {
				return nil, fmt.Errorf("read the %s beside the key: %w", role, err)
			}
			head, err := tufrepo.ParseHead(data)
			if err != nil {
				return nil, fmt.Errorf("%s beside the key: %w", e.Name(), err)
			}
			if head.Version > last {
				found, last = data, head.Version
			}
		}
	}
	return found, nil
}

// tellRoot says what is believed the first time.
func tellRoot(c *cli, root []byte) error {
	r, err := tufrepo.ParseRoot(root)
	if err != nil {
		return err
	}
	ids := []string{}
	for _, p := range r.Root.Public {
		ids = append(ids, string(p.ID()))
	}
	c.say("No root lies beside the key, so the controller is believed this time. Compare with who holds them: root version %d of the keys %s.", r.Version, strings.Join(ids, ", "))
	return nil
}

// keep writes a document that people signed beside the key files, for the next time.
// Of roots all stay, since each leads to the next one.
func keep(c *cli, keys []string, role string, doc []byte) error {
	if doc == nil {
		return nil
	}
	head, err := tufrepo.ParseHead(doc)
	if err != nil {
		return err
	}
	for _, key := range keys {
		path := filepath.Join(keyFolder(key), documentName(head.Version, role))
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := durable.WriteFile(path, doc, 0o644); err != nil {
			c.say("What the next signature is held against is not kept beside the key: %s", err)
			continue
		}
		if role == tufrepo.RoleRoot {
			continue
		}
		old, err := filepath.Glob(filepath.Join(keyFolder(key), "[0-9]*."+role+".json"))
		for _, p := range old {
			if p != path {
				err = errors.Join(err, os.Remove(p))
			}
		}
		if err != nil {
			c.say("Older documents beside the key stay: %s", err)
		}
	}
	return nil
}
