package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/config"
	"github.com/edgeherd/edgeherd/controller/secrets"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/phrase"
	"github.com/edgeherd/edgeherd/internal/wire"
)

func (a *API) registerConfig() {
	route(a, get("/configs", "listConfigs", "Documents of settings, each in its newest version", "configs"), a.listConfigs)
	route(a, get("/configs/{name}", "getConfig", "All versions of a document, newest first", "configs"), a.getConfig)
	route(a, post("/configs:diff", "diffConfigs", "What documents would change on which boxes; nothing is stored", "configs"), a.diffConfigs)
	route(a, a.acting(post("/configs", "applyConfigs", "Store new versions of documents; a rollout brings them to boxes", "configs")), a.applyConfigs)
	route(a, get("/boxes/{id}/config", "explainConfig", "Every setting of a box with where it comes from", "configs"), a.explainConfig)
	route(a, post("/boxes/{id}/labels", "setLabels", "Set labels of a box", "boxes"), a.setLabels)
}

// desk is what decisions about documents need: boxes, their hands, versions.
type desk struct {
	boxes   []fleetapi.Box
	desired map[identity.ID]*wire.DesiredConfig
	lib     config.Library
	newest  map[string]config.Version
	stored  []store.Document
	secrets func(b fleetapi.Box, name string) bool
	names   map[string]bool // of all secrets
	most    int             // of the sum, over documents, of the boxes that each is for
}

// openDesk reads what the caller sees.
func (a *API) openDesk(ctx context.Context) (*desk, error) {
	boxes, err := a.boxes(ctx)
	if err != nil {
		return nil, err
	}
	d := &desk{boxes: boxes, desired: map[identity.ID]*wire.DesiredConfig{}, lib: config.Library{}, newest: map[string]config.Version{}, most: maxWork}
	if d.stored, err = a.opts.Store.NewestDocuments(ctx); err != nil {
		return nil, err
	}
	for _, s := range d.stored {
		v, err := config.Of(s)
		if err != nil {
			return nil, err
		}
		d.newest[s.Name], d.lib[v.Ref.String()] = v, v
	}
	if d.desired, err = a.opts.Store.DesiredConfigs(ctx); err != nil {
		return nil, err
	}
	for _, c := range d.desired {
		err := d.lib.Add(c.Documents, func(name, version string) (store.Document, error) { return a.opts.Store.Document(ctx, name, version) })
		if err != nil {
			return nil, err
		}
	}
	return d, d.readSecrets(ctx, a.opts.Store)
}

func (d *desk) readSecrets(ctx context.Context, s *store.Store) error {
	all, err := s.Secrets(ctx)
	if err != nil || len(all) == 0 {
		d.secrets = func(fleetapi.Box, string) bool { return false }
		return err
	}
	d.names = map[string]bool{}
	for _, one := range all {
		d.names[one.Name] = true
	}
	d.secrets = func(b fleetapi.Box, name string) bool {
		of := secrets.Of(all, store.SecretBox{ID: b.ID, Site: b.Site, Labels: b.Labels, State: store.StateActive})
		return slices.ContainsFunc(of, func(s store.Secret) bool { return s.Name == name })
	}
	return nil
}

func (d *desk) changes(versions []config.Version) []config.Change {
	return config.Changes(d.boxes, func(b fleetapi.Box) *wire.DesiredConfig { return d.desired[b.ID] }, versions, d.lib, d.secrets)
}

// proposed is a request that was read: the versions it asks for.
type proposed struct {
	versions []config.Version
	changes  []fleetapi.DocumentChange
}

// propose reads the documents of a request and gives them their versions.
func (d *desk) propose(req fleetapi.ConfigRequest) (proposed, error) {
	var p proposed
	var errs []error
	seen := map[string]string{}
	add := func(v config.Version, c fleetapi.DocumentChange) {
		d.lib[v.Ref.String()] = v
		p.versions, p.changes = append(p.versions, v), append(p.changes, c)
	}
	for _, f := range req.Files {
		docs, err := boxconfig.ReadAll(f.Name, []byte(f.Text))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if len(seen)+len(docs) > fleetapi.MaxConfigDocuments {
			return p, badRequest("Send them in parts.", "there are more than %d documents in the request", fleetapi.MaxConfigDocuments)
		}
		for _, doc := range docs {
			if other, twice := seen[doc.Name]; twice {
				errs = append(errs, fmt.Errorf("document %s is in %s and in %s", doc.Name, other, f.Name))
				continue
			}
			seen[doc.Name] = f.Name
			v, c, err := d.next(doc)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f.Name, err))
				continue
			}
			add(v, c)
		}
	}
	for _, name := range req.Remove {
		was, ok := d.newest[name]
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("there is no document %s to remove; edgeherd config list shows those that there are", name))
		case seen[name] != "":
			errs = append(errs, fmt.Errorf("document %s is in %s and shall be removed", name, seen[name]))
		default:
			v := was
			if !was.Gone {
				v = config.Version{Gone: true}
				v.Name, v.Ref.Name, v.Ref.Version = name, name, d.after(name)
				v.Ref.Digest = blob.Sum([]byte("gone\n" + v.Ref.String()))
			}
			add(v, fleetapi.DocumentChange{Name: name, Version: v.Ref.Version, New: !was.Gone, Removed: true})
		}
	}
	if len(errs) > 0 {
		return p, badRequest("edgeherd explain boxconfig lists the fields.", "%s", errors.Join(errs...))
	}
	if len(p.versions) == 0 {
		return p, badRequest("", "there is no document in the request")
	}
	return p, nil
}

// after is the version that follows the newest one.
func (d *desk) after(name string) string {
	n := 0
	if was, ok := d.newest[name]; ok {
		n, _ = strconv.Atoi(was.Ref.Version) // the store makes them
	}
	return strconv.Itoa(n + 1)
}

// next is the version that a document has already, or gets.
func (d *desk) next(doc boxconfig.Document) (config.Version, fleetapi.DocumentChange, error) {
	for _, name := range doc.Secrets() {
		if !d.names[name] {
			return config.Version{}, fleetapi.DocumentChange{}, fmt.Errorf("document %s names secret %s, which does not exist; set it first: edgeherd secret set %s --box, --site or --label", doc.Name, name, name)
		}
	}
	c := fleetapi.DocumentChange{Name: doc.Name}
	if was, ok := d.newest[doc.Name]; ok && !was.Gone && string(was.Canonical()) == string(doc.Canonical()) {
		c.Version = was.Ref.Version
		return was, c, nil
	}
	c.New, c.Version = true, d.after(doc.Name)
	v, err := config.New(doc, c.Version)
	return v, c, err
}

// judge finds out what versions change, and refuses documents that contradict
// each other on a box, also those that a rollout has not brought there yet.
func (d *desk) judge(ctx context.Context, p proposed) (fleetapi.ConfigChanges, error) {
	out := fleetapi.ConfigChanges{Documents: p.changes}
	work := 0
	for i, v := range p.versions {
		for _, b := range d.boxes {
			if v.Matches(b) {
				out.Documents[i].Matched++
			}
		}
		work += out.Documents[i].Matched
	}
	if work > d.most && len(p.versions) > 1 {
		return out, badRequest("Send them in parts.", "the documents are for %d boxes taken together, which are too many for one request; at most %d", work, d.most)
	}
	meant := map[string]config.Version{}
	for name, v := range d.newest {
		meant[name] = v
	}
	for _, v := range p.versions {
		meant[v.Name] = v
	}
	if err := config.Contradictions(d.boxes, meant); err != nil {
		return fleetapi.ConfigChanges{}, badRequest("Nothing was stored.", "%s", err)
	}
	for i, v := range p.versions {
		if ctx.Err() != nil {
			return out, ctx.Err() // nobody waits for it
		}
		out.Documents[i].Boxes = len(d.changes([]config.Version{v}))
	}
	changes := d.changes(p.versions)
	out.Groups, out.Refused = config.Groups(changes)
	out.Boxes = len(changes) - len(out.Refused)
	return out, nil
}

// maxWork bounds desk.most: a few documents for 100,000 boxes.
const maxWork = 500_000

type configInput struct{ Body fleetapi.ConfigRequest }

type configDiffInput struct {
	Box  string `query:"box" maxLength:"256" doc:"only this box, by name or id"`
	Body fleetapi.ConfigRequest
}

func (a *API) diffConfigs(ctx context.Context, in *configDiffInput) (fleetapi.ConfigChanges, error) {
	d, err := a.openDesk(ctx)
	if err != nil {
		return fleetapi.ConfigChanges{}, err
	}
	p, err := d.propose(in.Body)
	if err != nil {
		return fleetapi.ConfigChanges{}, err
	}
	if in.Box != "" && !slices.ContainsFunc(d.boxes, func(b fleetapi.Box) bool { return b.Name == in.Box || string(b.ID) == in.Box }) {
		return fleetapi.ConfigChanges{}, fleetapi.Problem(http.StatusNotFound, "there is no box "+in.Box, "`edgeherd box list` shows those that there are.")
	}
	out, err := d.judge(ctx, p)
	if err == nil && in.Box != "" {
		out.Only(in.Box)
	}
	out.Bound()
	return out, err
}

func (a *API) applyConfigs(ctx context.Context, in *configInput) (fleetapi.ConfigChanges, error) {
	d, err := a.openDesk(ctx)
	if err != nil {
		return fleetapi.ConfigChanges{}, err
	}
	p, err := d.propose(in.Body)
	if err != nil {
		return fleetapi.ConfigChanges{}, err
	}
	out, err := d.judge(ctx, p)
	if err != nil {
		return out, err
	}
	log := audit.Of(ctx)
	first := true
	for i, v := range p.versions {
		if !p.changes[i].New {
			continue
		}
		if err := a.opts.Store.AddDocument(ctx, store.Document{Name: v.Name, Version: v.Ref.Version, Digest: v.Ref.Digest, Body: v.Text, By: who(ctx).Name, Waits: !v.Gone && p.changes[i].Boxes == 0}); errors.Is(err, store.ErrConflict) {
			return out, conflict("Look again: edgeherd diff -f FILE", "somebody else stored document %s meanwhile", v.Name)
		} else if err != nil {
			return out, err
		}
		if !first {
			log.Again("config " + v.Ref.String())
		}
		log.Object, log.After, first = "config "+v.Ref.String(), v.Ref.Digest.String(), false
		a.log.Info("document stored", "version", v.Ref.String(), "by", who(ctx).Name)
	}
	if first {
		log.Drop()
	}
	out.Bound()
	return out, nil
}

// configCargo finds a version of a document and leaves the boxes that it
// changes: those that shall have it, and those that have an older one and shall
// not. The filter of the request becomes what late joiners must match.
func (a *API) configCargo(ctx context.Context, req *fleetapi.PlanRequest, boxes []fleetapi.Box) (cargo, []fleetapi.Box, error) {
	name, version, err := boxconfig.ParseRef(req.Config)
	if err != nil {
		return cargo{}, nil, badRequest("", "%s", err)
	}
	stored, err := a.opts.Store.Document(ctx, name, version)
	if errors.Is(err, store.ErrNotFound) {
		return cargo{}, nil, missing("See which there are: edgeherd config list. Store it with: edgeherd apply -f FILE", "there is no document %s", req.Config)
	}
	if err != nil {
		return cargo{}, nil, err
	}
	v, err := config.Of(stored)
	if err != nil {
		return cargo{}, nil, err
	}
	d, err := a.openDesk(ctx)
	if err != nil {
		return cargo{}, nil, err
	}
	d.boxes, d.lib[v.Ref.String()] = boxes, v
	c := cargo{kind: fleetapi.KindConfig, target: v.Ref, unfit: map[identity.ID]phrase.Phrase{}}
	left := []fleetapi.Box{}
	for _, change := range d.changes([]config.Version{v}) {
		left = append(left, change.Box)
		if change.Err != nil {
			c.unfit[change.Box.ID] = phrase.Plain(change.Err.Error())
		} else if change.Now != nil {
			c.bytes = max(c.bytes, int64(len(change.Now.Content)))
		}
	}
	if len(left) == 0 {
		return c, nil, refuse("edgeherd explain BOX shows where its settings come from.", "no box changes by %s: those that it is for follow it already", v.Ref)
	}
	switch {
	case v.Gone:
		req.Filter = `name = "" AND name != ""` // nobody joins what is withdrawn
	case strings.TrimSpace(req.Filter) == "":
		req.Filter = v.Selector
	default:
		req.Filter = "(" + v.Selector + ") AND (" + req.Filter + ")"
	}
	return c, left, nil
}

// documentOf names the version of a document with a digest.
func (a *API) documentOf(ctx context.Context, name string, digest blob.Digest) (string, error) {
	all, err := a.opts.Store.Documents(ctx, name)
	for _, d := range all {
		if d.Digest == digest {
			return d.Name + ":" + d.Version, nil
		}
	}
	if err == nil {
		err = refuse("", "the version of %s with digest %s, which boxes followed before, is not here", name, digest)
	}
	return "", err
}
