package api

import (
	"context"
	"encoding/csv"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
)

// column is a column of a list as CSV.
type column[T any] struct {
	name string
	cell func(T) string
}

// asCSV answers a request for CSV in place of the JSON route of a list: all
// that matches, not a page of it. what names the items.
func asCSV[T any](a *API, what string, columns []column[T], match func(ctx context.Context, filter, order string) ([]T, error)) func(huma.Context, func(huma.Context)) {
	answer := func(w http.ResponseWriter, r *http.Request) error {
		q := r.URL.Query()
		for key := range q {
			if key != "filter" && key != "order_by" {
				return badRequest("CSV has all "+what+" that match: use filter and order_by only.", "parameter %q does not go with CSV", key)
			}
		}
		all, err := match(r.Context(), q.Get("filter"), q.Get("order_by"))
		if err != nil {
			return err
		}
		w.Header().Set("Content-Type", "text/csv; charset=utf-8")
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", what+".csv"))
		w.Header().Set("Cache-Control", "no-store")
		out := csv.NewWriter(w)
		row := make([]string, len(columns))
		for i, c := range columns {
			row[i] = c.name
		}
		_ = out.Write(row) // Flush tells
		for _, item := range all {
			for i, c := range columns {
				row[i] = harmless(c.cell(item))
			}
			_ = out.Write(row)
		}
		out.Flush() // an error means that the client went away
		return nil
	}
	return func(ctx huma.Context, next func(huma.Context)) {
		if !strings.HasPrefix(ctx.Header("Accept"), "text/csv") {
			next(ctx)
			return
		}
		r, w := humago.Unwrap(ctx)
		if err := answer(w, r); err != nil {
			a.fail(w, r, err)
		}
	}
}

// harmless keeps a spreadsheet from taking a text for a formula
// (OWASP, CSV injection).
func harmless(cell string) string {
	if cell != "" && strings.ContainsRune("=+-@\t\r", rune(cell[0])) {
		if _, err := strconv.ParseFloat(cell, 64); err != nil {
			return "'" + cell
		}
	}
	return cell
}
