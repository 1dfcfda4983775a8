package wire

import (
	"errors"
	"fmt"
)

func (k Key) check() error {
	if k.Lane >= Lanes {
		return fmt.Errorf("lane %d, there are %d", k.Lane, Lanes)
	}
	if k.Seq == 0 {
		return errors.New("sequence numbers start at 1")
	}
	return nil
}

func (b Block) check() error {
	if err := b.Key.check(); err != nil {
		return err
	}
	if b.Kind == 0 || b.Count == 0 {
		return errors.New("block without kind or records")
	}
	if b.Quality > TimeSynced {
		return fmt.Errorf("time quality %d", b.Quality)
	}
	if b.SpanMs < 0 {
		return fmt.Errorf("span of %d ms", b.SpanMs)
	}
	return atMost("bytes of payload", len(b.Payload), MaxPayloadBytes)
}

func (s Schema) check() error {
	if err := atMost("metrics", len(s.Metrics), MaxMetrics); err != nil {
		return err
	}
	size := 0
	for _, m := range s.Metrics {
		if err := text("metric name", m.Name, maxName); err != nil {
			return err
		}
		if m.Scale < -maxScale || m.Scale > maxScale {
			return fmt.Errorf("metric %s: scale %d beyond ±%d", m.Name, m.Scale, maxScale)
		}
		size += len(m.Name) + 8
	}
	return atMost("bytes of schema", size, MaxSchemaBytes)
}

func (d Data) check() error {
	if err := errors.Join(d.Behind.check(), atMost("blocks", len(d.Blocks), MaxBlocks), atMost("packs", len(d.Packs), MaxPacks), atMost("schemas", len(d.Schemas), MaxSchemas)); err != nil {
		return err
	}
	keys := len(d.Blocks)
	for _, p := range d.Packs {
		if err := p.check(); err != nil {
			return err
		}
		keys += len(p.Members)
	}
	if err := atMost("keys", keys, MaxKeys); err != nil { // one ACK answers
		return err
	}
	for _, b := range d.Blocks {
		if err := b.check(); err != nil {
			return err
		}
	}
	for _, s := range d.Schemas {
		if err := s.check(); err != nil {
			return err
		}
	}
	return nil
}

func (a Ack) check() error {
	if err := atMost("keys", len(a.Keys)+len(a.Refused), MaxKeys); err != nil {
		return err
	}
	for _, keys := range [2][]Key{a.Keys, a.Refused} {
		for _, k := range keys {
			if err := k.check(); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h Hello) check() error {
	if err := version(h.V); err != nil {
		return err
	}
	if err := errors.Join(
		h.Buffer.check(),
		atMost("streams", len(h.Streams), MaxStreams),
		atMost("runs", len(h.Runs), MaxRuns),
		atMost("models", len(h.Running.Models), MaxModels),
		atMost("heads", len(h.Heads), MaxAuditHeads),
	); err != nil {
		return err
	}
	for i, a := range h.Heads {
		if err := a.check(); err != nil {
			return err
		}
		if i > 0 && a.Seq <= h.Heads[i-1].Seq {
			return fmt.Errorf("head %d after head %d", a.Seq, h.Heads[i-1].Seq)
		}
	}
	for _, s := range h.Streams {
		if s.Lane >= Lanes || s.Lo == 0 || s.Hi < s.Lo || s.Count > s.Hi-s.Lo+1 {
			return fmt.Errorf("stream %s/%d: range %d-%d with %d blocks", s.SID, s.Lane, s.Lo, s.Hi, s.Count)
		}
	}
	for _, s := range h.Inventory.texts() {
		if err := text("inventory", *s, maxName); err != nil {
			return err
		}
	}
	for _, m := range h.Running.Models {
		if err := m.check(); err != nil {
			return err
		}
	}
	return h.Running.Config.check()
}

func (m RunningModel) check() error {
	return errors.Join(text("model", m.Name, maxName), text("version", m.Version, maxName), text("digest", m.Digest, maxName))
}

func (c *RunningConfig) check() error {
	if c == nil {
		return nil
	}
	errs := []error{text("digest", c.Digest, maxName), atMost("documents", len(c.Documents), MaxConfigDocuments), atMost("local settings", len(c.Local), MaxLocalSettings)}
	for _, d := range c.Documents {
		errs = append(errs, d.check())
	}
	for _, l := range c.Local {
		errs = append(errs, text("local setting", l, maxText))
	}
	return errors.Join(errs...)
}

func (a AuditHead) check() error {
	if a.Seq == 0 || a.Seq > MaxAuditSeq || a.UnixS < 0 || a.UnixS > MaxAuditUnixS ||
		len(a.Hash) != AuditHashBytes || len(a.Key) != AuditKeyBytes || len(a.Sig) != AuditSigBytes {
		return fmt.Errorf("head %d of second %d with %d bytes of hash, %d of key and %d of signature", a.Seq, a.UnixS, len(a.Hash), len(a.Key), len(a.Sig))
	}
	return nil
}

func (i *Inventory) texts() []*string {
	return []*string{&i.Name, &i.Class, &i.Vendor, &i.Product, &i.Serial, &i.Arch, &i.Agent, &i.Runner, &i.Runtime, &i.AgentRelease, &i.Slot}
}

// Clean makes every text of i valid UTF-8 and short enough to be sent: board
// firmware is known to hold anything.
func (i Inventory) Clean() Inventory {
	for _, s := range i.texts() {
		*s = clean(*s, maxName)
	}
	return i
}

// maxQuietMs is a year: a sum with it does not overflow.
const maxQuietMs = 365 * 24 * 3600 * 1000

func (w Welcome) check() error {
	if err := version(w.V); err != nil {
		return err
	}
	if w.WindowBytes < 0 || w.WindowCount < 0 || w.DrainMs < 0 || w.LiveMs < 0 || w.BacklogRate < 0 {
		return errors.New("negative window, wait or rate")
	}
	for _, q := range w.Quiet {
		if q.InMs < 0 || q.ForMs < 0 || q.InMs > maxQuietMs || q.ForMs > maxQuietMs {
			return fmt.Errorf("quiet in %d ms for %d ms", q.InMs, q.ForMs)
		}
	}
	return errors.Join(
		atMost("runs", len(w.Valid), MaxRuns),
		atMost("schemas", len(w.Schemas), MaxKnownSchemas),
		atMost("quiet times", len(w.Quiet), MaxQuiet),
		atMost("bytes of head", len(w.Head), MaxAuditHeadBytes),
	)
}

func (l Live) check() error {
	if err := errors.Join(l.Buffer.check(), atMost("samples", len(l.Samples), MaxLiveSamples)); err != nil {
		return err
	}
	for _, s := range l.Samples {
		if err := text("metric name", s.Name, maxName); err != nil {
			return err
		}
	}
	return nil
}
