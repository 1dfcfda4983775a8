package health

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ReadEvents reads a CSV of changes: time, box or site or both, kind, detail.
func ReadEvents(name string, r io.Reader) ([]Change, error) {
	in := csv.NewReader(r)
	in.TrimLeadingSpace = true
	head, err := in.Read()
	if err != nil {
		return nil, fmt.Errorf("read the first line of %s: %w; it must name the columns: time,box,site,kind,detail", name, err)
	}
	at := map[string]int{}
	for i, h := range head {
		h = strings.ToLower(strings.TrimSpace(strings.TrimPrefix(h, "\xef\xbb\xbf")))
		at[h] = i
	}
	_, timed := at["time"]
	_, kind := at["kind"]
	_, box := at["box"]
	_, site := at["site"]
	if !timed || !kind || !box && !site {
		return nil, fmt.Errorf("%s: line 1: want the columns time, kind and box or site; it has %s", name, strings.Join(head, ","))
	}
	var out []Change
	for {
		cells, err := in.Read()
		if errors.Is(err, io.EOF) {
			slices.SortStableFunc(out, func(a, b Change) int { return int(min(max(a.At-b.At, -1), 1)) })
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		get := func(column string) string {
			if i, ok := at[column]; ok {
				return strings.TrimSpace(cells[i])
			}
			return ""
		}
		line, _ := in.FieldPos(0)
		c := Change{Box: get("box"), Site: get("site"), Kind: get("kind"), Detail: get("detail")}
		if c.At, err = parseTime([]byte(get("time"))); err != nil {
			return nil, fmt.Errorf("%s: line %d, column time: %w", name, line, err)
		}
		if !slices.Contains(changeKinds[:], c.Kind) {
			return nil, fmt.Errorf("%s: line %d, column kind: %q, want one of %s", name, line, c.Kind, strings.Join(changeKinds[:], ", "))
		}
		if c.Box == "" && c.Site == "" {
			return nil, fmt.Errorf("%s: line %d: names neither box nor site", name, line)
		}
		out = append(out, c)
	}
}
