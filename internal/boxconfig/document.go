package boxconfig

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// Document is one that was read. Its settings are templates still.
type Document struct {
	Name     string
	Selector string
	Priority int
	// Text is the YAML that it was read from, with its comments.
	Text   string
	leaves []leaf
}

// leaf is one setting as it was written.
type leaf struct {
	path  string
	field Field
	text  string             // of one value
	list  []string           // of Texts
	tmpl  *template.Template // nil: the text is what it is
	at    string             // FILE:LINE:COLUMN
}

var (
	docName  = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	itemName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)
	wordName = regexp.MustCompile(`^[^\[\]\x00-\x1f]+$`)
)

// ReadAll reads the documents of a file, parted by "---". Faults name file, line
// and column, all of them at once.
func ReadAll(file string, data []byte) ([]Document, error) {
	if len(data) > MaxDocuments*MaxDocumentBytes {
		return nil, fmt.Errorf("%s has %d bytes; at most %d", file, len(data), MaxDocuments*MaxDocumentBytes)
	}
	var out []Document
	var errs []error
	for _, p := range split(data) {
		if len(bytes.TrimSpace(p.text)) == 0 {
			continue
		}
		dec := yaml.NewDecoder(bytes.NewReader(p.text))
		var node yaml.Node
		err := dec.Decode(&node)
		if errors.Is(err, io.EOF) {
			continue // nothing but comments
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %s", file, p.fault(err)))
			continue
		}
		if len(node.Content) == 0 || node.Content[0].Tag == "!!null" {
			continue
		}
		r := reader{file: file, before: p.before}
		d := r.document(node.Content[0])
		d.Text = strings.TrimLeft(string(p.text), "\n")
		if len(d.Text) > MaxDocumentBytes {
			r.fault(node.Content[0], "document %s has %d bytes; at most %d", d.Name, len(d.Text), MaxDocumentBytes)
		}
		errs = append(errs, r.errs...)
		out = append(out, d)
	}
	if len(out) == 0 && len(errs) == 0 {
		errs = append(errs, fmt.Errorf("%s has no document", file))
	}
	return out, errors.Join(errs...)
}

// part is one document of a file, after so many lines.
type part struct {
	before int
	text   []byte
}

// split parts a file at its "---" lines.
func split(data []byte) []part {
	var parts []part
	var now part
	line, begin, end := 0, 0, 0
	for l := range bytes.Lines(data) {
		line++
		if bytes.Equal(bytes.TrimRight(l, " \r\n"), []byte("---")) {
			now.text = data[begin:end]
			parts = append(parts, now)
			now, begin = part{before: line}, end+len(l)
		}
		end += len(l)
	}
	now.text = data[begin:]
	return append(parts, now)
}

var yamlLine = regexp.MustCompile(`^line (\d+): `)

// fault is what the parser says, with the line of the file; it leaves out the first.
func (p part) fault(err error) string {
	text, n := strings.TrimPrefix(err.Error(), "yaml: "), 1
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		text = text[len(m[0]):]
		n, _ = strconv.Atoi(m[1]) // digits
	}
	return fmt.Sprintf("line %d: %s", n+p.before, text)
}

// reader walks one document and keeps its faults.
type reader struct {
	file   string
	before int // lines
	errs   []error
}

func (r *reader) at(n *yaml.Node) string {
	return fmt.Sprintf("%s:%d:%d", r.file, r.before+n.Line, n.Column)
}

func (r *reader) fault(n *yaml.Node, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: "+format, append([]any{r.at(n)}, args...)...))
}

func (r *reader) document(n *yaml.Node) Document {
	var d Document
	seen := map[string]bool{}
	r.pairs(n, "the document", func(key, value *yaml.Node) {
		seen[key.Value] = true
		switch key.Value {
		case "kind":
			if value.Value != Kind {
				r.fault(value, "kind %.80q is none of this program; want %s", value.Value, Kind)
			}
		case "name":
			if d.Name = value.Value; len(d.Name) > maxName || !docName.MatchString(d.Name) {
				r.fault(value, "%.80q is no name of a document: lower case letters, digits and . _ -, beginning with a letter or digit, at most %d", d.Name, maxName)
			}
		case "selector":
			if d.Selector = strings.TrimSpace(value.Value); value.Kind != yaml.ScalarNode || d.Selector == "" {
				r.fault(value, `the selector is empty, which would be all boxes; if they are meant, write selector: name != ""`)
			}
		case "priority":
			if v, err := heads[3].value(value.Value); err != nil {
				r.fault(value, "priority: %s", err)
			} else {
				d.Priority = int(v.(int64))
			}
		case "agent", "runner":
			r.group(&d, value, key.Value, key.Value)
		default:
			r.unknown(key, "", append([]string{"kind", "name", "selector", "priority"}, below("")...))
		}
	})
	for _, key := range []string{"kind", "name", "selector"} {
		if !seen[key] {
			r.fault(n, "%s is missing", key)
		}
	}
	if len(r.errs) == 0 && len(d.leaves) == 0 {
		r.fault(n, "document %s sets nothing; give it settings below agent or runner", d.Name)
	}
	return d
}

// pairs calls each key of a mapping; one that comes twice is a fault.
func (r *reader) pairs(n *yaml.Node, what string, each func(key, value *yaml.Node)) {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		r.fault(n, "anchors and aliases are not taken")
		return
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s wants keys with values", what)
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch {
		case value.Kind == yaml.AliasNode || value.Anchor != "":
			r.fault(value, "anchors and aliases are not taken")
		case seen[key.Value]:
			r.fault(key, "%s is here twice", key.Value)
		default:
			seen[key.Value] = true
			each(key, value)
		}
	}
}

// unknown names the field that may have been meant, or all there are.
func (r *reader) unknown(key *yaml.Node, group string, known []string) {
	if why := local(itemOf.ReplaceAllString(group, "[]") + "." + key.Value); why != "" {
		r.fault(key, "%s of %s stands in the file on the box alone: %s", key.Value, group, why)
		return
	}
	for _, k := range known {
		if Near(k, key.Value) {
			r.fault(key, "%.80s is no field%s; did you mean %s?", key.Value, of(group), k)
			return
		}
	}
	r.fault(key, "%.80s is no field%s; there are %s", key.Value, of(group), strings.Join(known, ", "))
}

func of(group string) string {
	if group == "" {
		return ""
	}
	return " of " + group
}

// group reads the keys below a path. shape is the path in the table of fields.
func (r *reader) group(d *Document, n *yaml.Node, path, shape string) {
	r.pairs(n, path, func(key, value *yaml.Node) {
		f, ok := lookup(shape + "." + key.Value)
		if !ok || strings.ContainsAny(key.Value, ".[") {
			r.unknown(key, path, below(shape))
			return
		}
		r.field(d, value, path+"."+key.Value, f)
	})
}

func (r *reader) field(d *Document, n *yaml.Node, path string, f Field) {
	switch f.Type {
	case Group:
		r.group(d, n, path, f.Path)
	case Items:
		r.items(d, n, path, f)
	case Words:
		r.pairs(n, path, func(key, value *yaml.Node) {
			if len(key.Value) > maxName*4 || !wordName.MatchString(key.Value) {
				r.fault(key, "%.80q is no key of %s", key.Value, path)
				return
			}
			r.leaf(d, value, path+"["+key.Value+"]", f)
		})
	case Texts:
		if n.Kind != yaml.SequenceNode {
			r.fault(n, "%s wants a list", path)
			return
		}
		l := leaf{path: path, field: f, at: r.at(n), list: []string{}}
		for _, c := range n.Content {
			if c.Kind != yaml.ScalarNode || strings.Contains(c.Value, "{{") {
				r.fault(c, "%s wants plain texts", path)
				return
			}
			if _, err := f.value(c.Value); err != nil {
				r.fault(c, "%s: %s", path, err)
				return
			}
			l.list = append(l.list, c.Value)
		}
		d.leaves = append(d.leaves, l)
	default:
		r.leaf(d, n, path, f)
	}
}

// items reads a list whose items have names.
func (r *reader) items(d *Document, n *yaml.Node, path string, f Field) {
	if n.Kind != yaml.SequenceNode {
		r.fault(n, "%s wants a list of items, each with a name", path)
		return
	}
	seen := map[string]bool{}
	for _, item := range n.Content {
		name := ""
		r.pairs(item, path, func(key, value *yaml.Node) {
			if key.Value == "name" {
				name = value.Value
			}
		})
		switch {
		case item.Kind != yaml.MappingNode:
			continue // told already
		case len(name) > maxName || !itemName.MatchString(name):
			r.fault(item, "%s: an item needs a name: letters, digits and . _ -, at most %d, and no template, since documents meet by it", path, maxName)
			continue
		case seen[name]:
			r.fault(item, "%s has two items called %s", path, name)
			continue
		}
		seen[name] = true
		inner := path + "[" + name + "]"
		r.pairs(item, inner, func(key, value *yaml.Node) {
			if key.Value == "name" {
				return
			}
			sub, ok := lookup(f.Path + "[]." + key.Value)
			if !ok {
				r.unknown(key, inner, append([]string{"name"}, below(f.Path+"[]")...))
				return
			}
			r.field(d, value, inner+"."+key.Value, sub)
		})
	}
}

func (r *reader) leaf(d *Document, n *yaml.Node, path string, f Field) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		hint := ""
		if n.Kind == yaml.MappingNode {
			hint = "; a template stands in quotes"
		}
		r.fault(n, "%s wants one value: %s%s", path, f.Type, hint)
		return
	}
	l := leaf{path: path, field: f, text: n.Value, at: r.at(n)}
	var err error
	if strings.Contains(n.Value, "{{") {
		if len(n.Value) > maxText {
			err = errTooLong
		} else {
			l.tmpl, err = parseTemplate(n.Value)
		}
	} else {
		_, err = f.value(n.Value)
	}
	if err != nil {
		r.fault(n, "%s: %s", path, err)
		return
	}
	d.leaves = append(d.leaves, l)
}

// Canonical is the document without comments and order, as JSON: two of the
// same say the same.
func (d Document) Canonical() []byte {
	settings := map[string]any{}
	for _, l := range d.leaves {
		if l.list != nil {
			settings[l.path] = l.list
		} else {
			settings[l.path] = l.text
		}
	}
	out, err := json.Marshal(struct {
		Name     string         `json:"name"`
		Selector string         `json:"selector"`
		Priority int            `json:"priority"`
		Settings map[string]any `json:"settings"`
	}{d.Name, d.Selector, d.Priority, settings})
	if err != nil {
		panic("boxconfig: texts always encode: " + err.Error())
	}
	return out
}

// Digest names a version of the document.
func (d Document) Digest(version string) blob.Digest {
	return blob.Sum(append([]byte(version+"\n"), d.Canonical()...))
}

// Secrets are the names of secrets that the document names without a template.
func (d Document) Secrets() []string {
	names := map[string]bool{}
	for _, l := range d.leaves {
		if name, ok := strings.CutPrefix(l.text, "secret:"); ok && l.field.Secret && l.tmpl == nil {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Templated reports whether facts of a box play a part in what it sets.
func (d Document) Templated() bool {
	return slices.ContainsFunc(d.leaves, func(l leaf) bool { return l.tmpl != nil })
}

// Near reports whether two words differ in at most two places.
func Near(a, b string) bool {
	if len(a)-len(b) > 2 || len(b)-len(a) > 2 || len(b) > maxName {
		return false
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			last, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, last+cost)
		}
	}
	return row[len(b)] <= 2
}

// ParseRef reads NAME:VERSION of a document.
func ParseRef(word string) (name, version string, err error) {
	name, version, ok := strings.Cut(word, ":")
	if !ok || len(name) > maxName || !docName.MatchString(name) || version == "" {
		return "", "", fmt.Errorf("%.80q is not NAME:VERSION of a document", word)
	}
	return name, version, nil
}

var labelName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// CheckLabel refuses labels that filters and templates cannot name, and values
// that would not travel. An empty value takes a label away.
func CheckLabel(name, value string) error {
	switch {
	case len(name) > maxName || !labelName.MatchString(name):
		return fmt.Errorf("%.80q is no label that filters can name: letters, digits and _, beginning with a letter, at most %d", name, maxName)
	case len(value) > maxName || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("label %s has a value that is too long or has control characters; at most %d bytes", name, maxName)
	}
	return nil
}
