package api

import (
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strings"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// dist is the built dashboard; only its .keep is there before `make web`.
//
//go:embed all:web/dist
var dist embed.FS

var plain = template.Must(template.New("plain").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
{{if .To}}<meta http-equiv="refresh" content="0; url={{.To}}">{{end}}<title>edgeherd</title>
<h1>{{.Title}}</h1><p>{{.Text}}</p>{{if .Command}}<pre>{{.Command}}</pre>{{else}}<p><a href="/sign-in">/sign-in</a></p>{{end}}</html>
`))

// notice is what such a page says. To is where a browser goes on to at once.
type notice struct{ Title, Text, Command, To string }

// plainPage is a page that needs no build: what is the matter, and the command
// that helps.
func plainPage(w http.ResponseWriter, status int, n notice) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_ = plain.Execute(w, n) // the client went away
}

// turnedAway ends a sign-in that did not come about. Where there is a dashboard,
// its page says so in the language of whoever reads it.
func turnedAway(w http.ResponseWriter, status int, code, title, text string) {
	n := notice{Title: title, Text: text}
	if _, err := fs.Stat(dist, "web/dist/index.html"); err == nil {
		n.To = "/sign-in?refused=" + code
	}
	plainPage(w, status, n)
}

// page serves the dashboard. A path that is no file is a place inside the
// dashboard, which finds its way by itself.
func (a *API) page(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		a.fail(w, r, fleetapi.Problem(http.StatusMethodNotAllowed, "pages are only read", ""))
		return
	}
	root, err := fs.Sub(dist, "web/dist")
	if err != nil {
		panic("api: the embedded pages are in web/dist: " + err.Error())
	}
	servePage(w, r, root)
}

func servePage(w http.ResponseWriter, r *http.Request, root fs.FS) {
	name := strings.TrimPrefix(path.Clean(r.URL.Path), "/")
	if fi, err := fs.Stat(root, name); err != nil || fi.IsDir() {
		if strings.HasPrefix(name, "assets/") {
			writeProblem(w, fleetapi.Problem(http.StatusNotFound, "there is no file "+name, "Reload the page: the dashboard has been updated."))
			return
		}
		name = "index.html"
		// Labels lead to /T/, since QR codes hold upper case best.
		if first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/"); strings.EqualFold(first, "t") {
			name = "t/index.html"
		}
	}
	if name == "t/sw.js" {
		w.Header().Set("Service-Worker-Allowed", "/") // it is for /t/ and for /T/
	}
	if _, err := fs.Stat(root, name); err != nil {
		plainPage(w, http.StatusOK, notice{Title: "The dashboard has not been built.", Text: "The API works. For the pages, run this in the source tree and build again:", Command: "make web build"})
		return
	}
	if strings.HasPrefix(name, "assets/") {
		// Their names carry a hash of their content.
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	} else {
		w.Header().Set("Cache-Control", "no-cache")
	}
	http.ServeFileFS(w, r, root, name)
}
