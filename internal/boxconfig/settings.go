package boxconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// Settings are values by path: string, int64, float64, bool or []string.
type Settings map[string]any

// Layer is what one document sets on one box.
type Layer struct {
	Document string // NAME:VERSION
	Priority int
	Settings Settings
}

// Render fills a document in for one box.
func (d Document) Render(f Facts) (Settings, error) {
	out := Settings{}
	var errs []error
	for _, l := range d.leaves {
		if l.list != nil {
			out[l.path] = l.list
			continue
		}
		text := l.text
		var err error
		if l.tmpl != nil {
			text, err = fill(l.tmpl, f)
		}
		var v any
		if err == nil {
			v, err = l.field.value(text)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s: %w", l.at, l.path, err))
			continue
		}
		out[l.path] = v
	}
	return out, errors.Join(errs...)
}

// Merge lays layers over each other and says which document each setting is of.
// Two of the same priority that set the same are an error that names both.
func Merge(layers []Layer) (Settings, map[string]string, error) {
	layers = slices.Clone(layers)
	slices.SortStableFunc(layers, func(a, b Layer) int { return a.Priority - b.Priority })
	out, from, priority := Settings{}, map[string]string{}, map[string]int{}
	var errs []error
	for _, l := range layers {
		for _, path := range slices.Sorted(maps.Keys(l.Settings)) {
			if other, ok := from[path]; ok && priority[path] == l.Priority {
				errs = append(errs, fmt.Errorf("documents %s and %s both set %s at priority %d; give one of them another priority, or take it out of one", other, l.Document, path, l.Priority))
				continue
			}
			out[path], from[path], priority[path] = l.Settings[path], l.Document, l.Priority
		}
	}
	return out, from, errors.Join(errs...)
}

// step is a part of a path.
type step struct {
	key  string
	item bool // in brackets
}

func steps(path string) []step {
	var out []step
	for path != "" {
		switch i := strings.IndexAny(path, ".["); {
		case i < 0:
			return append(out, step{key: path})
		case path[i] == '.':
			out = append(out, step{key: path[:i]})
			path = path[i+1:]
		default:
			end := strings.IndexByte(path, ']')
			out = append(out, step{key: path[:i]}, step{key: path[i+1 : end], item: true})
			path = strings.TrimPrefix(path[end+1:], ".")
		}
	}
	return out
}

// Content is the settings as JSON, in one form only. Items are in the order of
// their names.
func (s Settings) Content() ([]byte, error) {
	data, err := json.Marshal(s.tree())
	if err != nil {
		return nil, err
	}
	if len(data) > MaxContentBytes {
		return nil, fmt.Errorf("the settings of a box have %d bytes; at most %d", len(data), MaxContentBytes)
	}
	return data, nil
}

// tree nests the settings; items become lists.
func (s Settings) tree() map[string]any {
	root := map[string]any{}
	for _, path := range slices.Sorted(maps.Keys(s)) {
		all := steps(path)
		at := root
		for i, st := range all {
			if i == len(all)-1 {
				at[st.key] = s[path]
				break
			}
			next, ok := at[st.key].(map[string]any)
			if !ok {
				next = map[string]any{}
				at[st.key] = next
			}
			at = next
		}
	}
	return listed(root, "").(map[string]any)
}

// listed turns the items of lists into lists.
func listed(v any, path string) any {
	m, ok := v.(map[string]any)
	if !ok {
		return v
	}
	f, _ := lookup(path)
	if f.Type == Items {
		out := []any{}
		for _, name := range slices.Sorted(maps.Keys(m)) {
			item := listed(m[name], path+"[]").(map[string]any)
			item["name"] = name
			out = append(out, item)
		}
		return out
	}
	for key, inner := range m {
		sub := key
		if path != "" {
			sub = path + "." + key
		}
		m[key] = listed(inner, sub)
	}
	return m
}

// Digest names content.
func Digest(content []byte) blob.Digest { return blob.Sum(content) }

// Parse reads content and checks all of it: known fields, types, ranges, and
// what must go together.
func Parse(content []byte) (Settings, error) {
	out := Settings{}
	if len(content) == 0 {
		return out, nil
	}
	if len(content) > MaxContentBytes {
		return nil, fmt.Errorf("settings of %d bytes; at most %d", len(content), MaxContentBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(content))
	dec.UseNumber()
	var root map[string]any
	if err := dec.Decode(&root); err != nil {
		return nil, fmt.Errorf("parse settings: %w", err)
	}
	if err := out.flatten(root, "", ""); err != nil {
		return nil, fmt.Errorf("parse settings: %w", err)
	}
	return out, out.Check()
}

// flatten puts nested values under their paths. shape is that of the table.
func (s Settings) flatten(m map[string]any, path, shape string) error {
	for key, v := range m {
		sub, subShape := key, key
		if path != "" {
			sub, subShape = path+"."+key, shape+"."+key
		}
		f, ok := lookup(subShape)
		if !ok || strings.ContainsAny(key, ".[]") {
			return fmt.Errorf("%s is no field that this program knows", sub)
		}
		if err := s.put(v, sub, f); err != nil {
			return err
		}
	}
	return nil
}

func (s Settings) put(v any, path string, f Field) error {
	switch f.Type {
	case Group, Words:
		m, ok := v.(map[string]any)
		if !ok {
			return fmt.Errorf("%s is no section", path)
		}
		if f.Type == Group {
			return s.flatten(m, path, f.Path)
		}
		for key, word := range m {
			if !wordName.MatchString(key) {
				return fmt.Errorf("%.80q is no key of %s", key, path)
			}
			if err := s.scalar(word, path+"["+key+"]", f); err != nil {
				return err
			}
		}
		return nil
	case Items:
		return s.putItems(v, path, f)
	case Texts:
		list, ok := v.([]any)
		if !ok {
			return fmt.Errorf("%s is no list", path)
		}
		texts := []string{}
		for _, t := range list {
			text, ok := t.(string)
			if !ok || len(text) > maxText {
				return fmt.Errorf("%s is no list of texts", path)
			}
			if _, err := f.value(text); err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			texts = append(texts, text)
		}
		s[path] = texts
		return nil
	}
	return s.scalar(v, path, f)
}

func (s Settings) putItems(v any, path string, f Field) error {
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("%s is no list", path)
	}
	seen := map[string]bool{}
	for _, v := range list {
		m, ok := v.(map[string]any)
		name, _ := m["name"].(string)
		if !ok || !itemName.MatchString(name) || len(name) > maxName || seen[name] {
			return fmt.Errorf("%s has an item without a name, or two of one", path)
		}
		seen[name] = true
		delete(m, "name")
		if err := s.flatten(m, path+"["+name+"]", f.Path+"[]"); err != nil {
			return err
		}
	}
	return nil
}

func (s Settings) scalar(v any, path string, f Field) error {
	text, ok := v.(string)
	switch v := v.(type) {
	case json.Number:
		text, ok = v.String(), f.Type == Whole || f.Type == Share
	case bool:
		text, ok = fmt.Sprint(v), f.Type == Flag
	case string:
		ok = f.Type == Text || f.Type == Duration || f.Type == Words
	}
	if !ok {
		return fmt.Errorf("%s is not of the type %s", path, f.Type)
	}
	value, err := f.value(text)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	s[path] = value
	return nil
}

// takes are the keys of an input by its kind; agent/inputs says the same.
var takes = map[string][]string{
	"folder": {"path"},
	"audio":  {"path"},
	"http":   {"url", "username", "password_file", "token_file", "timeout"},
	"stream": {"url", "username", "password_file", "timeout", "transport", "max_width", "max_height"},
}

// Check says what does not go together.
func (s Settings) Check() error {
	var errs []error
	for _, name := range s.items("runner.inputs") {
		errs = append(errs, s.checkInput("runner.inputs["+name+"]"))
	}
	for _, name := range s.items("runner.results.targets") {
		at := "runner.results.targets[" + name + "]"
		if s.text(at+".kind") == "" || s.text(at+".url") == "" {
			errs = append(errs, fmt.Errorf("%s: kind and url are required", at))
		}
	}
	for _, name := range s.items("runner.routes") {
		errs = append(errs, s.checkRoute("runner.routes["+name+"]"))
	}
	if s.text("agent.proxy_auth_file") != "" && s.text("agent.proxy") == "" {
		errs = append(errs, errors.New("agent.proxy_auth_file is set without agent.proxy"))
	}
	return errors.Join(errs...)
}

func (s Settings) checkRoute(at string) error {
	servers := s.items(at + ".overflow")
	if s.text(at+".model") == "" || len(servers) == 0 {
		return fmt.Errorf("%s: model, and at least one server under overflow, are required", at)
	}
	for _, name := range servers {
		if at := at + ".overflow[" + name + "]"; s.text(at+".url") == "" || s.text(at+".place") == "" {
			return fmt.Errorf("%s: url and place are required", at)
		}
	}
	return nil
}

func (s Settings) checkInput(at string) error {
	kind := s.text(at + ".kind")
	switch {
	case kind == "":
		return fmt.Errorf("%s: kind is required: folder, http, stream or audio", at)
	case s.text(at+".pipeline") == "":
		return fmt.Errorf("%s: pipeline is required", at)
	case s.text(at+"."+takes[kind][0]) == "":
		return fmt.Errorf("%s: %s is required", at, takes[kind][0])
	case (s.text(at+".username") == "") != (s.text(at+".password_file") == ""):
		return fmt.Errorf("%s: username and password_file go together", at)
	case s.text(at+".username") != "" && s.text(at+".token_file") != "":
		return fmt.Errorf("%s: username and token_file are both given, want one", at)
	}
	for _, key := range below("runner.inputs[]") {
		if _, set := s[at+"."+key]; set && !slices.Contains([]string{"kind", "pipeline", "interval", "min_score"}, key) && !slices.Contains(takes[kind], key) {
			return fmt.Errorf("%s: kind %s does not take %s; it takes %s", at, kind, key, strings.Join(takes[kind], ", "))
		}
	}
	return nil
}

func (s Settings) text(path string) string {
	v, _ := s[path].(string)
	return v
}

// items lists the names of the items of a list.
func (s Settings) items(list string) []string {
	names := map[string]bool{}
	for path := range s {
		if rest, ok := strings.CutPrefix(path, list+"["); ok {
			name, _, _ := strings.Cut(rest, "]")
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Secrets are the names of the secrets that settings name, by the setting.
func (s Settings) Secrets() map[string]string {
	out := map[string]string{}
	for path, v := range s {
		if text, ok := v.(string); ok {
			if f, known := FieldOf(path); known && f.Secret {
				if name, ok := strings.CutPrefix(text, "secret:"); ok {
					out[path] = name
				}
			}
		}
	}
	return out
}

// Lines are the settings as people read them, a line each, in order.
func (s Settings) Lines() []string {
	out := make([]string, 0, len(s))
	for _, path := range slices.Sorted(maps.Keys(s)) {
		out = append(out, path+": "+Word(s[path]))
	}
	return out
}

// Word is one value as people write it.
func Word(v any) string {
	switch v := v.(type) {
	case []string:
		return "[" + strings.Join(v, ", ") + "]"
	case string:
		if v == "" {
			return `""`
		}
		return v
	}
	return fmt.Sprint(v)
}

// OfAgent reports whether a setting is the agent's.
func OfAgent(path string) bool { return strings.HasPrefix(path, "agent.") }

// Runner is what the runner gets: keys as in runner.yaml, as JSON.
func (s Settings) Runner() ([]byte, error) {
	part, ok := s.tree()["runner"]
	if !ok {
		return []byte("{}"), nil
	}
	return json.Marshal(part)
}
