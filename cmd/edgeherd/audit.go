package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
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
		c.verb("export FILE", "Write the whole log as lines of JSON; - is the standard output", c.auditExport),
		auditVerifyCommand(c),
	)
}

func auditListCommand(c *cli) *cobra.Command {
	var limit int
	cmd := c.verb("list", "Newest records first", func(ctx context.Context, _ []string) error {
		client, _, err := c.client()
		if err != nil {
			return err
		}
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

func (c *cli) auditExport(ctx context.Context, args []string) error {
	client, _, err := c.client()
	if err != nil {
		return err
	}
	var all bytes.Buffer
	var v audit.Verifier
	if err := client.ExportAudit(ctx, func(line []byte) error {
		all.Write(line)
		all.WriteByte('\n')
		return v.Add(line)
	}); err != nil {
		return changedLog(err)
	}
	if args[0] == "-" {
		_, err = c.out.Write(all.Bytes())
	} else {
		err = durable.WriteFile(args[0], all.Bytes(), 0o600)
	}
	if err == nil {
		c.say("%d records; the hash of the last is %s.", v.Passed().Seq, v.Passed().Hash)
	}
	return err
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
			known[h.Seq] = seenHead{h.Hash, "when its head was noted"}
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
	Witnesses int `json:"witnesses"`
}

func (c *cli) printVerified(v verified) error {
	c.say("No record was changed. Note the head elsewhere: `edgeherd audit verify --head` finds out later whether it still holds.")
	return c.print(sheet{
		kind: "audit-head", value: v, head: []string{"RECORDS", "HASH", "SEALS", "BOXES"},
		rows: [][]string{{fmt.Sprint(v.Seq), v.Hash, fmt.Sprint(v.Seals), fmt.Sprint(v.Witnesses)}}, names: []string{v.Hash},
	})
}

// heads are what is known of the log from elsewhere, by number.
type heads map[int64]seenHead

type seenHead struct{ hash, when string }

// read takes the heads that a box has kept.
func (k heads) read(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var w struct {
		State []audit.Head `json:"state"`
	}
	if err := json.Unmarshal(text, &w); err != nil || len(w.State) == 0 {
		return fmt.Errorf("%s is not the witness.json of a box", name)
	}
	for _, h := range w.State {
		k[h.Seq] = seenHead{h.Hash, "when the box of " + name + " saw it"}
	}
	return nil
}

func (c *cli) verifyFile(name string, known heads) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := walk(f, known)
	if err != nil {
		return changedLog(err)
	}
	return c.printVerified(verified{Head: v.Passed()})
}

// walk verifies lines, which must hold what is known.
func walk(r io.Reader, known heads) (v audit.Verifier, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if err := v.Add(lines.Bytes()); err != nil {
			return v, err
		}
		at := v.Passed()
		if k, ok := known[at.Seq]; ok && at.Hash != k.hash {
			return v, &audit.Broken{Seq: at.Seq, Why: "it was changed: its hash was another " + k.when}
		}
	}
	if err := lines.Err(); err != nil {
		return v, err
	}
	for _, seq := range slices.Sorted(maps.Keys(known)) {
		if v.Passed().Seq < seq {
			return v, &audit.Broken{Seq: v.Passed().Seq + 1, Why: fmt.Sprintf("it is missing: the log had %d records %s", seq, known[seq].when)}
		}
	}
	return v, v.End(v.Passed())
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
		c.say("A controller that was put back from a backup looks the same to boxes: was it?")
	}
	if state.Broken != "" {
		return changedLog(&audit.Broken{Seq: state.BrokenSeq, Why: state.Broken})
	}
	if len(known) > 0 {
		if err := c.holds(ctx, client, known); err != nil {
			return changedLog(err)
		}
	}
	c.say("%s have seen it up to record %d.", plural(state.Witnesses, "box", "boxes"), state.Witnessed)
	return c.printVerified(verified{Head: audit.Head{Seq: state.Records, Hash: state.Head}, Seals: state.Seals, Sealed: state.Sealed, Witnesses: state.Witnesses})
}

// holds has the lines sent and looks for what is known of them from elsewhere.
func (c *cli) holds(ctx context.Context, client *fleetapi.Client, known heads) error {
	var all bytes.Buffer
	if err := client.ExportAudit(ctx, func(line []byte) error {
		all.Write(line)
		return all.WriteByte('\n')
	}); err != nil {
		return err
	}
	_, err := walk(&all, known)
	return err
}
