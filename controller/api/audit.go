package api

import (
	"bufio"
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"strings"

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
	out := fleetapi.AuditState{}
	seals, err := a.opts.Store.Seals(ctx)
	if err != nil {
		return out, err
	}
	rows, err := a.opts.Store.Witnesses(ctx)
	if err != nil {
		return out, err
	}
	hashes := map[int64]string{} // of the records that others know of
	for _, s := range seals {
		hashes[s.Seq] = ""
	}
	for _, w := range rows {
		hashes[w.Seq] = ""
	}
	var v audit.Verifier
	head, err := a.opts.Store.AuditLines(ctx, 0, 0, func(line []byte) error {
		if err := v.Add(line); err != nil {
			return err
		}
		if at := v.Passed(); hashes[at.Seq] == "" {
			if _, known := hashes[at.Seq]; known {
				hashes[at.Seq] = at.Hash
			}
		}
		return nil
	})
	if err == nil {
		err = v.End(head)
	}
	var broken *audit.Broken
	if err != nil && !errors.As(err, &broken) {
		return out, err
	}
	out.Records, out.Head = v.Passed().Seq, v.Passed().Hash
	j := judging{out: &out, v: &v, hashes: hashes, ring: a.auditKeys(v.Past()), broken: broken}
	if broken != nil && v.Passed().Seq < head.Seq {
		j.seen = v.Passed().Seq // what comes after it was not looked at
	}
	j.seals(seals)
	j.boxes(rows)
	if j.broken != nil {
		out.Broken, out.BrokenSeq = j.broken.Why, j.broken.Seq
	}
	return out, nil
}

// auditKeys are those that may have signed heads: the present one, and those
// that the log itself says came before.
func (a *API) auditKeys(past *audit.Past) trust.Keyring {
	keys := slices.Clone(a.opts.Keyring.Keys[trust.TypeAudit])
	for _, text := range past.Keys {
		var k trust.PublicKey
		if k.UnmarshalText([]byte(text)) == nil {
			keys = append(keys, k)
		}
	}
	return trust.Keyring{Keys: map[string][]trust.PublicKey{trust.TypeAudit: keys}}
}

// judging compares a log that was walked through with what was signed of it and
// what boxes have seen.
type judging struct {
	out    *fleetapi.AuditState
	v      *audit.Verifier
	hashes map[int64]string
	ring   trust.Keyring
	seen   int64         // the last record that was looked at; 0: all were
	broken *audit.Broken // what is wrong first
}

func (j *judging) fault(b audit.Broken) {
	if j.broken == nil || b.Seq < j.broken.Seq {
		j.broken = &b
	}
}

func (j *judging) seals(seals []store.Seal) {
	for _, s := range seals {
		payload, err := j.ring.Open(trust.TypeAudit, s.Envelope)
		if err != nil {
			j.fault(audit.Broken{Seq: s.Seq, Why: "the seal of this record is not signed by this controller, with no key that the log names"})
			return
		}
		h, err := audit.ParseSeal(payload)
		switch {
		case err != nil || h.Seq != s.Seq:
			j.fault(audit.Broken{Seq: s.Seq, Why: "the seal of this record cannot be read"})
			return
		case j.seen > 0 && h.Seq > j.seen:
			return
		case j.hashes[h.Seq] == "":
			j.fault(audit.Broken{Seq: j.v.Passed().Seq + 1, Why: "it is missing: the controller had signed record " + strconv.FormatInt(h.Seq, 10)})
			return
		case j.hashes[h.Seq] != h.Hash:
			j.fault(audit.Broken{Seq: h.Seq, Why: "it was changed: the controller had signed another hash"})
			return
		}
		at := s.Time.UTC()
		j.out.Seals, j.out.Sealed, j.out.Seal = j.out.Seals+1, &at, s.Envelope
	}
}

// maxContradicted is how many are told; one is enough to know.
const maxContradicted = 100

func (j *judging) boxes(rows []store.Witness) {
	for _, r := range j.v.Past().Restores {
		j.out.Restores = append(j.out.Restores, fleetapi.AuditRestore{Seq: r.Seq, Time: r.Time, Note: r.Note})
	}
	boxes, proofs := map[identity.ID]bool{}, map[string]error{}
	for _, w := range rows {
		if j.seen > 0 && w.Seq > j.seen {
			break // by number
		}
		// Most boxes were shown the same: each proof is looked at once.
		key := strings.Join([]string{strconv.FormatInt(w.Seq, 10), w.Hash, w.Signed.String(), string(w.Proof.Key), string(w.Proof.Sig)}, " ")
		proved, known := proofs[key]
		if !known {
			proved = j.prove(w)
			proofs[key] = proved
		}
		told := fleetapi.AuditWitness{Box: w.Box, Name: w.Name, Seq: w.Seq, Hash: w.Hash, Told: w.Told.UTC()}
		fits := j.hashes[w.Seq] == w.Hash
		switch {
		case fits && proved == nil:
			boxes[w.Box] = true
			j.out.Witnessed = max(j.out.Witnessed, w.Seq)
		case errors.Is(proved, trust.ErrUnknownKey):
			if !fits {
				tell(&j.out.Unjudged, told)
			}
		case proved != nil:
			tell(&j.out.Forged, told)
		default:
			j.contradicts(w, told)
		}
	}
	j.out.Witnesses = len(boxes)
}

func (j *judging) contradicts(w store.Witness, told fleetapi.AuditWitness) {
	s := audit.Seen{Head: w.Head, Signed: w.Signed, By: "box " + w.Name}
	if lost := j.v.Past().Lost(s); lost != nil {
		for i := range j.out.Restores {
			if r := &j.out.Restores[i]; r.Seq == lost.Seq {
				r.Lost = max(r.Lost, w.Seq)
			}
		}
		return
	}
	tell(&j.out.Contradicted, told)
	j.fault(*j.v.Missing(s))
}

func (j *judging) prove(w store.Witness) error {
	payload, err := w.Head.Seal(w.Signed)
	if err != nil {
		return err
	}
	return j.ring.Check(trust.TypeAudit, payload, w.Proof)
}

func tell(list *[]fleetapi.AuditWitness, w fleetapi.AuditWitness) {
	if len(*list) < maxContradicted {
		*list = append(*list, w)
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
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.Header().Set("Cache-Control", "no-store")
	out := bufio.NewWriterSize(w, 64<<10) // a log of years does not fit into memory
	begun := false
	_, err := a.opts.Store.AuditLines(r.Context(), after, int(limit), func(line []byte) error {
		begun = true
		out.Write(line)
		return out.WriteByte('\n')
	})
	switch {
	case err != nil && !begun:
		a.fail(w, r, err)
	case err != nil:
		panic(http.ErrAbortHandler) // so that nobody takes a part for the whole
	default:
		out.Flush() // who has gone away reads no error
	}
}
