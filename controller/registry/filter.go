package registry

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.einride.tech/aip/filtering"
	expr "google.golang.org/genproto/googleapis/api/expr/v1alpha1"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// fields are what filters and sort orders may name, with the text or number
// that a box has there.
var fields = map[string]struct {
	text   func(fleetapi.Box) string
	number func(fleetapi.Box) (float64, bool)
}{
	"id":     {text: func(b fleetapi.Box) string { return b.ID.String() }},
	"name":   {text: func(b fleetapi.Box) string { return b.Name }},
	"site":   {text: func(b fleetapi.Box) string { return b.Site }},
	"link":   {text: func(b fleetapi.Box) string { return string(b.Link) }},
	"health": {text: func(b fleetapi.Box) string { return string(b.Health) }},
	"update": {text: func(b fleetapi.Box) string { return string(b.Update) }},
	"class":  {text: func(b fleetapi.Box) string { return b.Inventory.Class }},
	"arch":   {text: func(b fleetapi.Box) string { return b.Inventory.Arch }},
	"agent":  {text: func(b fleetapi.Box) string { return b.Inventory.Agent }},
	"model":  {text: modelWords},
	"temp_die": {number: func(b fleetapi.Box) (float64, bool) {
		v, ok := b.Latest["temp_die_celsius"]
		return v.Value, ok
	}},
	"thermal_ratio": {number: func(b fleetapi.Box) (float64, bool) {
		return b.Thermal.RatioToBaseline, b.Thermal.Known
	}},
	"simulated": {text: func(b fleetapi.Box) string { return fmt.Sprint(b.Simulated) }},
}

func modelWords(b fleetapi.Box) string {
	var words []string
	for _, m := range b.Models {
		words = append(words, m.Name+":"+m.RunningVersion)
	}
	return strings.Join(words, " ")
}

// Fields lists the names that filters may use, for messages and help.
func Fields() []string {
	names := make([]string, 0, len(fields))
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// A Filter matches boxes. The zero Filter matches all.
type Filter struct{ root *expr.Expr }

// ParseFilter reads an AIP-160 expression such as
// `health = "throttling" AND temp_die > 85 AND NOT site = "berlin-1"`.
// Errors say what is wrong and which fields there are.
func ParseFilter(text string) (Filter, error) {
	if strings.TrimSpace(text) == "" {
		return Filter{}, nil
	}
	if len(text) > maxFilterBytes {
		return Filter{}, fmt.Errorf("filter of %d bytes, the limit is %d", len(text), maxFilterBytes)
	}
	decl, err := declarations()
	if err != nil {
		return Filter{}, fmt.Errorf("declare filter fields: %w", err)
	}
	f, err := filtering.ParseFilterString(text, decl)
	fault := ""
	if err != nil {
		fault = faultOf(err)
	} else {
		fault = meaningless(f.CheckedExpr.GetExpr())
	}
	if fault != "" {
		return Filter{}, fmt.Errorf("filter %s: %s; fields are %s; texts are quoted: site = \"berlin-1\"", text, fault, strings.Join(Fields(), ", "))
	}
	return Filter{f.CheckedExpr.GetExpr()}, nil
}

// maxFilterBytes bounds the depth of the parser's recursion.
const maxFilterBytes = 4096

func declarations() (*filtering.Declarations, error) {
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
	for name, f := range fields {
		typ := filtering.TypeString
		if f.number != nil {
			typ = filtering.TypeFloat
		}
		opts = append(opts, filtering.DeclareIdent(name, typ))
	}
	return filtering.NewDeclarations(opts...)
}

// faultOf keeps the words of a parser's error that name the fault.
func faultOf(err error) string {
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
	return fault
}

// meaningless says what is wrong with an expression of right types, or "":
// comparisons are between a field and a value, in this order.
func meaningless(e *expr.Expr) string {
	call := e.GetCallExpr()
	switch call.GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd, filtering.FunctionOr, filtering.FunctionNot:
		for _, arg := range call.GetArgs() {
			if fault := meaningless(arg); fault != "" {
				return fault
			}
		}
		return ""
	}
	left, right := call.GetArgs()[0], call.GetArgs()[1]
	if _, ok := fields[left.GetIdentExpr().GetName()]; !ok {
		return "the left side of " + call.GetFunction() + " is not a field"
	}
	if _, ok := fields[right.GetIdentExpr().GetName()]; ok {
		return "the right side of " + call.GetFunction() + " is a field, not a value"
	}
	return ""
}

// Match reports whether b passes the filter.
func (f Filter) Match(b fleetapi.Box) bool { return f.root == nil || matches(f.root, b) }

func matches(e *expr.Expr, b fleetapi.Box) bool {
	call := e.GetCallExpr()
	if call == nil {
		return false
	}
	args := call.GetArgs()
	switch call.GetFunction() {
	case filtering.FunctionAnd, filtering.FunctionFuzzyAnd:
		return matches(args[0], b) && matches(args[1], b)
	case filtering.FunctionOr:
		return matches(args[0], b) || matches(args[1], b)
	case filtering.FunctionNot:
		return !matches(args[0], b)
	}
	name := args[0].GetIdentExpr().GetName()
	if f := fields[name]; f.number != nil {
		got, known := f.number(b)
		return known && holds(call.GetFunction(), cmp.Compare(got, numberOf(args[1])))
	} else if f.text != nil {
		if call.GetFunction() == filtering.FunctionHas {
			return strings.Contains(f.text(b), textOf(args[1]))
		}
		return holds(call.GetFunction(), cmp.Compare(f.text(b), textOf(args[1])))
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

// Sort orders boxes by a field, " desc" reverses; ties and the empty order go
// by name. Boxes without the value come last.
func Sort(boxes []fleetapi.Box, order string) error {
	name, desc := strings.CutSuffix(strings.TrimSpace(order), " desc")
	name = strings.TrimSuffix(strings.TrimSpace(name), " asc")
	if name == "" {
		name = "name"
	}
	f, ok := fields[name]
	if !ok {
		return errors.New("cannot order by " + name + "; fields are " + strings.Join(Fields(), ", "))
	}
	slices.SortStableFunc(boxes, func(a, b fleetapi.Box) int {
		var c int
		if f.number != nil {
			va, oka := f.number(a)
			vb, okb := f.number(b)
			if oka != okb {
				return map[bool]int{true: -1, false: 1}[oka]
			}
			c = cmp.Compare(va, vb)
		} else {
			c = cmp.Compare(f.text(a), f.text(b))
		}
		if desc {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.Name, b.Name))
	})
	return nil
}
