package enrol

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// retrySeconds is what a machine is told that asks too often.
const retrySeconds = 5

// Public serves machines that are no members yet, below enrol.PathRequests.
func (d *Desk) Public() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+enrol.PathRequests, d.guarded(d.serveRequest))
	mux.HandleFunc("POST "+enrol.PathChallenge("{id}"), d.guarded(d.serveChallenge))
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		d.write(w, http.StatusNotFound, d.answer(enrol.BadRequest, "There is no such route for enrolment; the agent may be of another version."))
	})
	return mux
}

// guarded bounds how often and how much machines may ask.
func (d *Desk) guarded(next func(*http.Request, netip.Addr) (said, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		from := remote(r)
		if !d.limits.allow(from) {
			a := d.answer(enrol.Busy, "Too many requests at the moment.")
			a.RetrySeconds = retrySeconds
			w.Header().Set("Retry-After", strconv.Itoa(retrySeconds))
			d.write(w, http.StatusTooManyRequests, a)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, enrol.MaxBytes)
		a, err := next(r, from)
		d.reply(w, r, a, err)
	}
}

// reply writes an answer, or what can be told of an error.
func (d *Desk) reply(w http.ResponseWriter, r *http.Request, a said, err error) {
	var malformed *badRequest
	switch {
	case errors.As(err, &malformed):
		a = d.answer(enrol.BadRequest, malformed.Error())
	case err != nil:
		if r.Context().Err() == nil {
			d.log.Error("request of a machine failed", "route", r.Pattern, "err", err)
		}
		a = d.answer(enrol.Busy, "The controller could not do this now; it is tried again.")
		a.RetrySeconds = retrySeconds
		w.Header().Set("Retry-After", strconv.Itoa(retrySeconds))
	}
	status := a.Code.Status()
	if a.again {
		status = http.StatusOK
	}
	d.write(w, status, a)
}

func (d *Desk) write(w http.ResponseWriter, status int, a said) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(a.Answer) // the machine went away
}

// badRequest is an error that whoever asked can do something about.
type badRequest struct{ error }

func read[T any](body io.Reader, f func(io.Reader) (T, error)) (T, error) {
	v, err := f(body)
	if err != nil {
		return v, &badRequest{err}
	}
	return v, nil
}

func (d *Desk) serveRequest(r *http.Request, from netip.Addr) (said, error) {
	q, err := read(r.Body, enrol.ReadRequest)
	if err != nil {
		return said{}, err
	}
	return d.redeem(r.Context(), q, enrol.SecretHash(q.Secret), origin{address: from.String()})
}

func (d *Desk) serveChallenge(r *http.Request, _ netip.Addr) (said, error) {
	q, err := read(r.Body, enrol.ReadChallengeReply)
	if err != nil {
		return said{}, err
	}
	return d.prove(r.Context(), r.PathValue("id"), q.Answer)
}

// prove takes the answer to a challenge, and goes on where the request stood.
func (d *Desk) prove(ctx context.Context, key string, answer []byte) (said, error) {
	row, err := d.opts.Store.ProveEnrol(ctx, key, func(r store.EnrolRequest) bool { return proves(r, answer) })
	if errors.Is(err, store.ErrNotFound) {
		return d.answer(enrol.BadTPM, "The TPM did not find the answer: the key is not in it. Ask again."), nil
	}
	if err != nil {
		return said{}, err
	}
	parsed, err := x509.ParsePKIXPublicKey(row.Public)
	public, ok := parsed.(*ecdsa.PublicKey)
	if err != nil || !ok {
		return said{}, errors.Join(errors.New("the key of a request was not kept"), err)
	}
	keys := identity.Keys{Sign: public}
	if len(row.Sealing) > 0 {
		if keys.Seal, err = identity.ParseSealing(row.Sealing); err != nil {
			return said{}, err
		}
	}
	return d.settle(ctx, row.Token, attempt{key: key, asked: row.EnrolAsked, hasTPM: true, shown: true}, nil, keys)
}

// remote is the address of whoever asks; all that is not TCP shares one.
func remote(r *http.Request) netip.Addr {
	if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		if at, err := netip.ParseAddr(host); err == nil {
			return at.Unmap()
		}
	}
	return netip.IPv4Unspecified()
}

// Device serves boxes that show a certificate, which may have ended.
func (d *Desk) Device() http.Handler {
	mux := http.NewServeMux()
	for pattern, next := range map[string]func(*http.Request, *x509.Certificate) (said, error){
		"POST " + enrol.PathRenew: d.serveRenewal, "POST " + enrol.PathState: d.serveState, "POST " + enrol.PathReceipt: d.serveReceipt,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.TLS == nil {
				d.write(w, http.StatusForbidden, d.answer(enrol.BadRequest, "A certificate is needed here."))
				return
			}
			leaf, err := d.opts.Issuer.Renewing(*r.TLS)
			if err != nil {
				d.write(w, http.StatusForbidden, d.answer(enrol.BadRequest, err.Error()))
				return
			}
			r.Body = http.MaxBytesReader(w, r.Body, enrol.MaxBytes)
			a, err := next(r, leaf)
			d.reply(w, r, a, err)
		})
	}
	return mux
}
