package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// The limits of docs and STYLE: they are for readers, so generated files are exempt.
const (
	maxFileLines     = 500
	maxTestFileLines = 800
	maxFuncLines     = 70
	maxParams        = 5
	minDocLines      = 3
	maxDocLines      = 30
)

var (
	vaguePackage = regexp.MustCompile(`^(utils?|common|helpers?|types|managers?|misc|shared)$`)
	vagueType    = regexp.MustCompile(`(^|[a-z0-9])(Utils?|Common|Helpers?|Types|Managers?)$|^(utils?|common|helpers?|types|managers?)$`)
	generated    = regexp.MustCompile(`(?m)^// Code generated .* DO NOT EDIT\.$`)
)

// source is one parsed Go file.
type source struct {
	path, pkg string // slash-separated from the top; pkg is its folder
	test      bool
	generated bool
	lines     int
	fset      *token.FileSet
	file      *ast.File
}

// check reads the tree and returns one line for every broken rule.
func check(tree fs.FS) ([]string, error) {
	sources, faults, err := read(tree)
	if err != nil {
		return nil, err
	}
	for _, s := range sources {
		faults = append(faults, s.imports()...)
		faults = append(faults, s.sizes()...)
		faults = append(faults, s.names()...)
		faults = append(faults, s.contextFields()...)
		faults = append(faults, s.calls()...)
	}
	faults = append(faults, packageComments(sources)...)
	slices.Sort(faults)
	return faults, nil
}

// read parses every Go file of the tree and checks the top folder on the way.
func read(tree fs.FS) (sources []source, faults []string, err error) {
	err = fs.WalkDir(tree, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == "." {
			return err
		}
		if !strings.Contains(p, "/") && slices.Contains(unversioned, p) {
			return skip(d)
		}
		if !strings.Contains(p, "/") && !slices.Contains(topLevel, p) {
			faults = append(faults, p+": not one of the top-level folders and files: put it into one of them, or write an ADR")
		}
		if d.IsDir() && (d.Name() == "node_modules" || d.Name() == "testdata" || strings.HasPrefix(d.Name(), ".")) {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(p) != ".go" {
			return nil
		}
		s, err := parse(tree, p)
		sources = append(sources, s)
		return err
	})
	return sources, faults, err
}

func skip(d fs.DirEntry) error {
	if d.IsDir() {
		return fs.SkipDir
	}
	return nil
}

func parse(tree fs.FS, p string) (source, error) {
	text, err := fs.ReadFile(tree, p)
	if err != nil {
		return source{}, err
	}
	s := source{path: p, pkg: path.Dir(p), test: strings.HasSuffix(p, "_test.go"), fset: token.NewFileSet()}
	s.generated = generated.Match(text)
	s.lines = strings.Count(string(text), "\n")
	s.file, err = parser.ParseFile(s.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
	return s, err
}

// at says where a fault is.
func (s source) at(n ast.Node, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: %s", s.path, s.fset.Position(n.Pos()).Line, fmt.Sprintf(format, args...))
}

// imports checks the table, the doors, and that agent and controller never meet.
func (s source) imports() (faults []string) {
	r, known := rowOf(s.pkg)
	if !known && !s.test {
		faults = append(faults, s.at(s.file.Name, "package %s has no row in the import table", s.pkg))
	}
	sides := map[string]bool{}
	if top, _, _ := strings.Cut(s.pkg, "/"); top == "agent" || top == "controller" {
		sides[top] = true
	}
	for _, spec := range s.file.Imports {
		p := strings.Trim(spec.Path.Value, `"`)
		if own, ours := strings.CutPrefix(p, module); ours {
			top, _, _ := strings.Cut(own, "/")
			if top == "agent" || top == "controller" {
				sides[top] = true
			}
			if own == "internal/fleettest" {
				sides["agent"], sides["controller"] = true, true
			}
			if known && !s.test && !matches(r.ours, own) && !(strings.HasSuffix(r.pkg, "/...") && matches(r.pkg, own)) {
				faults = append(faults, s.at(spec, "%s may not import %s: see the import table", s.pkg, own))
			}
		} else if strings.Contains(strings.Split(p, "/")[0], ".") && !s.test {
			faults = append(faults, s.door(spec, p)...)
		}
	}
	if sides["agent"] && sides["controller"] && !matches("internal/fleettest/...", s.pkg) {
		faults = append(faults, s.at(s.file.Name, "agent and controller meet in %s: only internal/fleettest may import both", s.pkg))
	}
	return faults
}

func (s source) door(spec ast.Node, p string) []string {
	d, known := doorOf(p)
	switch {
	case !known:
		return []string{s.at(spec, "module of %s has no door: add it to the table with the one package that needs it", p)}
	case !matches(d.pkgs, s.pkg):
		return []string{s.at(spec, "%s may not import %s: its door is %s", s.pkg, p, d.pkgs)}
	}
	return nil
}

// sizes checks lines of files and functions, and parameters.
func (s source) sizes() (faults []string) {
	if s.generated {
		return nil
	}
	limit := maxFileLines
	if s.test {
		limit = maxTestFileLines
	}
	if s.lines > limit {
		faults = append(faults, fmt.Sprintf("%s: %d lines, at most %d: split it by what it is about", s.path, s.lines, limit))
	}
	if s.test {
		return faults
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			lines := s.fset.Position(n.End()).Line - s.fset.Position(n.Pos()).Line + 1
			if lines > maxFuncLines {
				faults = append(faults, s.at(n, "func %s has %d lines, at most %d", n.Name.Name, lines, maxFuncLines))
			}
		case *ast.FuncType:
			if got := n.Params.NumFields(); got > maxParams {
				faults = append(faults, s.at(n, "%d parameters, at most %d: pass an options struct", got, maxParams))
			}
		}
		return true
	})
	return faults
}

// names refuses packages and types whose name says nothing.
func (s source) names() (faults []string) {
	if vaguePackage.MatchString(strings.TrimSuffix(s.file.Name.Name, "_test")) || vaguePackage.MatchString(path.Base(s.pkg)) {
		faults = append(faults, s.at(s.file.Name, "package name %s says nothing: name it after what it holds", s.file.Name.Name))
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		if t, ok := n.(*ast.TypeSpec); ok && vagueType.MatchString(t.Name.Name) {
			faults = append(faults, s.at(t, "type name %s says nothing: name it after what it holds or is", t.Name.Name))
		}
		return true
	})
	return faults
}

// contextFields refuses contexts kept in structs.
func (s source) contextFields() (faults []string) {
	ast.Inspect(s.file, func(n ast.Node) bool {
		if st, ok := n.(*ast.StructType); ok {
			for _, f := range st.Fields.List {
				if selector(f.Type) == "context.Context" {
					faults = append(faults, s.at(f, "a context is a parameter, never a field"))
				}
			}
		}
		return true
	})
	return faults
}

// calls refuses raw writes of state, and sleeping in tests outside a bubble.
func (s source) calls() (faults []string) {
	bubble := slices.ContainsFunc(s.file.Imports, func(i *ast.ImportSpec) bool { return i.Path.Value == `"testing/synctest"` })
	raw := s.pkg == "internal/durable"
	for prefix := range rawWrites {
		raw = raw || strings.HasPrefix(s.path, prefix)
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		e, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		switch name := selector(e); {
		case (name == "os.Rename" || name == "os.WriteFile") && !s.test && !raw:
			faults = append(faults, s.at(e, "%s loses state in a power cut: use internal/durable", name))
		case name == "time.Sleep" && s.test && !bubble:
			faults = append(faults, s.at(e, "time.Sleep in a test without testing/synctest: poll with a deadline"))
		}
		return true
	})
	return faults
}

// selector is "os.Rename" for that expression, and "" for other kinds.
func selector(e ast.Expr) string {
	if sel, ok := e.(*ast.SelectorExpr); ok {
		if x, ok := sel.X.(*ast.Ident); ok {
			return x.Name + "." + sel.Sel.Name
		}
	}
	return ""
}

// packageComments wants exactly one comment of a readable length per package.
func packageComments(sources []source) (faults []string) {
	found, all := map[string]int{}, map[string]bool{}
	for _, s := range sources {
		if s.test {
			continue
		}
		all[s.pkg] = true
		if s.file.Doc == nil {
			continue
		}
		found[s.pkg]++
		lines := s.fset.Position(s.file.Doc.End()).Line - s.fset.Position(s.file.Doc.Pos()).Line + 1
		if !s.generated && (lines < minDocLines || lines > maxDocLines) {
			faults = append(faults, s.at(s.file.Doc, "package comment of %d lines, want %d to %d", lines, minDocLines, maxDocLines))
		}
	}
	for pkg := range all {
		if found[pkg] != 1 {
			faults = append(faults, fmt.Sprintf("%s: %d package comments, want one", pkg, found[pkg]))
		}
	}
	return faults
}
