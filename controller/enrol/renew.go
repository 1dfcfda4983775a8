package enrol

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// movedParts is how many parts of a machine may not have changed at once: who
// swaps a disk changes one.
const movedParts = 2

func (d *Desk) serveRenewal(r *http.Request, leaf *x509.Certificate) (said, error) {
	q, err := read(r.Body, enrol.ReadRenewal)
	if err != nil {
		return said{}, err
	}
	return d.renew(r.Context(), leaf, q, remote(r).String())
}

// renewal is a try to renew, checked for its form.
type renewal struct {
	key      string
	ends     time.Time // of the certificate that is shown
	hardware enrol.Hardware
	fence    uint64
	address  string
}

// ruling is what is to be done about one.
type ruling struct {
	code       enrol.Code
	detail     string
	quarantine string // why; "": not
	again      bool   // the pending certificate
	issue      bool
}

// rule judges a renewal by what is known. It is pure.
func rule(q renewal, f store.RenewFacts, now time.Time, grace time.Duration) ruling {
	switch {
	case f.Member.State == store.StateRevoked:
		return ruling{code: enrol.Revoked, detail: "This box was revoked: " + f.Member.Why}
	case f.Member.State == store.StateRetired:
		return ruling{code: enrol.Retired, detail: "This box was retired: " + f.Member.Why}
	case f.Cert.State == store.CertDead:
		return ruling{code: enrol.IdentityFork, detail: "This certificate was withdrawn; another machine has taken this place, or a person decided so. Enrol anew."}
	case f.Cert.State == store.CertSuperseded:
		return ruling{code: enrol.IdentityFork, detail: "This certificate was replaced already: this disk is a copy, or an old backup. A person must decide which machine is the box.",
			quarantine: fmt.Sprintf("certificate %s, which was replaced, asks from %s for a new one: its disk was copied or put back", f.Cert.Serial, q.address)}
	case now.After(q.ends.Add(grace)):
		return ruling{code: enrol.Denied, detail: fmt.Sprintf("This certificate ended %s ago; enrol anew.", ago(now.Sub(q.ends)))}
	}
	out := ruling{code: enrol.Issued, issue: true}
	if p := f.Pending; p != nil && p.Key == q.key {
		out.issue, out.again = false, true
	}
	out.quarantine = otherMachine(f, q.hardware, q.address)
	if q.fence != 0 && q.fence < f.Member.Fence {
		out.quarantine = fmt.Sprintf("start %d of the agent, asked from %s, comes after start %d: its disk was copied or put back", q.fence, q.address, f.Member.Fence)
	}
	return out
}

// otherMachine says that a box is no longer the machine that it was; "": it is.
func otherMachine(f store.RenewFacts, is enrol.Hardware, address string) string {
	what := moved(f.Member.Hardware, is)
	if len(what) < movedParts {
		return ""
	}
	before := f.Cert.Address
	if before == "" {
		before = "an address that is not known"
	}
	return fmt.Sprintf("the machine at %s is another one than that which first used its certificate, from %s: its %s changed", address, before, strings.Join(what, ", "))
}

// renew gives a box its next certificate.
func (d *Desk) renew(ctx context.Context, leaf *x509.Certificate, q enrol.Renewal, address string) (said, error) {
	csr, keys, err := publicOf(q.CSR)
	switch {
	case errors.Is(err, errKey):
		return d.answer(enrol.BadKeyType, "The key must be ECDSA P-256."), nil
	case err != nil:
		return d.answer(enrol.BadCSR, err.Error()), nil
	}
	id, err := identity.ParseID(leaf.Subject.CommonName)
	if err != nil {
		return said{}, err
	}
	serial := SerialOf(leaf)
	if a, refused, err := d.standing(ctx, id, serial, address); err != nil || refused {
		return a, err
	}
	_, site, err := d.opts.Store.Place(ctx, id)
	if err != nil {
		return said{}, err
	}
	asked := renewal{key: enrol.KeyID(csr.RawSubjectPublicKeyInfo), ends: leaf.NotAfter, hardware: q.Hardware, fence: q.Fence, address: address}
	var out ruling
	var cert store.Cert
	err = d.opts.Store.Renew(ctx, id, serial, func(f store.RenewFacts) (store.RenewDecision, error) {
		out, cert = rule(asked, f, d.opts.WallClock(), d.opts.Grace), store.Cert{}
		dec := store.RenewDecision{Quarantine: out.quarantine}
		if out.code != enrol.Issued {
			return dec, nil
		}
		if out.quarantine == "" {
			if m, changed := d.learned(f.Member, q); changed {
				dec.Member = &m
			}
		}
		if out.again {
			cert = *f.Pending
			return dec, nil
		}
		var err error
		cert, err = d.certify(id, site, keys, asked.key)
		dec.Issue = &cert
		return dec, err
	})
	if err != nil {
		return said{}, err
	}
	if out.quarantine != "" {
		d.log.Error("box quarantined", "device", id, "cause", out.quarantine)
		d.opts.Changed(id)
	}
	a := d.answer(out.code, out.detail)
	a.DeviceID, a.again = id, out.again
	if out.code == enrol.Issued {
		d.log.Info("certificate renewed", "device", id, "again", out.again)
		a.Member, err = d.member(ctx, id, cert.PEM)
	}
	return a, err
}

// learned is what a renewal tells of the machine. One part that changed is a
// repair; fences only grow.
func (d *Desk) learned(m store.Membership, q enrol.Renewal) (store.Membership, bool) {
	h := q.Hardware
	same := plain(h.DiskSerial) == plain(m.Hardware.DiskSerial) && plain(h.BoardSerial) == plain(m.Hardware.BoardSerial) &&
		plain(h.DMIUUID) == plain(m.Hardware.DMIUUID) && plain(h.DTSerial) == plain(m.Hardware.DTSerial) && strings.Join(h.MACs, " ") == strings.Join(m.Hardware.MACs, " ")
	if same && q.Fence <= m.Fence {
		return m, false
	}
	if m.Since.IsZero() {
		m.Since = d.opts.WallClock()
	}
	m.Hardware, m.Fence = h, max(m.Fence, q.Fence)
	return m, true
}

// standing notes the contact, and answers boxes that get nothing.
func (d *Desk) standing(ctx context.Context, id identity.ID, serial, address string) (a said, refused bool, err error) {
	m, changed, err := d.opts.Store.Contact(ctx, id, serial, address)
	if changed {
		d.opts.Changed(id)
	}
	if err == nil {
		return a, false, nil
	}
	if !errors.Is(err, store.ErrRefused) {
		return a, false, err
	}
	a = d.answer(enrol.Revoked, "This box is not known here any more. Enrol it anew.")
	a.DeviceID = id
	switch {
	case m.State == store.StateRetired:
		a.Code, a.Detail = enrol.Retired, "This box was retired: "+m.Why
	case m.State == store.StateRevoked:
		a.Detail = "This box was revoked: " + m.Why
	case m.State != "":
		a.Code, a.Detail = enrol.IdentityFork, "This certificate was withdrawn; another machine has taken this place, or a person decided so. Enrol anew."
	}
	return a, true, nil
}

// serveState tells a box how it stands, when it has told which machine it is.
func (d *Desk) serveState(r *http.Request, leaf *x509.Certificate) (said, error) {
	q, err := read(r.Body, enrol.ReadRenewal)
	if err != nil {
		return said{}, err
	}
	id, err := identity.ParseID(leaf.Subject.CommonName)
	if err != nil {
		return said{}, err
	}
	address := remote(r).String()
	if a, refused, err := d.standing(r.Context(), id, SerialOf(leaf), address); err != nil || refused {
		return a, err
	}
	m, err := d.look(r.Context(), id, SerialOf(leaf), q, address)
	if err != nil {
		return said{}, err
	}
	a := d.answer(enrol.Active, "")
	if m.State == store.StateQuarantined {
		a = d.answer(enrol.Quarantined, "This box is in quarantine: "+m.Why)
	}
	a.DeviceID = id
	return a, nil
}

// look compares the machine with the one that is known: one that has the disk of
// another tells so at its first contact. Starts are not compared here: a question
// that a box asked before it was started again may come late.
func (d *Desk) look(ctx context.Context, id identity.ID, serial string, q enrol.Renewal, address string) (store.Membership, error) {
	q.Fence = 0
	m, err := d.opts.Store.Membership(ctx, id)
	if err != nil || m.State == store.StateQuarantined {
		return m, err
	}
	if _, changed := d.learned(m, q); !changed {
		return m, nil
	}
	why := ""
	err = d.opts.Store.Renew(ctx, id, serial, func(f store.RenewFacts) (store.RenewDecision, error) {
		if why = otherMachine(f, q.Hardware, address); why != "" {
			return store.RenewDecision{Quarantine: why}, nil
		}
		is, _ := d.learned(f.Member, q)
		return store.RenewDecision{Member: &is}, nil
	})
	if err != nil {
		return m, err
	}
	if why != "" {
		d.log.Error("box quarantined", "device", id, "cause", why)
		d.opts.Changed(id)
	}
	return d.opts.Store.Membership(ctx, id)
}

// serveReceipt takes the last word of a retired box.
func (d *Desk) serveReceipt(r *http.Request, leaf *x509.Certificate) (said, error) {
	var body []byte
	receipt, err := read(r.Body, func(from io.Reader) (enrol.Receipt, error) {
		var err error
		if body, err = io.ReadAll(from); err != nil {
			return enrol.Receipt{}, err
		}
		return enrol.OpenReceipt(body, leaf.PublicKey)
	})
	if err != nil {
		return said{}, err
	}
	id := identity.ID(leaf.Subject.CommonName)
	if receipt.DeviceID != id {
		return said{}, &badRequest{fmt.Errorf("the receipt is of %s", receipt.DeviceID)}
	}
	_, err = d.opts.Store.ChangeStanding(r.Context(), store.Change{Box: id, From: []store.State{store.StateRetired}, To: store.StateRetired, Body: body,
		Why: fmt.Sprintf("wiped itself: %s; %d blocks of telemetry were not delivered", strings.Join(receipt.Wiped, ", "), receipt.Lost), By: "box"})
	if errors.Is(err, store.ErrState) || errors.Is(err, store.ErrNotFound) {
		return said{}, &badRequest{err}
	}
	if err != nil {
		return said{}, err
	}
	d.log.Info("retired box has wiped itself", "device", id, "wiped", receipt.Wiped, "lost", receipt.Lost)
	a := d.answer(enrol.Received, "")
	a.DeviceID = id
	return a, nil
}
