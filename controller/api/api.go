// Package api is the controller's door for people and for the files of boxes:
// the HTTP API under /api/v1, the pages of the dashboard, the login, and the
// blobs that boxes download.
//
// Vocabulary: a route is a method with a path; the table access says what one
// must be allowed to do there (package authz) and where its site is found, and
// what is not in the table is refused. Lists hold what the caller's sites have,
// and what is of another site is not found. A problem is an error as RFC 9457 writes it, with a hint.
//
// The types are those of internal/fleetapi; web/openapi.json is written from
// the routes registered here.
//
// The one rule a caller can break: serve Device behind the boxes' TLS and
// Operator behind the operators'; neither checks what the other must.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/edgeherd/edgeherd/controller/config"
	"github.com/edgeherd/edgeherd/controller/deliver"
	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/notify"
	"github.com/edgeherd/edgeherd/controller/people"
	"github.com/edgeherd/edgeherd/controller/secrets"
	"github.com/edgeherd/edgeherd/controller/store"
	keeper "github.com/edgeherd/edgeherd/controller/trust"
	"github.com/edgeherd/edgeherd/controller/upkeep"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// maxJSONBytes bounds the body of every request but the upload of a blob.
const maxJSONBytes = 1 << 20

// Options of an API. Store and Blobs are required.
type Options struct {
	Store *store.Store
	Blobs *blob.Store
	// FreeBytes says how much may still be written to the disk of a directory; nil means
	// what the system says.
	FreeBytes func(dir string) (int64, error)
	// Keyring says whose models and releases are accepted; empty accepts none.
	Keyring trust.Keyring
	// Trust has the fleet's metadata and says who signs what, in the place of
	// Keyring; nil: there is none.
	Trust *keeper.Keeper
	// Hub carries changes to browsers; nil means one that nobody publishes to.
	Hub *Hub
	// Wake tells the conductor that a person changed something; nil means nobody.
	Wake func()
	// SitesChanged tells that a person changed settings of sites; nil means nobody.
	SitesChanged func()
	// Faults has what was counted of boxes and is not stored yet; nil: nothing.
	Faults *fault.Book
	// Trouble is why the database takes no messages, nil when it does; nil means
	// that nobody knows.
	Trouble func() error
	// Metrics answers scrapers at /metrics; nil means that there are none.
	Metrics http.Handler
	// SamplesFor is how long exact samples are kept; 0 is for ever. What is older
	// is charted by hourly values.
	SamplesFor time.Duration
	// Packs makes versions smaller for the lines of sites; nil: nothing does.
	Packs *deliver.Packer
	// Gate says how many boxes download at once; nil: all that want.
	Gate *deliver.Gate
	// URL makes an address at which a box reads a blob without us; nil: there is none.
	URL func(context.Context, blob.Digest) (string, time.Duration, error)
	// Desk is where people act on tickets and visits, Notify tells endpoints of
	// them; nil: there are none.
	Desk   *upkeep.Desk
	Notify *notify.Sender
	// Secrets keeps secrets of boxes.
	Secrets *secrets.Keeper
	// People knows who asks; nil: local users of Store.
	People *people.People
	// Members makes machines boxes; without a Desk nobody does.
	Members Members
	// Settle does what a person chose about a box that follows what this
	// controller has never signed; nil: nobody can choose.
	Settle func(ctx context.Context, id identity.ID, choice string) error
	// Acceptances of boxes; zero: none are taken and none can be asked for.
	Acceptances Acceptances
	// Version of the program, for pages.
	Version string
	// WallClock stamps rows and tokens; nil means time.Now.
	WallClock func() time.Time
	// SecureCookies says that pages are served over TLS; default false.
	SecureCookies bool
}

// API answers people and boxes. Safe for concurrent use.
type API struct {
	opts     Options
	log      *slog.Logger
	routes   *router
	huma     huma.API
	running  inFlight
	room     room
	drifts   driftLines
	ledger   config.Ledger
	deciding sync.Mutex // held while an action on a rollout is checked and done
	operator http.Handler
}

// The framework keeps these two settings for the whole process. They are set
// here and nowhere else, before any route is registered: arrays are never null
// in our answers, and every error has our form.
func init() {
	huma.DefaultArrayNullable = false
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		p := fleetapi.Problem(status, msg, "")
		for _, err := range errs {
			var d huma.ErrorDetailer
			switch {
			case err == nil:
			case errors.As(err, &d):
				p.Errors = append(p.Errors, fleetapi.Fault{Location: d.ErrorDetail().Location, Message: d.ErrorDetail().Message})
			default:
				p.Errors = append(p.Errors, fleetapi.Fault{Message: err.Error()})
			}
		}
		// Of a fault of our own nobody knows how far it came.
		if len(p.Errors) > 0 && status < http.StatusInternalServerError {
			p.Hint = "Correct that and try again; nothing was changed."
		}
		return p
	}
}

// New registers all routes.
func New(opts Options, log *slog.Logger) (*API, error) {
	if opts.Store == nil || opts.Blobs == nil {
		return nil, errors.New("api: Store and Blobs are required")
	}
	a := build(opts, log)
	return a, nil
}

func build(opts Options, log *slog.Logger) *API {
	if opts.Hub == nil {
		opts.Hub = NewHub()
	}
	if opts.Wake == nil {
		opts.Wake = func() {}
	}
	if opts.SitesChanged == nil {
		opts.SitesChanged = func() {}
	}
	if opts.Trouble == nil {
		opts.Trouble = func() error { return nil }
	}
	if opts.Metrics == nil {
		opts.Metrics = http.NotFoundHandler()
	}
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if opts.FreeBytes == nil {
		opts.FreeBytes = freeBytes
	}
	if opts.Desk == nil {
		opts.Desk = upkeep.New(upkeep.Options{Store: opts.Store, Changed: opts.Hub.Publish, WallClock: opts.WallClock}, log)
	}
	if opts.Notify == nil {
		opts.Notify, _ = notify.New(notify.Options{Store: opts.Store, WallClock: opts.WallClock}, log) // no endpoint that could be wrong
	}
	if opts.People == nil {
		opts.People = people.New(people.Options{Store: opts.Store, WallClock: opts.WallClock}, log)
	}
	a := &API{opts: opts, log: log}
	a.routes = &router{mux: http.NewServeMux(), guard: a.guard}
	config := huma.Config{
		OpenAPI: &huma.OpenAPI{
			OpenAPI: "3.1.0",
			Info:    &huma.Info{Title: "edgeherd", Version: "1", Description: "Fleet manager for inference boxes at branch sites."},
			Components: &huma.Components{
				Schemas: huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer),
				SecuritySchemes: map[string]*huma.SecurityScheme{
					"token":   {Type: "http", Scheme: "bearer"},
					"session": {Type: "apiKey", In: "cookie", Name: a.cookieName()},
				},
			},
			Security: []map[string][]string{{"token": {}}, {"session": {}}},
		},
		Formats:                      map[string]huma.Format{"application/json": huma.DefaultJSONFormat, "json": huma.DefaultJSONFormat},
		DefaultFormat:                "application/json",
		RejectUnknownQueryParameters: true,
	}
	a.huma = humago.New(a.routes, config)
	a.registerBoxes()
	a.registerArtefacts()
	a.registerRollouts()
	a.registerSites()
	a.registerSecrets()
	a.registerConfig()
	a.registerTickets()
	a.registerVisits()
	a.registerCare()
	a.registerEnrol()
	a.registerAccept()
	a.registerClaims()
	a.registerPeople()
	a.registerTrust()
	a.registerPlain()
	a.operator = secure(crossOrigin(onlyJSON(a.routes)))
	return a
}

// Operator serves pages, API and login.
func (a *API) Operator() http.Handler { return a.operator }

// OpenAPI returns the specification of the API as indented JSON. The same
// program always returns the same bytes.
func OpenAPI() ([]byte, error) {
	a := build(Options{SecureCookies: true}, slog.New(slog.DiscardHandler))
	data, err := json.MarshalIndent(a.huma.OpenAPI(), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode API specification: %w", err)
	}
	return append(data, '\n'), nil
}

// secure sets the headers that bind what a browser may do with our pages.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// onlyJSON refuses bodies that a form of another page could send.
func onlyJSON(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if r.ContentLength != 0 && r.Method != http.MethodPut && kind != "application/json" {
			writeProblem(w, fleetapi.Problem(http.StatusUnsupportedMediaType, "the body is not application/json", "Send the header Content-Type: application/json."))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// crossOrigin refuses requests that a page of another site makes a browser
// send with our cookie.
func crossOrigin(next http.Handler) http.Handler {
	p := http.NewCrossOriginProtection()
	p.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, fleetapi.Problem(http.StatusForbidden, "the request comes from a page of another site", "Open the dashboard under its own address."))
	}))
	return p.Handler(next)
}
