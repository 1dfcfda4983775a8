package boxconfig

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/template"
	"text/template/parse"
)

// Facts of a box that templates may use.
type Facts struct {
	Box    BoxFacts
	Site   string
	Labels map[string]string
}

// BoxFacts are {{ .Box.… }}.
type BoxFacts struct{ ID, Name, Class, Arch string }

// functions that templates may call; of those that text/template brings, only
// comparisons: printf alone could fill the memory.
var functions = []string{"label", "lower", "upper", "eq", "ne", "and", "or", "not"}

// parseTemplate reads a template and refuses all that could do more than fill
// in facts: no loops, no variables, no definitions.
func parseTemplate(text string) (*template.Template, error) {
	t, err := template.New("value").Option("missingkey=error").Funcs(template.FuncMap{
		"label": func(string, string) string { return "" }, "lower": strings.ToLower, "upper": strings.ToUpper,
	}).Parse(text)
	if err != nil {
		return nil, errors.New(templateFault(err))
	}
	if t.Tree == nil || t.Root == nil {
		return nil, errors.New("the template is empty")
	}
	if len(t.Templates()) > 1 {
		return nil, errors.New("define and block are not taken in templates")
	}
	return t, allowed(t.Root)
}

// templateFault drops what text/template says of its own names.
func templateFault(err error) string {
	text := strings.TrimPrefix(err.Error(), "template: value:")
	_, text, _ = strings.Cut(text, ": ") // line, and column
	return strings.TrimPrefix(text, "executing \"value\" at ")
}

func allowed(n parse.Node) error {
	switch n := n.(type) {
	case *parse.ListNode:
		if n == nil {
			return nil
		}
		for _, c := range n.Nodes {
			if err := allowed(c); err != nil {
				return err
			}
		}
		return nil
	case *parse.TextNode, *parse.FieldNode, *parse.StringNode, *parse.NumberNode, *parse.BoolNode, *parse.CommentNode:
		return nil
	case *parse.ActionNode:
		return allowed(n.Pipe)
	case *parse.IfNode:
		return errors.Join(allowed(n.Pipe), allowed(n.List), allowed(n.ElseList))
	case *parse.PipeNode:
		if len(n.Decl) > 0 {
			return errors.New("variables are not taken in templates")
		}
		for _, c := range n.Cmds {
			for _, arg := range c.Args {
				if err := allowed(arg); err != nil {
					return err
				}
			}
		}
		return nil
	case *parse.IdentifierNode:
		if slices.Contains(functions, n.Ident) {
			return nil
		}
		return fmt.Errorf("function %q is not taken in templates; there are %s", n.Ident, strings.Join(functions, ", "))
	}
	return fmt.Errorf("%q is not taken in templates: they have facts such as .Box.Name, .Site and .Labels.x, if and else, and %s", n, strings.Join(functions, ", "))
}

// fill renders a template for one box.
func fill(t *template.Template, f Facts) (string, error) {
	t, err := t.Clone()
	if err != nil {
		return "", err
	}
	t.Funcs(template.FuncMap{"label": func(name, otherwise string) string {
		if v, ok := f.Labels[name]; ok {
			return v
		}
		return otherwise
	}})
	var out bounded
	if err := t.Execute(&out, f); err != nil {
		if errors.Is(err, errTooLong) {
			return "", errTooLong
		}
		text := templateFault(err)
		if _, key, ok := strings.Cut(text, "map has no entry for key "); ok {
			return "", fmt.Errorf("the box has no label %s; {{ label %s \"…\" }} takes another value then", key, key)
		}
		if _, key, ok := strings.Cut(text, "can't evaluate field "); ok {
			key, _, _ = strings.Cut(key, " ")
			return "", fmt.Errorf("there is no fact %s; there are .Box.ID, .Box.Name, .Box.Class, .Box.Arch, .Site and .Labels.x", key)
		}
		return "", errors.New(text)
	}
	return out.String(), nil
}

var errTooLong = fmt.Errorf("it becomes longer than %d bytes", maxText)

// bounded takes no more than one value may have.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxText {
		return 0, errTooLong
	}
	return b.Builder.Write(p)
}
