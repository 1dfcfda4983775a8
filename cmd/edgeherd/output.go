package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// sheet is what a command found out, in all forms that it can be printed in.
type sheet struct {
	kind  string // of the schema edgeherd.<kind>/v1
	value any    // a struct: JSON and YAML
	// items are printed one a line as jsonl, with the kind item; without
	// them jsonl is the value on one line.
	item  string
	items []any
	head  []string
	// narrow is how many columns a table has; wide and csv have all. 0 is all.
	narrow int
	rows   [][]string
	names  []string // for -o name
	bare   bool     // a table without its head: one value that is copied on
	none   string   // said of a table without rows, in place of its head
	brief  bool     // a terminal that is too narrow gets the last column cut, not folded
}

func (c *cli) print(s sheet) error {
	switch c.output {
	case "json":
		return writeJSON(c.out, s.kind, s.value, true)
	case "jsonl":
		if s.items == nil {
			return writeJSON(c.out, s.kind, s.value, false)
		}
		for _, item := range s.items {
			if err := writeJSON(c.out, s.item, item, false); err != nil {
				return err
			}
		}
		return nil
	case "yaml":
		return writeYAML(c.out, s.kind, s.value)
	case "csv":
		return c.csv(s)
	case "name":
		for _, n := range s.names {
			fmt.Fprintln(c.out, n)
		}
		return nil
	}
	c.table(s)
	return nil
}

// withSchema encodes v with its schema as the first key.
func withSchema(kind string, v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	body := bytes.TrimSpace(b.Bytes())
	if body[0] != '{' {
		panic("cli: a sheet's value is a struct")
	}
	first := fmt.Sprintf(`{"schema":"edgeherd.%s/v1"`, kind)
	if !bytes.Equal(body, []byte("{}")) {
		first += ","
	}
	return append([]byte(first), body[1:]...), nil
}

func writeJSON(w io.Writer, kind string, v any, indent bool) error {
	data, err := withSchema(kind, v)
	if err != nil {
		return err
	}
	if indent {
		var b bytes.Buffer
		if err := json.Indent(&b, data, "", "  "); err != nil {
			return err
		}
		data = b.Bytes()
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// writeYAML reads the JSON as YAML, which it is, and so keeps names and order.
func writeYAML(w io.Writer, kind string, v any) error {
	data, err := withSchema(kind, v)
	if err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(data, &n); err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	block(&n)
	enc := yaml.NewEncoder(w)
	enc.SetIndent(2)
	if err := enc.Encode(&n); err != nil {
		return err
	}
	return enc.Close()
}

// block undoes the braces and quotes of JSON where YAML needs none.
func block(n *yaml.Node) {
	n.Style = 0
	for _, child := range n.Content {
		block(child)
	}
}

func (c *cli) csv(s sheet) error {
	w := csv.NewWriter(c.out)
	if !c.noHeaders {
		head := make([]string, len(s.head))
		for i, h := range s.head {
			head[i] = strings.ReplaceAll(strings.ToLower(h), " ", "_")
		}
		_ = w.Write(head) // Error tells
	}
	for _, row := range s.rows {
		cells := make([]string, len(row))
		for i, cell := range row {
			cells[i] = noFormula(cell)
		}
		_ = w.Write(cells)
	}
	w.Flush()
	return w.Error()
}

// noFormula keeps spreadsheets from running a text that a box or a person gave.
func noFormula(cell string) string {
	if cell == "" || !strings.ContainsRune("=@\t\r", rune(cell[0])) && !(strings.ContainsRune("+-", rune(cell[0])) && strings.ContainsAny(cell, "(|!=")) {
		return cell
	}
	return "'" + cell
}

// age says how long ago t was.
func age(t *time.Time, now time.Time) string {
	if t == nil {
		return "never"
	}
	d := max(now.Sub(*t), 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s ago", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h ago", int(d.Hours()))
	}
	return fmt.Sprintf("%d d ago", int(d.Hours())/24)
}

// bytesText writes a size in units of 10³ bytes.
func bytesText(n int64) string {
	units := []string{"B", "kB", "MB", "GB", "TB"}
	v, i := float64(n), 0
	for math.Abs(v) >= 1000 && i < len(units)-1 {
		v, i = v/1000, i+1
	}
	if i == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return strconv.FormatFloat(v, 'f', 1, 64) + " " + units[i]
}

// orDash keeps an empty cell visible.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// items turns a slice into the items of a sheet.
func items[T any](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = v
	}
	return out
}

// plural is "1 box" or "3 boxes".
func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
