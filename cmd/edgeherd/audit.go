package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/controller/audit"
	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func auditCommand(c *cli) *cobra.Command {
	return c.group("audit", "Who did what",
		auditListCommand(c),
		c.call("export FILE", "Write the whole log as lines of JSON; - is the standard output", c.auditExport),
		auditVerifyCommand(c),
	)
}

func auditListCommand(c *cli) *cobra.Command {
	var limit int
	cmd := c.call("list", "Newest records first", func(ctx context.Context, client *fleetapi.Client, _ []string) error {
		list, err := client.Audit(ctx, 0, limit)
		if err != nil {
			return err
		}
		s := sheet{
			kind: "audit-list", item: "audit-record", value: list, items: items(list.Items), narrow: 7,
			head: []string{"SEQ", "TIME", "ACTOR", "FROM", "VERB", "OBJECT", "NOTE", "ROLE", "BEFORE", "AFTER"},
		}
		for _, r := range list.Items {
			seq := fmt.Sprint(r.Seq)
			s.rows = append(s.rows, []string{seq, r.Time.Format(time.RFC3339), r.Actor, r.Source, r.Verb, r.Object, r.Note, r.Role, r.Before, r.After})
			s.names = append(s.names, seq)
		}
		return c.print(s)
	})
	cmd.Flags().IntVar(&limit, "limit", 100, "how many, 1000 at most")
	return cmd
}

func (c *cli) auditExport(ctx context.Context, client *fleetapi.Client, args []string) error {
	var v audit.Verifier
	lines := func(to io.Writer) error {
		out := bufio.NewWriter(to)
		err := client.ExportAudit(ctx, func(line []byte) error {
			out.Write(line)
			out.WriteByte('\n') // Flush tells what failed
			return v.Add(line)
		})
		return errors.Join(changedLog(err), out.Flush())
	}
	var err error
	if args[0] == "-" {
		err = lines(c.out)
	} else {
		err = writeWhole(args[0], lines)
	}
	if err == nil {
		c.say("%d records; the hash of the last is %s.", v.Passed().Seq, v.Passed().Hash)
	}
	return err
}

// writeWhole has a file appear when all of it is written, or not at all.
func writeWhole(name string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".edgeherd-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // not there any more when all went well
	if err := errors.Join(write(f), f.Sync(), f.Close()); err != nil {
		return err
	}
	return durable.Rename(f.Name(), name)
}

// changedLog is the error of a log that is not what it was.
func changedLog(err error) error {
	var b *audit.Broken
	if errors.As(err, &b) {
		return ended(exitFailed, "the audit log was changed: %s", b)
	}
	return err
}

func auditVerifyCommand(c *cli) *cobra.Command {
	var file, head string
	var boxes []string
	cmd := c.verb("verify", "Check that no record was changed, moved or left out", func(ctx context.Context, _ []string) error {
		known := heads{}
		if head != "" {
			var h audit.Head
			if err := json.Unmarshal([]byte(head), &h); err != nil || h.Seq < 1 {
				return ended(exitUsage, "--head %s: want what verify printed with -o json before: {\"seq\":12,\"hash\":\"…\"}", head)
			}
			known[h.Seq] = audit.Seen{Head: h, By: "who noted its head"}
		}
		for _, name := range boxes {
			if err := known.read(name); err != nil {
				return failure{exitUsage, err}
			}
		}
		if file != "" {
			return c.verifyFile(file, known)
		}
		return c.verifyController(ctx, known)
	})
	cmd.Flags().StringVar(&file, "file", "", "a file that export wrote, instead of the controller's own log")
	cmd.Flags().StringArrayVar(&boxes, "witness", nil, "a witness.json from the state directory of a box's agent: the log must hold what that box has seen; may be repeated")
	cmd.Flags().StringVar(&head, "head", "", "a head that was noted elsewhere before, as JSON: the log must hold it")
	return cmd
}

// verified is the result of a walk through a log.
type verified struct {
	audit.Head
	Seals  int        `json:"seals"`
	Sealed *time.Time `json:"sealed,omitempty"`
	// Witnesses are boxes that have seen it.
	Witnesses int                     `json:"witnesses"`
	Restores  []fleetapi.AuditRestore `json:"restores,omitempty"`
	Forged    []fleetapi.AuditWitness `json:"forged,omitempty"`
	Unjudged  []fleetapi.AuditWitness `json:"unjudged,omitempty"`
}

func (c *cli) printVerified(v verified) error {
	for _, r := range v.Restores {
		c.say("%s", audit.Restore{Seq: r.Seq, Time: r.Time}.Say(r.Lost))
	}
	if len(v.Restores) > 0 {
		c.say("Whoever holds the controller can write such a record to hide a cut: ask who restored it.")
	}
	for _, w := range v.Forged {
		c.say("Box %s (%s) says to have seen record %d with the hash %s, and no controller signed that. The log is not in doubt, the box is: look at it.", w.Name, w.Box, w.Seq, w.Hash)
	}
	for _, w := range v.Unjudged {
		c.say("Box %s (%s) has seen record %d with the hash %s, signed with a key that the log does not name.", w.Name, w.Box, w.Seq, w.Hash)
	}
	c.say("No record was changed. Note the head elsewhere: `edgeherd audit verify --head` finds out later whether it still holds.")
	err := c.print(sheet{
		kind: "audit-head", value: v, head: []string{"RECORDS", "HASH", "SEALS", "BOXES"},
		rows: [][]string{{fmt.Sprint(v.Seq), v.Hash, fmt.Sprint(v.Seals), fmt.Sprint(v.Witnesses)}}, names: []string{v.Hash},
	})
	if err == nil && len(v.Unjudged) > 0 {
		return ended(exitPartly, "what some boxes have seen cannot be judged: a backup from before the controller's key was changed was put back, or the log was made anew under another key, or those boxes lie")
	}
	return err
}

// heads are what is known of the log from elsewhere, by number.
type heads map[int64]audit.Seen

// read takes the heads that a box has kept.
func (k heads) read(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var w struct {
		State []struct {
			audit.Head
			Time time.Time `json:"time"`
		} `json:"state"`
	}
	if err := json.Unmarshal(text, &w); err != nil || len(w.State) == 0 {
		return fmt.Errorf("%s is not the witness.json of a box", name)
	}
	for _, h := range w.State {
		k[h.Seq] = audit.Seen{Head: h.Head, Signed: h.Time, By: "the box of " + name}
	}
	return nil
}

func (c *cli) verifyFile(name string, known heads) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	w := walk{known: known, had: map[int64]string{}}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := w.add(lines.Bytes()); err != nil {
			return changedLog(err)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	restores, err := w.end()
	if err != nil {
		return changedLog(err)
	}
	return c.printVerified(verified{Head: w.v.Passed(), Restores: restores})
}

// walk verifies lines, which must hold what is known.
type walk struct {
	v     audit.Verifier
	known heads
	had   map[int64]string // hashes of what is known
}

func (w *walk) add(line []byte) error {
	if err := w.v.Add(line); err != nil {
		return err
	}
	if at := w.v.Passed(); w.known[at.Seq].Seq > 0 {
		w.had[at.Seq] = at.Hash
	}
	return nil
}

// end tells the restores, which explain what is not as it was known.
func (w *walk) end() (out []fleetapi.AuditRestore, err error) {
	if err := w.v.End(w.v.Passed()); err != nil {
		return nil, err
	}
	for _, r := range w.v.Past().Restores {
		out = append(out, fleetapi.AuditRestore{Seq: r.Seq, Time: r.Time, Note: r.Note})
	}
	for _, seq := range slices.Sorted(maps.Keys(w.known)) {
		k := w.known[seq]
		if w.had[seq] == k.Hash {
			continue
		}
		lost := w.v.Past().Lost(k)
		if lost == nil {
			return nil, w.v.Missing(k)
		}
		for i := range out {
			if out[i].Seq == lost.Seq {
				out[i].Lost = seq
			}
		}
	}
	return out, nil
}

func (c *cli) verifyController(ctx context.Context, known heads) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	state, err := client.AuditState(ctx)
	if err != nil {
		return err
	}
	for _, w := range state.Contradicted {
		c.say("Box %s (%s) has seen record %d with the hash %s; it said so %s ago.", w.Name, w.Box, w.Seq, w.Hash, age(&w.Told, time.Now()))
	}
	if len(state.Contradicted) > 0 {
		c.say("A database that was put back without `edgeherd server restore` or `restored` looks the same to boxes: was it?")
	}
	if state.Broken != "" {
		return changedLog(&audit.Broken{Seq: state.BrokenSeq, Why: state.Broken})
	}
	if len(known) > 0 {
		w := walk{known: known, had: map[int64]string{}}
		if err := client.ExportAudit(ctx, w.add); err != nil {
			return changedLog(err)
		}
		if _, err := w.end(); err != nil {
			return changedLog(err)
		}
	}
	c.say("%s seen it up to record %d.", plural(state.Witnesses, "box has", "boxes have"), state.Witnessed)
	return c.printVerified(verified{
		Head: audit.Head{Seq: state.Records, Hash: state.Head}, Seals: state.Seals, Sealed: state.Sealed, Witnesses: state.Witnesses,
		Restores: state.Restores, Forged: state.Forged, Unjudged: state.Unjudged,
	})
}
