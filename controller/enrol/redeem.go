package enrol

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/mod/semver"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// pollSeconds is how soon a machine that waits for a person asks again.
const pollSeconds = 10

// origin is from where a request came, and who stands behind it.
type origin struct {
	address string
	file    bool
	agreed  string // the person who signs a file, which is an approval
}

// redeem is the whole of enrolment but for how a request travels.
func (d *Desk) redeem(ctx context.Context, q enrol.Request, secretHash [32]byte, from origin) (said, error) {
	csr, keys, err := publicOf(q.CSR)
	switch {
	case errors.Is(err, errKey):
		return d.answer(enrol.BadKeyType, "The key must be ECDSA P-256."), nil
	case err != nil:
		return d.answer(enrol.BadCSR, err.Error()), nil
	case d.tooOld(q.Agent.Version):
		a := d.answer(enrol.AgentTooOld, fmt.Sprintf("Agent %s is too old to enrol here; %s or newer is needed.", q.Agent.Version, d.opts.MinAgent))
		a.MinAgent = d.opts.MinAgent
		return a, nil
	}
	spki := csr.RawSubjectPublicKeyInfo
	a := attempt{key: enrol.KeyID(spki), secretHash: secretHash, hasTPM: q.TPM != nil && !from.file, agreed: from.agreed, asked: store.EnrolAsked{
		Hardware: q.Hardware, Agent: q.Agent, NameHint: q.NameHint, Address: from.address, File: from.file,
		ShortCode: enrol.ShortCode(spki), Asked: d.opts.WallClock().UTC(),
	}}
	var chip *chip
	if q.TPM != nil {
		if chip, err = readChip(*q.TPM, keys.Sign); err != nil {
			return d.answer(enrol.BadTPM, err.Error()), nil
		}
		a.asked.TPM, a.asked.Public = chip.id, spki
		if keys.Seal != nil {
			a.asked.Sealing = keys.Seal.Bytes()
		}
	}
	return d.settle(ctx, q.TokenID, a, chip, keys)
}

// settle has an attempt judged with the facts of the database, and carries it
// out in the same transaction.
func (d *Desk) settle(ctx context.Context, token string, a attempt, chip *chip, keys identity.Keys) (out said, err error) {
	marks := marksOf(a.asked.Hardware, "")
	if a.asked.TPM != "" {
		marks = append(marks, "tpm:"+a.asked.TPM)
	}
	var v verdict
	var issued store.Cert
	err = d.opts.Store.Enrol(ctx, a.key, token, marks, func(f store.EnrolFacts) (store.EnrolDecision, error) {
		out, issued = d.answer("", ""), store.Cert{}
		mine := a
		if was := f.Request; was != nil && was.Token == token {
			mine.asked.Asked, mine.asked.Serial = was.Asked, was.Serial
			mine.asked.Proved = was.Proved && was.TPM == a.asked.TPM
			mine.asked.By = was.By
			if was.State == store.EnrolApproved {
				mine.asked.NameHint, mine.asked.Place = was.NameHint, was.Place // whoever agreed may have said
			}
		}
		v = decide(mine, f, d.opts.WallClock())
		dec := store.EnrolDecision{Take: v.take, Refuse: v.refuse}
		if v.state == "" || f.Request != nil && f.Request.State == store.EnrolIssued && !v.issue {
			if f.Cert != nil {
				issued = *f.Cert
			}
			return dec, nil
		}
		dec.Request = &store.EnrolRequest{Key: a.key, Token: token, State: v.state, EnrolAsked: mine.asked}
		if v.code == enrol.TPMChallenge {
			return dec, d.challenge(chip, dec.Request, &out.Answer)
		}
		if v.issue {
			if dec.Issue, err = d.issue(f, v, mine, keys, marks); err != nil {
				return dec, err
			}
			issued = dec.Issue.Cert
			dec.Request.Box, dec.Request.Serial = issued.Box, issued.Serial
			if mine.agreed != "" {
				dec.Request.By = mine.agreed
			}
		}
		return dec, nil
	})
	if err != nil {
		return said{}, err
	}
	out.Code, out.Detail, out.DeviceID = v.code, v.detail, v.device
	return d.finish(ctx, out, v, a, issued)
}

// finish adds what an answer of that code brings.
func (d *Desk) finish(ctx context.Context, out said, v verdict, a attempt, issued store.Cert) (said, error) {
	out.ShortCode = a.asked.ShortCode
	switch v.code {
	case enrol.Pending:
		out.RequestID, out.PollSeconds = a.key, pollSeconds
	case enrol.Issued:
		var err error
		if out.Member, err = d.member(ctx, issued.Box, issued.PEM); err != nil {
			return said{}, err
		}
		out.DeviceID = issued.Box
		out.Detail = fmt.Sprintf("Enrolled as %s (%s).", out.Member.Box.Name, out.Member.Box.Site)
		out.again = !v.issue
		if v.issue {
			d.log.Info("box enrolled", "device", issued.Box, "name", out.Member.Box.Name, "site", out.Member.Box.Site, "remote", a.asked.Address, "replaced", v.place != "")
			d.opts.Changed(issued.Box)
		}
	case enrol.TPMChallenge:
	default:
		d.log.Warn("enrolment refused", "code", v.code, "remote", a.asked.Address, "board", a.asked.Hardware.BoardSerial)
	}
	return out, nil
}

// issue chooses id and name, and makes the certificate.
func (d *Desk) issue(f store.EnrolFacts, v verdict, a attempt, keys identity.Keys, marks []string) (*store.EnrolIssue, error) {
	i := store.EnrolIssue{Marks: marks}
	id, site := identity.NewID(), f.Token.Site
	i.Member = store.Membership{State: store.StateEnrolled, Since: d.opts.WallClock(), By: "token " + f.Token.ID, Generation: 1, Labels: f.Token.Labels, Hardware: a.asked.Hardware}
	i.Member.Why = "enrolled from " + a.asked.Address
	if v.place != "" {
		id = v.place
		i.Member.Why = "a machine took this place, from " + a.asked.Address
		if was := f.Place; was != nil && was.Box == id {
			i.Member.Generation, i.Member.Labels = was.Generation+1, was.Labels
		}
	} else {
		var err error
		if i.Name, err = freeName(f, a.asked.NameHint, id); err != nil {
			return nil, err
		}
		i.Site = site
	}
	i.Member.Box = id
	var err error
	i.Cert, err = d.certify(id, site, keys, a.key)
	return &i, err
}

func freeName(f store.EnrolFacts, hint string, id identity.ID) (string, error) {
	if name := boxName(hint); name != "" {
		taken, err := f.Names(name)
		if err != nil || !taken {
			return name, err
		}
	}
	return "box-" + string(id)[2:8], nil // 30 random bits; the database refuses what is there
}

// tooOld compares versions; one that is none, as of a build by hand, is let in.
func (d *Desk) tooOld(version string) bool {
	have, want := "v"+version, "v"+d.opts.MinAgent
	return d.opts.MinAgent != "" && semver.IsValid(have) && semver.Compare(have, want) < 0
}
