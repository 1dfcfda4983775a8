package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// EnrolToken is a token that machines enrol with, without its secret.
type EnrolToken struct {
	ID       string
	Hash     [32]byte // enrol.SecretHash
	Made     time.Time
	Expires  time.Time
	UsesLeft int
	Refused  int    // uses that were refused
	Off      string // why it is no longer good; "" while it is
	TokenTerms
}

// TokenTerms are what a token was made for; they do not change.
type TokenTerms struct {
	Site     string            `json:"site"`
	Labels   map[string]string `json:"labels,omitempty"`
	Uses     int               `json:"uses"`
	Approve  string            `json:"approve"` // auto, manual, rules
	Rules    TokenRules        `json:"rules"`
	Networks []string          `json:"networks,omitempty"` // CIDR from which it may be used; none: all
	Serial   string            `json:"serial,omitempty"`   // of the only machine that may use it
	Box      identity.ID       `json:"box,omitempty"`      // the machine takes its place
	By       string            `json:"by"`
}

// TokenRules say which machines need nobody's approval.
type TokenRules struct {
	Serials  []string `json:"serials,omitempty"`  // of boards, such as a purchase list
	TPMs     []string `json:"tpms,omitempty"`     // SHA-256 of endorsement keys, hexadecimal
	Networks []string `json:"networks,omitempty"` // CIDR
}

// EnrolState is where a request stands.
type EnrolState string

// The states of a request.
const (
	EnrolChallenge EnrolState = "challenge" // must prove its TPM; holds no use of the token
	EnrolPending   EnrolState = "pending"   // a person must decide; holds a use
	EnrolApproved  EnrolState = "approved"  // issued when it asks again; holds a use
	EnrolDenied    EnrolState = "denied"
	EnrolIssued    EnrolState = "issued"
)

// EnrolRequest is a machine that asked.
type EnrolRequest struct {
	Key     string // enrol.KeyID
	Token   string
	State   EnrolState
	Box     identity.ID // once it is issued
	Changed time.Time
	EnrolAsked
}

// EnrolAsked is what was asked, and what was decided.
type EnrolAsked struct {
	Hardware  enrol.Hardware `json:"hw"`
	Agent     enrol.Agent    `json:"agent"`
	NameHint  string         `json:"name_hint,omitempty"`
	Address   string         `json:"address"`
	ShortCode string         `json:"short_code"`
	TPM       string         `json:"tpm,omitempty"`       // SHA-256 of the endorsement key, hexadecimal
	Challenge []byte         `json:"challenge,omitempty"` // SHA-256 of what only the TPM can tell
	Public    []byte         `json:"public,omitempty"`    // the key, while it is to be proved
	Sealing   []byte         `json:"sealing,omitempty"`   // the key for secrets, as long as Public
	Proved    bool           `json:"proved,omitempty"`    // the key is in that TPM
	By        string         `json:"by,omitempty"`        // who decided
	Place     identity.ID    `json:"place,omitempty"`     // the box in whose place it may come, once it is approved
	Serial    string         `json:"serial,omitempty"`    // of the certificate that was issued
	Asked     time.Time      `json:"asked"`               // for the first time
	File      bool           `json:"file,omitempty"`      // came as a file
}

// EnrolFacts are what a decision about a request stands on. Rows in it are
// locked until the decision is stored.
type EnrolFacts struct {
	Token   *EnrolToken   // nil: there is none of that id
	Request *EnrolRequest // of the same key; nil: its first
	Cert    *Cert         // that was issued for Request
	Holder  identity.ID   // the box that this key belongs to; "": none
	// Known are boxes whose machine bears a serial number or TPM of the request.
	Known []KnownMachine
	Place *Membership   // of WantedPlace
	User  *EnrolRequest // that used the token last; nil: none did
	Names func(name string) (taken bool, err error)
}

// KnownMachine is a box whose machine asks as if it were new.
type KnownMachine struct {
	Box  identity.ID
	Name string
	Site string
}

// WantedPlace is the box in whose place the machine is to come; "": a new one.
func (f EnrolFacts) WantedPlace() identity.ID {
	if f.Token == nil {
		return ""
	}
	if r := f.Request; f.Token.Box == "" && r != nil && r.Token == f.Token.ID && r.State == EnrolApproved {
		return r.Place
	}
	return f.Token.Box
}

// EnrolDecision is what is stored of a decision. Its zero value stores nothing.
type EnrolDecision struct {
	Take, Refuse bool // a use of the token; one that was refused
	Request      *EnrolRequest
	// Issue records a box and its certificate. Name and Site are set for a new
	// box; else the machine takes the place of Issue.Cert.Box.
	Issue *EnrolIssue
}

// EnrolIssue is a new member, or a new machine in the place of one.
type EnrolIssue struct {
	Cert       Cert
	Name, Site string
	Marks      []string
	Member     Membership
}

// refusedEnd is how many refused uses end a token that is good for several.
const refusedEnd = 5

// Enrol loads the facts about a request, has decide judge them, and stores what
// it decided, all at once. decide may be called again.
func (s *Store) Enrol(ctx context.Context, key, token string, marks []string, decide func(EnrolFacts) (EnrolDecision, error)) error {
	return s.write(ctx, func(t *tx) error {
		f, err := s.enrolFacts(ctx, t, key, token, marks)
		if err != nil {
			return fmt.Errorf("look up enrolment: %w", err)
		}
		d, err := decide(f)
		if err != nil {
			return err
		}
		if err := s.storeDecision(ctx, t, f, d); err != nil {
			return fmt.Errorf("store enrolment: %w", err)
		}
		return nil
	})
}

func (s *Store) enrolFacts(ctx context.Context, t *tx, key, token string, marks []string) (f EnrolFacts, err error) {
	// The token first: it puts requests in order.
	if f.Token, err = enrolTokenIn(ctx, t, token); err != nil {
		return f, err
	}
	if f.Request, err = enrolRequestIn(ctx, t, key); err != nil {
		return f, err
	}
	err = t.QueryRow(ctx, `SELECT box FROM device_cert WHERE key = ? LIMIT 1`, key).Scan(&f.Holder)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return f, err
	}
	if f.Request != nil && f.Request.Serial != "" {
		c, err := certIn(ctx, t, f.Request.Box, f.Request.Serial)
		if err != nil {
			return f, err
		}
		f.Cert = &c
	}
	seen := map[identity.ID]bool{}
	for _, m := range marks {
		err := t.each(ctx, `SELECT b.id, b.name, b.site FROM machine_mark m JOIN box b ON b.id = m.box JOIN standing s ON s.box = b.id
			WHERE m.mark = ? AND s.state NOT IN ('revoked', 'retired')`, []any{m}, func(rows *sql.Rows) error {
			var k KnownMachine
			err := rows.Scan(&k.Box, &k.Name, &k.Site)
			if !seen[k.Box] {
				seen[k.Box] = true
				f.Known = append(f.Known, k)
			}
			return err
		})
		if err != nil {
			return f, err
		}
	}
	if box := f.WantedPlace(); box != "" {
		place, err := standingIn(ctx, t, box)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return f, err
		}
		if err == nil {
			f.Place = &place
		}
	}
	if f.Token != nil {
		var users []EnrolRequest
		err := t.each(ctx, enrolRequestColumns+` WHERE token = ? AND state = 'issued' ORDER BY changed_ms DESC LIMIT 1`, []any{token}, scanEnrolRequests(&users))
		if err != nil {
			return f, err
		}
		if len(users) > 0 {
			f.User = &users[0]
		}
	}
	f.Names = func(name string) (taken bool, err error) {
		err = t.QueryRow(ctx, `SELECT count(*) > 0 FROM box WHERE name = ?`, name).Scan(&taken)
		return taken, err
	}
	return f, nil
}

func enrolTokenIn(ctx context.Context, t *tx, id string) (*EnrolToken, error) {
	var list []EnrolToken
	err := t.each(ctx, enrolTokenColumns+` WHERE id = ? FOR UPDATE`, []any{id}, scanEnrolTokens(&list))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

const enrolTokenColumns = `SELECT id, hash, made_ms, expires_ms, uses_left, refused, off, body FROM enrol_token`

func scanEnrolTokens(into *[]EnrolToken) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var k EnrolToken
		var hash []byte
		var made, expires int64
		var body string
		if err := rows.Scan(&k.ID, &hash, &made, &expires, &k.UsesLeft, &k.Refused, &k.Off, &body); err != nil {
			return err
		}
		copy(k.Hash[:], hash)
		k.Made, k.Expires = time.UnixMilli(made), time.UnixMilli(expires)
		if err := json.Unmarshal([]byte(body), &k.TokenTerms); err != nil {
			return fmt.Errorf("terms of token %s: %w", k.ID, err)
		}
		*into = append(*into, k)
		return nil
	}
}

const enrolRequestColumns = `SELECT key, token, state, box, changed_ms, body FROM enrol_request`

func enrolRequestIn(ctx context.Context, t *tx, key string) (*EnrolRequest, error) {
	var list []EnrolRequest
	err := t.each(ctx, enrolRequestColumns+` WHERE key = ? FOR UPDATE`, []any{key}, scanEnrolRequests(&list))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	return &list[0], nil
}

func scanEnrolRequests(into *[]EnrolRequest) func(*sql.Rows) error {
	return func(rows *sql.Rows) error {
		var r EnrolRequest
		var changed int64
		var body string
		if err := rows.Scan(&r.Key, &r.Token, &r.State, &r.Box, &changed, &body); err != nil {
			return err
		}
		r.Changed = time.UnixMilli(changed)
		if err := json.Unmarshal([]byte(body), &r.EnrolAsked); err != nil {
			return fmt.Errorf("request %s: %w", r.Key, err)
		}
		*into = append(*into, r)
		return nil
	}
}

func (s *Store) storeDecision(ctx context.Context, t *tx, f EnrolFacts, d EnrolDecision) error {
	if k := f.Token; k != nil && (d.Take || d.Refuse) {
		switch {
		case d.Take:
			k.UsesLeft--
		case d.Refuse:
			if k.Refused++; k.Refused >= refusedEnd && k.Uses > 1 && k.Off == "" {
				k.Off = fmt.Sprintf("refused %d times", k.Refused)
			}
		}
		if _, err := t.Exec(ctx, `UPDATE enrol_token SET uses_left = ?, refused = ?, off = ? WHERE id = ?`, k.UsesLeft, k.Refused, k.Off, k.ID); err != nil {
			return err
		}
	}
	if d.Issue != nil {
		if err := s.storeIssue(ctx, t, *d.Issue); err != nil {
			return err
		}
		if err := s.placeClaimed(ctx, t, d.Issue.Cert.Key, d.Issue.Cert.Box); err != nil {
			return err
		}
	}
	if d.Request == nil {
		return nil
	}
	if was := f.Request; was != nil && was.Token != d.Request.Token && (was.State == EnrolPending || was.State == EnrolApproved) {
		// The machine came with another token meanwhile.
		if _, err := t.Exec(ctx, `UPDATE enrol_token SET uses_left = uses_left + 1 WHERE id = ?`, was.Token); err != nil {
			return err
		}
	}
	return s.putRequest(ctx, t, *d.Request)
}

func (s *Store) putRequest(ctx context.Context, t *tx, r EnrolRequest) error {
	body, err := json.Marshal(r.EnrolAsked)
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, `INSERT INTO enrol_request (key, token, state, box, changed_ms, body) VALUES (?,?,?,?,?,?)
		ON CONFLICT (key) DO UPDATE SET token = excluded.token, state = excluded.state, box = excluded.box, changed_ms = excluded.changed_ms, body = excluded.body`,
		r.Key, r.Token, string(r.State), r.Box, s.now().UnixMilli(), string(body))
	if err != nil {
		return fmt.Errorf("store request %s: %w", r.Key, err)
	}
	return nil
}

// storeIssue records a new box, or a new machine in the place of one: the
// certificates of the machine before are dead from now on.
func (s *Store) storeIssue(ctx context.Context, t *tx, i EnrolIssue) error {
	now, id := s.now().UnixMilli(), i.Cert.Box
	if i.Name != "" {
		if _, err := t.Exec(ctx, `INSERT INTO box (id, name, site, enrolled_ms) VALUES (?,?,?,?)`, id, i.Name, i.Site, now); err != nil {
			return fmt.Errorf("add box %s: %w", i.Name, err)
		}
	} else {
		if err := lockBox(ctx, t, id); err != nil {
			return err
		}
		was, err := standingIn(ctx, t, id)
		if err == nil && was.State == StateQuarantined {
			err = s.alarmIdentity(ctx, t, i.Member)
		}
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `UPDATE device_cert SET state = ?, changed_ms = ? WHERE box = ?`, string(CertDead), now, id); err != nil {
			return err
		}
		if err := noteSwap(ctx, t, i, now); err != nil {
			return err
		}
		if err := forgetClaims(ctx, t, id); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `DELETE FROM machine_mark WHERE box = ?`, id); err != nil {
			return err
		}
	}
	if err := s.addCert(ctx, t, i.Cert); err != nil {
		return err
	}
	for _, m := range i.Marks {
		if _, err := t.Exec(ctx, `INSERT INTO machine_mark (mark, box) VALUES (?,?) ON CONFLICT DO NOTHING`, m, id); err != nil {
			return err
		}
	}
	if err := putStanding(ctx, t, i.Member); err != nil {
		return err
	}
	return s.noteIdentity(ctx, t, i.Member, Change{Why: i.Member.Why, By: i.Member.By})
}
