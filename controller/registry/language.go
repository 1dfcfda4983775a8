package registry

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"
)

// Field is the text or the number that a T has under a name.
type Field[T any] struct {
	Text   func(T) string
	Number func(T) (float64, bool) // false: it has none
	// Has is what `name:"word"` asks; nil: whether Text contains the word.
	Has func(v T, word string) bool
}

// Language is what filters and sort orders of a list may name.
type Language[T any] struct {
	Fields map[string]Field[T]
	// By is the field of the empty order, and of ties; no two T have the same.
	By string
	// Example is a filter, for messages.
	Example string
}

// names lists the fields, for messages and help.
func (l *Language[T]) names() []string { return slices.Sorted(maps.Keys(l.Fields)) }

// A Filter matches the T of a list. The zero Filter matches all.
type Filter[T any] struct {
	root   *expr.Expr
	fields map[string]Field[T]
}

// Parse reads an AIP-160 expression. Errors say what is wrong and which fields
// there are.
func (l *Language[T]) Parse(text string) (Filter[T], error) {
	if strings.TrimSpace(text) == "" {
		return Filter[T]{}, nil
	}
	if len(text) > maxFilterBytes {
		return Filter[T]{}, fmt.Errorf("filter of %d bytes, the limit is %d", len(text), maxFilterBytes)
	}
	decl, err := l.declarations()
	if err != nil {
		return Filter[T]{}, fmt.Errorf("declare filter fields: %w", err)
	}
	f, err := filtering.ParseFilterString(text, decl)
	fault := ""
	if err != nil {
		fault = faultOf(err, text)
	} else {
		fault = l.meaningless(f.CheckedExpr.GetExpr())
	}
	if fault != "" {
		return Filter[T]{}, fmt.Errorf("filter %s: %s; fields are %s; texts are quoted: %s", text, fault, strings.Join(l.names(), ", "), l.Example)
	}
	return Filter[T]{f.CheckedExpr.GetExpr(), l.Fields}, nil
}

// Uses returns the first of names that the filter asks for; empty: none of them.
func (f Filter[T]) Uses(names ...string) string { return uses(f.root, names) }

func uses(e *expr.Expr, names []string) string {
	if name := e.GetIdentExpr().GetName(); slices.Contains(names, name) {
		return name
	}
	for _, arg := range e.GetCallExpr().GetArgs() {
		if name := uses(arg, names); name != "" {
			return name
		}
	}
	return ""
}

// maxFilterBytes bounds the depth of the parser's recursion.
const maxFilterBytes = 4096

func (l *Language[T]) declarations() (*filtering.Declarations, error) {
	opts := []filtering.DeclarationOption{
		filtering.DeclareStandardFunctions(),
		// Expressions side by side must all hold.
		filtering.DeclareFunction(filtering.FunctionFuzzyAnd,
			filtering.NewFunctionOverload("fuzzy_and_bool", filtering.TypeBool, filtering.TypeBool, filtering.TypeBool)),
		filtering.DeclareFunction(filtering.FunctionHas,
			filtering.NewFunctionOverload("has_string_contains", filtering.TypeBool, filtering.TypeString, filtering.TypeString)),
		filtering.DeclareIdent("true", filtering.TypeString),
		filtering.DeclareIdent("false", filtering.TypeString),
	}
	for name, f := range l.Fields {
		typ := filtering.TypeString
		if f.Number != nil {
			typ = filtering.TypeFloat
		}
		opts = append(opts, filtering.DeclareIdent(name, typ))
	}
	return filtering.NewDeclarations(opts...)
}

// faultOf keeps the words of a parser's error that name the fault, and where in
// the text it is: LINE:COLUMN.
func faultOf(err error, text string) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	fault := strings.TrimPrefix(strings.TrimSpace(lines[len(lines)-1]), "^ ")
	for {
		rest, inner := strings.CutPrefix(fault, "check call expr: ")
		if !inner {
			break
		}
		fault = rest
	}
	if strings.HasPrefix(fault, "non-bool result type") {
		return "nothing is compared"
	}
	// The checker of names knows no positions.
	if name, ok := strings.CutPrefix(fault, "undeclared identifier '"); ok {
		name = strings.TrimSuffix(name, "'")
		if at := unquoted(text, name); at >= 0 {
			line := strings.Count(text[:at], "\n")
			return fmt.Sprintf("%s (%d:%d)", fault, line+1, utf8.RuneCountInString(text[strings.LastIndexByte(text[:at], '\n')+1:at])+1)
		}
	}
	return fault
}

// unquoted is where a name stands in a filter as a word of its own, outside of
// quotes; -1: nowhere.
func unquoted(text, name string) int {
	quote := rune(0)
	word := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	for i, r := range text {
		switch {
		case quote != 0:
			if r == quote {
				quote = 0
			}
		case r == '"' || r == '\'':
			quote = r
		case strings.HasPrefix(text[i:], name):
			before, _ := utf8.DecodeLastRuneInString(text[:i])
			after, _ := utf8.DecodeRuneInString(text[i+len(name):])
			if !word(r) || !word(before) && !word(after) {
				return i
			}
		}
	}
	return -1
}

// meaningless says what is wrong with an expression of right types, or "":
// comparisons are between a field and a value, in this order.
func (l *Language[T]) meaningless(e *expr.Expr) string {
	call := e.GetCallExpr()
	switch call.GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd, filtering.FunctionOr, filtering.FunctionNot:
		for _, arg := range call.GetArgs() {
			if fault := l.meaningless(arg); fault != "" {
				return fault
			}
		}
		return ""
	}
	left, right := call.GetArgs()[0], call.GetArgs()[1]
	if _, ok := l.Fields[left.GetIdentExpr().GetName()]; !ok {
		return "the left side of " + call.GetFunction() + " is not a field"
	}
	if _, ok := l.Fields[right.GetIdentExpr().GetName()]; ok {
		return "the right side of " + call.GetFunction() + " is a field, not a value"
	}
	return ""
}

// Match reports whether v passes the filter.
func (f Filter[T]) Match(v T) bool { return f.root == nil || f.matches(f.root, v) }

func (f Filter[T]) matches(e *expr.Expr, v T) bool {
	call := e.GetCallExpr()
	if call == nil {
		return false
	}
	args := call.GetArgs()
	switch call.GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd:
		return f.matches(args[0], v) && f.matches(args[1], v)
	case filtering.FunctionOr:
		return f.matches(args[0], v) || f.matches(args[1], v)
	case filtering.FunctionNot:
		return !f.matches(args[0], v)
	}
	name := args[0].GetIdentExpr().GetName()
	if field := f.fields[name]; field.Number != nil {
		got, known := field.Number(v)
		return known && holds(call.GetFunction(), cmp.Compare(got, numberOf(args[1])))
	} else if field.Text != nil {
		if has := call.GetFunction() == filtering.FunctionHas; has && field.Has != nil {
			return field.Has(v, textOf(args[1]))
		} else if has {
			return strings.Contains(field.Text(v), textOf(args[1]))
		}
		return holds(call.GetFunction(), cmp.Compare(field.Text(v), textOf(args[1])))
	}
	return false
}

// Requires reports whether all that the filter matches have this text in a
// field, as far as the outermost ANDs tell. It spares reading what no match is.
func (f Filter[T]) Requires(field, text string) bool { return requires(f.root, field, text) }

func requires(e *expr.Expr, field, text string) bool {
	args := e.GetCallExpr().GetArgs()
	switch e.GetCallExpr().GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd:
		return requires(args[0], field, text) || requires(args[1], field, text)
	case filtering.FunctionEquals:
		return args[0].GetIdentExpr().GetName() == field && textOf(args[1]) == text
	}
	return false
}

func holds(op string, order int) bool {
	switch op {
	case filtering.FunctionEquals:
		return order == 0
	case filtering.FunctionNotEquals:
		return order != 0
	case filtering.FunctionLessThan:
		return order < 0
	case filtering.FunctionLessEquals:
		return order <= 0
	case filtering.FunctionGreaterThan:
		return order > 0
	case filtering.FunctionGreaterEquals:
		return order >= 0
	}
	return false
}

func textOf(e *expr.Expr) string {
	if id := e.GetIdentExpr(); id != nil {
		return id.GetName()
	}
	return e.GetConstExpr().GetStringValue()
}

func numberOf(e *expr.Expr) float64 {
	c := e.GetConstExpr()
	if _, ok := c.GetConstantKind().(*expr.Constant_Int64Value); ok {
		return float64(c.GetInt64Value())
	}
	return c.GetDoubleValue()
}

// Sort orders the T of a list by a field, " desc" reverses; ties and the empty
// order go by By. Those without the value come last.
func (l *Language[T]) Sort(all []T, order string) error {
	compare, err := l.order(order)
	if err != nil {
		return err
	}
	slices.SortStableFunc(all, compare)
	return nil
}

func (l *Language[T]) order(order string) (func(a, b T) int, error) {
	name, desc := strings.CutSuffix(strings.TrimSpace(order), " desc")
	name = strings.TrimSuffix(strings.TrimSpace(name), " asc")
	if name == "" {
		name = l.By
	}
	f, ok := l.Fields[name]
	if !ok {
		return nil, errors.New("cannot order by " + name + "; fields are " + strings.Join(l.names(), ", "))
	}
	by := l.Fields[l.By].Text
	return func(a, b T) int {
		var c int
		if f.Number != nil {
			va, oka := f.Number(a)
			vb, okb := f.Number(b)
			if oka != okb {
				return map[bool]int{true: -1, false: 1}[oka]
			}
			c = cmp.Compare(va, vb)
		} else {
			c = cmp.Compare(f.Text(a), f.Text(b))
		}
		if desc {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(by(a), by(b)))
	}, nil
}

// After returns the T of a list, in order, that come after a place: what the
// last T of the page before had under the field of the order, and under By. It
// holds although that T has moved or is gone.
func (l *Language[T]) After(all []T, order string, at Place) ([]T, error) {
	field := l.field(order)
	f, ok := l.Fields[field]
	if !ok {
		return nil, errors.New("cannot order by " + field)
	}
	_, desc := strings.CutSuffix(strings.TrimSpace(order), " desc")
	by := l.Fields[l.By].Text
	i := slices.IndexFunc(all, func(v T) bool {
		c := 0
		if f.Number != nil {
			n, known := f.Number(v)
			switch {
			case known != (at.Number != nil):
				return !known // those without the value come last
			case known:
				c = cmp.Compare(n, *at.Number)
			}
		} else {
			c = cmp.Compare(f.Text(v), at.Text)
		}
		if desc {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(by(v), at.By)) > 0
	})
	if i < 0 {
		return nil, nil
	}
	return all[i:], nil
}

// Place is where a page of a list ended.
type Place struct {
	Text   string   `json:"t,omitempty"`
	Number *float64 `json:"n,omitempty"`
	By     string   `json:"b"`
}

// PlaceOf is where a page of a list that ends with v ended.
func (l *Language[T]) PlaceOf(v T, order string) Place {
	p := Place{By: l.Fields[l.By].Text(v)}
	f := l.Fields[l.field(order)]
	if f.Number == nil {
		p.Text = f.Text(v)
	} else if n, known := f.Number(v); known {
		p.Number = &n
	}
	return p
}

// field is the field that an order names.
func (l *Language[T]) field(order string) string {
	name := strings.TrimSuffix(strings.TrimSpace(order), " desc")
	if name = strings.TrimSpace(strings.TrimSuffix(name, " asc")); name == "" {
		return l.By
	}
	return name
}
