// Package config decides which settings a box is to follow: documents with
// selectors, versions and priorities become the content for one box. It is pure.
//
// Vocabulary: a document, its versions and its content are those of package
// boxconfig. The hand of a box is the documents that have a part in its desired
// state, each in the version that a rollout brought last. To deal is to put one
// version into the hand and to fill all of it in anew. A document that does not
// match a box, or is withdrawn, stays in the hand as one that is out, so that
// its rollout can tell when the box follows.
//
// The one rule a caller can break: give Deal a library with every version that the
// hand of the box has (Library.Add).
package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/controller/registry"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/boxconfig"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/wire"
	"github.com/edgeherd/edgeherd/models"
)

// Version is one version of a document, read and ready to be filled in.
type Version struct {
	Ref models.Ref
	boxconfig.Document
	// Gone says that this version withdraws the document.
	Gone   bool
	filter registry.Filter[fleetapi.Box]
}

// Of reads a stored version.
func Of(d store.Document) (Version, error) {
	v := Version{Ref: models.Ref{Name: d.Name, Version: d.Version, Digest: d.Digest}}
	if d.Body == "" {
		v.Gone, v.Name = true, d.Name
		return v, nil
	}
	all, err := boxconfig.ReadAll(d.Name+":"+d.Version, []byte(d.Body))
	if err != nil || len(all) != 1 {
		return v, fmt.Errorf("read stored document %s: %w", v.Ref, err)
	}
	v.Document = all[0]
	if v.filter, err = registry.ParseFilter(v.Selector); err != nil {
		return v, fmt.Errorf("read stored document %s: %w", v.Ref, err)
	}
	return v, nil
}

// New makes a version of a document that was read, with its selector checked.
func New(d boxconfig.Document, version string) (Version, error) {
	f, err := registry.ParseFilter(d.Selector)
	if err != nil {
		return Version{}, fmt.Errorf("document %s: selector: %w", d.Name, err)
	}
	return Version{Ref: models.Ref{Name: d.Name, Version: version, Digest: d.Digest(version)}, Document: d, filter: f}, nil
}

// Matches reports whether the version is for a box.
func (v Version) Matches(b fleetapi.Box) bool { return !v.Gone && v.filter.Match(b) }

// FactsOf are what templates may use of a box.
func FactsOf(b fleetapi.Box) boxconfig.Facts {
	labels := b.Labels
	if labels == nil {
		labels = map[string]string{}
	}
	return boxconfig.Facts{
		Box:  boxconfig.BoxFacts{ID: string(b.ID), Name: b.Name, Class: b.Inventory.Class, Arch: b.Inventory.Arch},
		Site: b.Site, Labels: labels,
	}
}

// Library has versions by NAME:VERSION.
type Library map[string]Version

// ErrMissing says that a version of a hand is not in the library.
var ErrMissing = errors.New("is not at hand")

// Add reads versions that are not there yet, from a store.
func (l Library) Add(hand []wire.DesiredDocument, read func(name, version string) (store.Document, error)) error {
	for _, d := range hand {
		key := d.Name + ":" + d.Version
		if _, ok := l[key]; ok {
			continue
		}
		stored, err := read(d.Name, d.Version)
		if err != nil {
			return err
		}
		if l[key], err = Of(stored); err != nil {
			return err
		}
	}
	return nil
}

// Hand is what the desired state of a box has.
func Hand(d wire.Desired) []wire.DesiredDocument {
	if d.Config == nil {
		return nil
	}
	return d.Config.Documents
}

// Deal puts one version into the hand of a box and fills all of it in. has tells
// which secrets the box is to have; nil: that was checked. A version that cannot
// be filled in for the box is an error, and with it what can be said: the hand
// with the fault, and the content of before. ErrMissing alone has nothing with it.
func Deal(b fleetapi.Box, was *wire.DesiredConfig, add wire.DesiredDocument, lib Library, has func(name string) bool) (*wire.DesiredConfig, error) {
	next := &wire.DesiredConfig{Documents: []wire.DesiredDocument{}}
	if was != nil {
		for _, d := range was.Documents {
			if d.Name != add.Name {
				next.Documents = append(next.Documents, d)
			}
		}
	}
	v, ok := lib[add.Name+":"+add.Version]
	if !ok {
		return nil, fmt.Errorf("document %s:%s %w", add.Name, add.Version, ErrMissing)
	}
	add.Out = !v.Matches(b)
	next.Documents = append(next.Documents, add)
	slices.SortFunc(next.Documents, func(a, b wire.DesiredDocument) int { return strings.Compare(a.Name, b.Name) })
	settings, _, err := Fill(b, next.Documents, lib)
	if errors.Is(err, ErrMissing) {
		return nil, err
	}
	if err == nil && len(next.Documents) > boxconfig.MaxDocuments {
		err = fmt.Errorf("%d documents lie on the box; at most %d", len(next.Documents), boxconfig.MaxDocuments)
	}
	if err == nil && has != nil {
		err = missing(settings, has)
	}
	if err == nil {
		next.Content, err = settings.Content()
		next.Digest = boxconfig.Digest(next.Content)
	}
	if err != nil {
		for i := range next.Documents {
			if next.Documents[i].Name == add.Name {
				next.Documents[i].Fault = brief(err)
			}
		}
		next.Content = []byte("{}")
		if was != nil {
			next.Content = was.Content
		}
		next.Digest = boxconfig.Digest(next.Content)
	}
	return next, err
}

// brief keeps a fault short enough to travel.
func brief(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	return strings.ToValidUTF8(text[:min(len(text), 500)], "")
}

func missing(s boxconfig.Settings, has func(string) bool) error {
	var errs []error
	for path, name := range s.Secrets() {
		if !has(name) {
			errs = append(errs, fmt.Errorf("%s names secret %s, which the box is not to have; set it: edgeherd secret set %s --box, --site or --label", path, name, name))
		}
	}
	slices.SortFunc(errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	return errors.Join(errs...)
}

// Fill fills the documents of a hand in for a box and lays them over each other.
// from says of each setting which document it is of.
func Fill(b fleetapi.Box, hand []wire.DesiredDocument, lib Library) (boxconfig.Settings, map[string]string, error) {
	facts := FactsOf(b)
	var layers []boxconfig.Layer
	var errs []error
	for _, d := range hand {
		if d.Out || d.Fault != "" {
			continue
		}
		v, ok := lib[d.Name+":"+d.Version]
		if !ok {
			return nil, nil, fmt.Errorf("document %s:%s %w", d.Name, d.Version, ErrMissing)
		}
		s, err := v.Render(facts)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		layers = append(layers, boxconfig.Layer{Document: v.Ref.String(), Priority: v.Priority, Settings: s})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	s, from, err := boxconfig.Merge(layers)
	if err == nil {
		err = s.Check()
	}
	return s, from, err
}

// Change is what a request means for one box.
type Change struct {
	Box      fleetapi.Box
	Was, Now *wire.DesiredConfig
	Err      error // it cannot take it
}

// concerns reports whether a version would change the hand of a box: it is to
// have it and has not, it has another that goes out, or it gave this one up.
func (v Version) concerns(b fleetapi.Box, hand []wire.DesiredDocument) bool {
	matches := v.Matches(b)
	for _, d := range hand {
		if d.Name != v.Name {
			continue
		}
		if d.Out {
			return matches
		}
		return !matches || d.Version != v.Ref.Version || d.Fault != "" || gaveUp(b, v.Name)
	}
	return matches
}

func gaveUp(b fleetapi.Box, name string) bool {
	if b.Config == nil {
		return false
	}
	for _, d := range b.Config.Documents {
		if d.Name == name {
			return d.Phase == "failed" || d.Phase == "refused" || d.Phase == "rolled_back"
		}
	}
	return false
}

// stale reports whether facts of the box have changed since it was told.
func stale(b fleetapi.Box, was *wire.DesiredConfig, v Version, lib Library) bool {
	if was == nil || !v.Matches(b) {
		return false
	}
	s, _, err := Fill(b, was.Documents, lib)
	if err != nil {
		return true
	}
	content, err := s.Content()
	return err != nil || boxconfig.Digest(content) != was.Digest
}

// Changes are the boxes that versions change, in the order of boxes. lib has the
// versions and all that hands of boxes have.
func Changes(boxes []fleetapi.Box, desired func(fleetapi.Box) *wire.DesiredConfig, versions []Version, lib Library, has func(fleetapi.Box, string) bool) []Change {
	var out []Change
	for _, b := range boxes {
		was := desired(b)
		c := Change{Box: b, Was: was, Now: was}
		touched := false
		for _, v := range versions {
			var hand []wire.DesiredDocument
			if c.Now != nil {
				hand = c.Now.Documents
			}
			if !v.concerns(b, hand) && !stale(b, was, v, lib) {
				continue
			}
			touched = true
			next, err := Deal(b, c.Now, wire.DesiredDocument{Name: v.Name, Version: v.Ref.Version, Digest: v.Ref.Digest}, lib, func(name string) bool { return has(b, name) })
			if err != nil {
				c.Err = cmp.Or(c.Err, err)
				continue
			}
			c.Now = next
		}
		if touched {
			out = append(out, c)
		}
	}
	return out
}

// Contradictions finds two documents that set the same at the same priority on
// any box, and names one.
func Contradictions(boxes []fleetapi.Box, newest map[string]Version) error {
	names := slices.Sorted(maps.Keys(newest))
	for _, b := range boxes {
		var layers []boxconfig.Layer
		for _, name := range names {
			v := newest[name]
			if !v.Matches(b) {
				continue
			}
			s, err := v.Render(FactsOf(b))
			if err != nil {
				continue // told where the box is refused
			}
			layers = append(layers, boxconfig.Layer{Document: v.Ref.String(), Priority: v.Priority, Settings: s})
		}
		if _, _, err := boxconfig.Merge(layers); err != nil {
			return fmt.Errorf("%s: %w", b.Name, err)
		}
	}
	return nil
}
