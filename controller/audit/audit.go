// Package audit is the form of the audit log: who did what, in a chain in which
// no record can be changed, moved or left out without a trace.
//
// Vocabulary: a record is one line of JSON; its hash is the SHA-256 of that
// line, without the line's end. Each record bears the hash of the one before
// it, the first one 64 zeros. The head is the number and the hash of the newest
// record. A seal is a head signed with the controller's key: who kept one
// elsewhere can tell later that nothing up to it was changed. A draft is a
// record that is not written yet; it travels in the context of the request, and
// the database appends it in the transaction that makes the change.
//
// Records say what was changed by digest, and in a note of a few words; they
// never hold a secret.
//
// The one rule a caller can break: one draft is one record. Draft.Again before
// a second change of the same request.
package audit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Bounds of what a record says. Longer texts are cut.
const (
	maxText = 256
	maxNote = 1024
)

// First is what the first record bears in place of a hash.
var First = strings.Repeat("0", 64)

// Record is one line of the log.
type Record struct {
	Seq    int64     `json:"seq"`
	Time   time.Time `json:"time"`
	Actor  string    `json:"actor"`
	Role   string    `json:"role,omitempty"`
	Source string    `json:"source"` // address it came from, or "controller"
	Verb   string    `json:"verb"`
	Object string    `json:"object,omitempty"`
	Before string    `json:"before,omitempty"` // digests, see Digest
	After  string    `json:"after,omitempty"`
	Note   string    `json:"note,omitempty"`
	Prev   string    `json:"prev"`
}

// Head is the newest record of a chain.
type Head struct {
	Seq  int64  `json:"seq"`
	Hash string `json:"hash"`
}

// seal is what a controller signs.
type seal struct {
	V    int       `json:"v"`
	Seq  int64     `json:"seq"`
	Hash string    `json:"hash"`
	Time time.Time `json:"time"`
}

// Seal is what is signed of a head.
func (h Head) Seal(now time.Time) ([]byte, error) {
	return encode(seal{1, h.Seq, h.Hash, now.UTC().Truncate(time.Second)})
}

// ParseSeal reads what was signed.
func ParseSeal(payload []byte) (Head, error) {
	var s seal
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return Head{}, fmt.Errorf("seal of the audit log: %w", err)
	}
	if s.V != 1 || s.Seq < 1 || len(s.Hash) != len(First) {
		return Head{}, errors.New("seal of the audit log: not of a known form")
	}
	return Head{s.Seq, s.Hash}, nil
}

// Empty is the head of a chain without records.
func Empty() Head { return Head{Hash: First} }

// Append makes r the record after head. It returns its line and the new head.
func (h Head) Append(r Record) ([]byte, Head, error) {
	r.Seq, r.Prev, r.Time = h.Seq+1, h.Hash, r.Time.UTC().Truncate(time.Millisecond)
	for _, s := range []*string{&r.Actor, &r.Role, &r.Source, &r.Verb, &r.Object} {
		*s = cut(*s, maxText)
	}
	r.Note = cut(r.Note, maxNote)
	line, err := encode(r)
	if err != nil {
		return nil, h, fmt.Errorf("encode audit record: %w", err)
	}
	return line, Head{r.Seq, Hash(line)}, nil
}

func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // so that other programs write the same
	err := enc.Encode(v)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

func cut(s string, most int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

// Hash is that of a line.
func Hash(line []byte) string {
	sum := sha256.Sum256(line)
	return hex.EncodeToString(sum[:])
}

// Parse reads a line.
func Parse(line []byte) (Record, error) {
	var r Record
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return Record{}, fmt.Errorf("audit record: %w", err)
	}
	return r, nil
}

// Digest is that of a thing as it was before or after a change.
func Digest(v any) string {
	line, err := encode(v)
	if err != nil {
		return ""
	}
	return "sha256:" + Hash(line)
}

// Draft is a record before it is written. It belongs to one request and is not
// safe for concurrent use.
type Draft struct {
	Actor, Role, Source, Verb, Object string
	Before, After, Note               string

	state state
}

type state int

const (
	pending state = iota
	written
	dropped
)

// Pending reports whether the draft waits to be written.
func (d *Draft) Pending() bool { return d != nil && d.state == pending }

// Written says that the record is in the database.
func (d *Draft) Written() { d.state = written }

// Drop says that nothing happened which is to be recorded.
func (d *Draft) Drop() { d.state = dropped }

// Again begins another record of the same request, by the same person.
func (d *Draft) Again(object string) {
	d.Object, d.Before, d.After, d.Note, d.state = object, "", "", "", pending
}

// Record is the draft as a record of a time.
func (d *Draft) Record(now time.Time) Record {
	return Record{
		Time: now, Actor: d.Actor, Role: d.Role, Source: d.Source, Verb: d.Verb, Object: d.Object,
		Before: d.Before, After: d.After, Note: d.Note,
	}
}

type draftKey struct{}

// With returns a context whose first write to the database appends d.
func With(ctx context.Context, d *Draft) context.Context {
	return context.WithValue(ctx, draftKey{}, d)
}

// Of returns the draft of a context; one that goes nowhere when it has none.
func Of(ctx context.Context) *Draft {
	if d, ok := ctx.Value(draftKey{}).(*Draft); ok {
		return d
	}
	return &Draft{state: dropped}
}
