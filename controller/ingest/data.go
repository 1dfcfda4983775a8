package ingest

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/edgeherd/edgeherd/controller/fault"
	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// message is a DATA that is being taken apart.
type message struct {
	in      *Ingest
	id      identity.ID
	now     int64
	schemas map[wire.SchemaID]*wire.Schema
	offsets map[wire.BootID]offset
	batch   *batch
	refused []wire.Key
	cells   int // values that deliveries hold
	strange int // blocks and packs that use a schema that is not known here
}

// maxCells bounds the values of one message: as many as fit into the window of
// a box. They wait in memory for the commit, and a few bytes may unpack to
// millions of them.
const maxCells = windowCount * wire.MaxCells

// offset is where a boot stands on the calendar, if it has said HELLO.
type offset struct {
	ms    int64
	known bool
}

func (in *Ingest) data(ctx context.Context, id identity.ID, payload []byte) error {
	msg, err := decodeMessage[wire.Data](payload)
	if err != nil {
		return err
	}
	m := &message{
		in: in, id: id, now: in.opts.WallClock().UnixMilli(), schemas: map[wire.SchemaID]*wire.Schema{}, offsets: map[wire.BootID]offset{},
		batch: &batch{box: id, bytes: len(payload), done: make(chan struct{})},
	}
	in.disk(id, msg.Behind)
	for i := range msg.Schemas {
		m.schemas[wire.SchemaIDOf(msg.Schemas[i])] = &msg.Schemas[i]
	}
	for i := range msg.Blocks {
		if err := m.block(ctx, msg.Blocks[i]); err != nil {
			return err
		}
	}
	for i := range msg.Packs {
		if err := m.pack(ctx, &msg.Packs[i]); err != nil {
			return err
		}
	}
	for i := range m.batch.deliveries {
		m.batch.deliveries[i].Behind = &msg.Behind
	}
	return m.finish(ctx)
}

// finish commits and acknowledges.
func (m *message) finish(ctx context.Context) error {
	in := m.in
	if m.strange > 0 {
		in.opts.Faults.Note(m.id, fault.SchemaConflict, int64(m.strange), errors.New("the schema of samples is neither known nor in the message"))
		// Ask for a fresh conversation, in which the box sends all schemas that
		// WELCOME does not list.
		if err := in.publish(m.id, wire.TopicCmd, wire.Cmd{Hello: true}); err != nil {
			return err
		}
	}
	ack := wire.Ack{Refused: m.refused}
	if m.batch.refused = len(m.refused); len(m.batch.keys) > 0 {
		err := in.commit(ctx, m.batch)
		if errors.Is(err, store.ErrForked) {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if err != nil {
			return err
		}
		ack.Run, ack.LSN, ack.Keys = m.batch.committed.Run, m.batch.committed.LSN, m.batch.acks
		in.changed(m.id)
	}
	switch {
	case len(ack.Keys) > 0:
	case len(ack.Refused) > 0:
		lineage, err := in.opts.Store.Lineage(ctx, nil)
		if err != nil {
			return err
		}
		ack.Run, ack.LSN = lineage.Run, 0
	default:
		return nil
	}
	return in.publish(m.id, wire.TopicAck, ack)
}

func (m *message) take(d store.Delivery, keys ...wire.Key) error {
	switch {
	case d.Samples != nil:
		m.cells += len(d.Samples.TimesMs) * len(d.Schema.Metrics)
	case d.Rows != nil:
		m.cells += 4 * len(d.Rows) * len(d.Schema.Metrics) // min, mean, max, n
	}
	if m.cells > maxCells {
		return fmt.Errorf("%w: it unpacks to more than %d values; send less at once", ErrMalformed, maxCells)
	}
	m.batch.deliveries = append(m.batch.deliveries, d)
	m.batch.keys = append(m.batch.keys, keys...)
	return nil
}

func (m *message) refuse(what string, err error, keys ...wire.Key) {
	cause := fault.BadSeal
	if errors.Is(err, wire.ErrBomb) {
		cause = fault.Bomb
	}
	m.in.opts.Faults.Note(m.id, cause, int64(len(keys)), fmt.Errorf("%s: %w", what, err))
	m.in.opts.Observer.Refused(len(keys))
	m.refused = append(m.refused, keys...)
}

func (m *message) block(ctx context.Context, b wire.Block) error {
	if err := b.Verify(); err != nil {
		m.refuse("block refused", err, b.Key)
		return nil
	}
	d, err := m.place(ctx, b)
	switch {
	case errors.Is(err, store.ErrNotFound):
		m.strange++
		return nil
	case err != nil:
		return err
	}
	return m.take(d, b.Key)
}

// errOdd is for packs whose members are better looked at one by one.
var errOdd = errors.New("a member has times that do not fit")

// pack checks a pack and puts its members on the calendar.
func (m *message) pack(ctx context.Context, p *wire.Pack) error {
	sc, err := m.schema(ctx, p.Schema)
	if errors.Is(err, store.ErrNotFound) {
		m.strange++
		return nil
	}
	if err != nil {
		return err
	}
	d := store.Delivery{Box: m.id, Pack: p, Schema: sc}
	err = open(&d)
	if errors.Is(err, errOdd) {
		return m.unpack(ctx, p, sc)
	}
	if err != nil {
		m.refuse("pack refused", err, p.Keys()...)
		return nil
	}
	for i := range p.Members {
		start, err := m.start(ctx, memberBlock(p, i))
		if err != nil {
			return err
		}
		d.Starts = append(d.Starts, start)
	}
	d.StartMs = slices.Min(d.Starts)
	return m.take(d, p.Keys()...)
}

// open decodes the content of a pack and checks all of it. The members of an
// exact one are rebuilt and compared with their keys.
func open(d *store.Delivery) error {
	p := d.Pack
	for i := range p.Members {
		if p.Members[i].SpanMs > store.MaxSpan.Milliseconds() {
			if p.Grain == wire.GrainExact {
				return errOdd
			}
			return fmt.Errorf("member %s of a coarse pack spans %d ms", p.Key(i), p.Members[i].SpanMs)
		}
	}
	if p.Grain != wire.GrainExact {
		rows, err := p.Rows(*d.Schema)
		d.Rows = rows
		return err
	}
	s, _, err := p.Open(*d.Schema)
	if err != nil {
		return err
	}
	row := 0
	for _, m := range p.Members {
		from := m.MonoMs - p.Members[0].MonoMs
		for end := row + int(m.Count); row < end; row++ {
			if t := s.TimesMs[row] - from; t < 0 || t > m.SpanMs {
				return errOdd
			}
		}
	}
	d.Samples = &s
	return nil
}

// unpack takes the members of an exact pack as if they had come alone.
func (m *message) unpack(ctx context.Context, p *wire.Pack, sc *wire.Schema) error {
	blocks, err := p.Blocks(*sc)
	if err != nil {
		m.refuse("pack refused", err, p.Keys()...)
		return nil
	}
	for _, b := range blocks {
		if err := m.block(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// memberBlock is what start looks at.
func memberBlock(p *wire.Pack, i int) wire.Block {
	m := p.Members[i]
	return wire.Block{Boot: p.Boot, MonoMs: m.MonoMs, WallMs: m.WallMs, Quality: m.Quality, SpanMs: m.SpanMs}
}

// schema finds a schema in the message or the store.
func (m *message) schema(ctx context.Context, id wire.SchemaID) (*wire.Schema, error) {
	if sc := m.schemas[id]; sc != nil {
		return sc, nil
	}
	sc, err := m.in.opts.Store.Schema(ctx, id)
	if err != nil {
		return nil, err
	}
	m.schemas[id] = &sc
	return &sc, nil
}

// offset looks up a boot once a message.
func (m *message) offset(ctx context.Context, boot wire.BootID) (offset, error) {
	if o, ok := m.offsets[boot]; ok {
		return o, nil
	}
	ms, known, err := m.in.opts.Store.BootOffset(ctx, m.id, boot)
	if err != nil {
		return offset{}, err
	}
	m.offsets[boot] = offset{ms, known}
	return m.offsets[boot], nil
}
