package accept

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"strings"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

//go:embed page.html
var pageText string

// The drawing of a panel in units of its viewBox.
const (
	svgWidth, svgHeight = 720.0, 150.0
	svgLeft, svgTop     = 56.0, 16.0
	svgRight, svgBottom = 12.0, 22.0
)

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"x": func(at float64) string { return fmt.Sprintf("%.1f", svgLeft+at*(svgWidth-svgLeft-svgRight)) },
	"y": func(at float64) string { return fmt.Sprintf("%.1f", svgTop+at*(svgHeight-svgTop-svgBottom)) },
	"points": func(part []place) string {
		var b strings.Builder
		for _, p := range part {
			fmt.Fprintf(&b, "%.1f,%.1f ", svgLeft+p.X*(svgWidth-svgLeft-svgRight), svgTop+p.Y*(svgHeight-svgTop-svgBottom))
		}
		return strings.TrimSpace(b.String())
	},
}).Parse(pageText))

// HTML writes a report as one page that needs no other file.
func HTML(a fleetapi.AcceptanceReport, lang string) ([]byte, error) {
	d, err := inLanguage(lang)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := page.Execute(&out, d.view(a)); err != nil {
		return nil, fmt.Errorf("write acceptance report: %w", err)
	}
	return out.Bytes(), nil
}

func inLanguage(lang string) (dictionary, error) {
	all, err := read()
	if err != nil {
		return dictionary{}, err
	}
	d, ok := all[lang]
	if !ok {
		return dictionary{}, fmt.Errorf("acceptance report: there is no language %q", lang)
	}
	return d, nil
}
