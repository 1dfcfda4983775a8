package api

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/controller/authz"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/trust"
)

func (a *API) registerAudit() {
	route(a, get("/audit", "listAudit", "Who did what, newest first; a tech sees what it did itself", "people"), a.listAudit)
	route(a, get("/audit:verify", "verifyAudit", "Walk through the whole audit log", "people"), a.verifyAudit)
	export := get("/audit:export", "exportAudit", "The lines of the audit log, oldest first; the hash of each is the SHA-256 of the line without its end", "people")
	number := func(name string) *huma.Param {
		return &huma.Param{Name: name, In: "query", Schema: &huma.Schema{Type: huma.TypeInteger}}
	}
	export.Parameters = []*huma.Param{number("after"), number("limit")}
	a.describe(export, http.StatusOK, map[string]*huma.MediaType{"application/x-ndjson": {Schema: &huma.Schema{Type: huma.TypeString}}})
	a.routes.HandleFunc("GET /api/v1/audit:export", a.exportAudit)
}

type listAuditInput struct {
	Actor  string `query:"actor" maxLength:"256"`
	Before int64  `query:"before" minimum:"0" doc:"next of the page before"`
	Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
}

func (a *API) listAudit(ctx context.Context, in *listAuditInput) (fleetapi.AuditList, error) {
	list := fleetapi.AuditList{Items: []fleetapi.AuditRecord{}}
	q := store.AuditQuery{Actor: in.Actor, Before: in.Before, Limit: in.Limit}
	if c := who(ctx); authz.Allow(c.Subject, authz.AuditAll, authz.Fleet()) != nil {
		if in.Actor != "" && in.Actor != c.Name {
			return list, nil
		}
		q.Actor = c.Name
	}
	lines, err := a.opts.Store.AuditNewest(ctx, q)
	if err != nil {
		return list, err
	}
	for _, line := range lines {
		r, err := audit.Parse(line)
		if err != nil {
			// A record that cannot be read is shown as that: verify names it.
			list.Items = append(list.Items, fleetapi.AuditRecord{Verb: "unreadable", Note: err.Error()})
			continue
		}
		list.Items = append(list.Items, fleetapi.AuditRecord{
			Seq: r.Seq, Time: r.Time, Actor: r.Actor, Role: r.Role, Source: r.Source, Verb: r.Verb, Object: r.Object, Before: r.Before, After: r.After, Note: r.Note,
		})
		list.Next = r.Seq
	}
	if len(lines) < in.Limit || list.Next == 1 {
		list.Next = 0
	}
	return list, nil
}

func (a *API) verifyAudit(ctx context.Context, _ *nothing) (fleetapi.AuditState, error) {
	var v audit.Verifier
	out := fleetapi.AuditState{}
	seals, err := a.opts.Store.Seals(ctx)
	if err != nil {
		return out, err
	}
	heads := map[int64]string{}
	for _, s := range seals {
		payload, err := a.opts.Keyring.Open(trust.TypeAudit, s.Envelope)
		if err != nil {
			out.Broken, out.BrokenSeq = "the seal of this record is not signed by this controller", s.Seq
			return out, nil
		}
		h, err := audit.ParseSeal(payload)
		if err != nil || h.Seq != s.Seq {
			out.Broken, out.BrokenSeq = "the seal of this record cannot be read", s.Seq
			return out, nil
		}
		heads[h.Seq] = h.Hash
		at := s.Time.UTC()
		out.Seals, out.Sealed, out.Seal = out.Seals+1, &at, s.Envelope
	}
	seen, err := a.witnessed(ctx, &out)
	if err != nil {
		return out, err
	}
	head, err := a.opts.Store.AuditLines(ctx, 0, 0, func(line []byte) error {
		if err := v.Add(line); err != nil {
			return err
		}
		seen.compare(v.Passed())
		if want, sealed := heads[v.Passed().Seq]; sealed && want != v.Passed().Hash {
			return &audit.Broken{Seq: v.Passed().Seq, Why: "it was changed: the controller had signed another hash"}
		}
		return nil
	})
	if err == nil {
		err = v.End(head)
	}
	for seq := range heads {
		if err == nil && seq > head.Seq {
			err = &audit.Broken{Seq: head.Seq + 1, Why: "it is missing: the controller had signed record " + strconv.FormatInt(seq, 10)}
		}
	}
	out.Records, out.Head = v.Passed().Seq, v.Passed().Hash
	var b *audit.Broken
	if errors.As(err, &b) {
		out.Broken, out.BrokenSeq = b.Why, b.Seq
		if v.Passed().Seq < head.Seq { // what comes after it was not looked at
			maps.DeleteFunc(seen, func(seq int64, _ []store.Witness) bool { return seq > v.Passed().Seq })
		}
		err = nil
	}
	seen.judge(v.Passed(), &out)
	return out, err
}

// witnesses are heads that boxes have seen, by number; those that fit are taken
// out as the log passes by.
type witnesses map[int64][]store.Witness

func (a *API) witnessed(ctx context.Context, out *fleetapi.AuditState) (witnesses, error) {
	rows, err := a.opts.Store.Witnesses(ctx)
	seen, boxes := witnesses{}, map[identity.ID]bool{}
	for _, w := range rows {
		seen[w.Seq] = append(seen[w.Seq], w)
		boxes[w.Box] = true
		out.Witnessed = max(out.Witnessed, w.Seq)
	}
	out.Witnesses = len(boxes)
	return seen, err
}

func (s witnesses) compare(h audit.Head) {
	if left := slices.DeleteFunc(s[h.Seq], func(w store.Witness) bool { return w.Hash == h.Hash }); len(left) == 0 {
		delete(s, h.Seq)
	} else {
		s[h.Seq] = left
	}
}

// maxContradicted is how many are told; one is enough to know.
const maxContradicted = 100

// judge tells what is left: it contradicts the log.
func (s witnesses) judge(end audit.Head, out *fleetapi.AuditState) {
	for _, seq := range slices.Sorted(maps.Keys(s)) {
		for _, w := range s[seq] {
			if len(out.Contradicted) == maxContradicted {
				return
			}
			out.Contradicted = append(out.Contradicted, fleetapi.AuditWitness{Box: w.Box, Name: w.Name, Seq: w.Seq, Hash: w.Hash, Told: w.Told.UTC()})
			if out.Broken == "" {
				out.Broken, out.BrokenSeq = "it was rewritten: box "+w.Name+" has seen it with another hash", seq
				if seq > end.Seq {
					out.Broken = "it is missing: the log was cut, and box " + w.Name + " has seen it"
				}
			}
		}
	}
}

// exportAudit writes the lines as they are stored.
func (a *API) exportAudit(w http.ResponseWriter, r *http.Request) {
	var after, limit int64
	for name, into := range map[string]*int64{"after": &after, "limit": &limit} {
		if text := r.URL.Query().Get(name); text != "" {
			n, err := strconv.ParseInt(text, 10, 32)
			if err != nil || n < 0 {
				a.fail(w, r, badRequest("", "%s=%s is not a number", name, text))
				return
			}
			*into = n
		}
	}
	if after > 0 {
		audit.Of(r.Context()).Drop() // the first part was recorded
	}
	var page bytes.Buffer
	if _, err := a.opts.Store.AuditLines(r.Context(), after, int(limit), func(line []byte) error {
		page.Write(line)
		return page.WriteByte('\n')
	}); err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	w.Write(page.Bytes())
}
