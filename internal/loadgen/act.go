package loadgen

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// handle does what a packet asks for. Answers go to s.out.
func (s *shard) handle(d *device, p packet) error {
	switch p.kind {
	case kindConnack:
		if p.code != 0 {
			return fmt.Errorf("CONNACK refuses with code %d", p.code)
		}
	case kindSuback:
		if p.code > 1 {
			return fmt.Errorf("SUBACK refuses with code %d", p.code)
		}
		return s.sayHello(d)
	case kindPingresp:
		if d.state == ready {
			d.answerAt = never
		}
	case kindPublish:
		if p.qos == 1 {
			s.out = appendPuback(s.out, p.id)
		}
		switch {
		case bytes.HasSuffix(p.topic, []byte("/"+wire.TopicAck)):
			return s.acked(d, p.payload)
		case bytes.HasSuffix(p.topic, []byte("/"+wire.TopicWelcome)):
			return s.welcomed(d, p.payload)
		case bytes.HasSuffix(p.topic, []byte("/"+wire.TopicWant)):
			want, err := wire.Decode[wire.Want](p.payload)
			if err != nil {
				return err
			}
			return s.obey(d, want.Desired)
		case bytes.HasSuffix(p.topic, []byte("/"+wire.TopicCmd)):
			cmd, err := wire.Decode[wire.Cmd](p.payload)
			if err != nil || !cmd.Hello && cmd.Question == 0 {
				return err
			}
			if cmd.Question != 0 {
				d.question = cmd.Question
			}
			return s.sayHello(d)
		}
	}
	return nil
}

func (s *shard) sayHello(d *device) error {
	now := s.now()
	if d.helloAt != 0 && d.state == ready && now-d.helloAt < int64(helloPause) {
		return nil
	}
	d.helloAt = now
	payload, err := d.hello(now, s.wall(now))
	if err != nil {
		return err
	}
	s.publish(d, wire.TopicHello, payload)
	return nil
}

func (s *shard) publish(d *device, topic wire.Topic, payload []byte) {
	s.out = appendPublish(s.out, topic.For(d.id), packet{qos: 1, id: d.nextID(), payload: payload})
}

func (s *shard) welcomed(d *device, payload []byte) error {
	w, err := wire.Decode[wire.Welcome](payload)
	if err != nil {
		return err
	}
	if w.Nonce != d.nonce {
		return nil
	}
	d.run = w.Run
	d.known = slices.Contains(w.Schemas, s.maker.schemaID)
	if d.state == greeting {
		d.state, d.answerAt, d.fails = ready, never, 0
		s.stats.welcomed.Add(1)
		for i := range d.held {
			d.held[i].againAt = never
		}
	}
	s.fill(d, s.now())
	return s.obey(d, w.Desired)
}

func (s *shard) acked(d *device, payload []byte) error {
	if s.fires(d, s.opts.Faults.Drop) {
		s.stats.drops.Add(1)
		return nil
	}
	ack, err := wire.Decode[wire.Ack](payload)
	if err != nil {
		return err
	}
	now := s.now()
	if ack.Run != d.run {
		return s.sayHello(d)
	}
	for _, k := range ack.Refused {
		if i := d.find(k); i >= 0 {
			s.stats.refused.Add(1)
			s.stats.blame(errors.New("the controller refuses a block for ever"))
			s.forget(d, i)
		}
	}
	for _, k := range ack.Keys {
		s.heard(k)
		i := d.find(k)
		if i < 0 {
			continue // acknowledged before: it went out twice
		}
		b := d.held[i]
		s.ledger.book(entryAcked, d.box, k)
		s.stats.acked.Add(1)
		s.stats.took(time.Duration(now - b.sentAt))
		d.known = true
		s.forget(d, i)
		if s.fires(d, s.opts.Faults.Dup) {
			s.stats.dups.Add(1)
			s.put(d, &b)
		}
	}
	s.fill(d, now)
	return nil
}

func (s *shard) forget(d *device, i int) {
	d.held = slices.Delete(d.held, i, i+1)
	s.stats.waiting.Add(-1)
}

// fill sends held blocks up to the window. In a closed loop it makes them too.
func (s *shard) fill(d *device, now int64) {
	if s.opts.Every == 0 && s.making && !d.dormant {
		for len(d.held) < s.opts.Window && d.link != nil {
			if s.makeBlock(d, now); d.state != ready {
				return
			}
		}
	}
	flying := 0
	for i := range d.held {
		if d.held[i].againAt != never {
			flying++
		}
	}
	for i := 0; i < len(d.held) && flying < s.opts.Window && d.link != nil; i++ {
		if d.held[i].againAt == never {
			s.send(d, &d.held[i], now)
			flying++
		}
	}
}

// sendDue sends again what was not acknowledged in time.
func (s *shard) sendDue(d *device, now int64) {
	for i := 0; i < len(d.held) && d.link != nil; i++ {
		if d.held[i].againAt <= now {
			s.send(d, &d.held[i], now)
		}
	}
}

// send gives a block to the connection, unless a fault has it.
func (s *shard) send(d *device, b *held, now int64) {
	if b.sentAt == 0 {
		b.sentAt = now
		s.stats.sent.Add(1)
	} else {
		s.stats.resent.Add(1)
	}
	b.againAt = now + int64(min(s.opts.Resend<<min(b.tries, 8), maxAgain))
	b.tries = min(b.tries+1, 200)
	switch {
	case s.fires(d, s.opts.Faults.Drop):
		s.stats.drops.Add(1)
		return
	case s.fires(d, s.opts.Faults.Cut):
		s.stats.cuts.Add(1)
		s.put(d, b)
		s.out = s.out[:len(s.out)/2]
		_, _ = d.link.Write(s.out) // it ends here either way
		s.end(d, d.pause(s.opts.MaxPause))
		return
	case s.fires(d, s.opts.Faults.Dup):
		s.stats.dups.Add(1)
		s.put(d, b)
	}
	s.put(d, b)
}

// put encodes a DATA with one block.
func (s *shard) put(d *device, b *held) {
	msg := wire.Data{Blocks: []wire.Block{s.maker.block(b)}, Behind: wire.Buffer{Blocks: int64(len(d.held))}}
	if !d.known {
		msg.Schemas = []wire.Schema{s.maker.schema}
	}
	payload, err := wire.Encode(msg)
	if err != nil {
		panic("loadgen: a block of ours always has an encoding: " + err.Error())
	}
	s.publish(d, wire.TopicData, payload)
}

// fires draws whether a fault happens now.
func (s *shard) fires(d *device, chance float64) bool {
	return chance > 0 && s.making && d.rng.chance(chance)
}

// makeBlock has the device make a block, or do something worse.
func (s *shard) makeBlock(d *device, now int64) {
	if len(d.held) >= maxHeld {
		s.stats.skipped.Add(1)
		return
	}
	if s.fires(d, s.opts.Faults.Clock) {
		s.stats.clocks.Add(1)
		d.jump(s.wall(now))
	}
	if d.state != dialing && s.fires(d, s.opts.Faults.Restart) {
		s.stats.restarts.Add(1)
		s.end(d, d.pause(s.opts.MaxPause))
		d.newLife()
	}
	d.seq++
	b := held{
		sid: d.sid, boot: d.boot, seq: d.seq, variant: uint8(d.rng.below(variants)), quality: d.quality(),
		monoMs: uptimeMs(now) - s.maker.spanMs, wallMs: s.wall(now).UnixMilli() + d.offsetMs - s.maker.spanMs, againAt: never,
	}
	if err := s.maker.seal(&b); err != nil {
		panic("loadgen: a block of ours always has a seal: " + err.Error())
	}
	d.held = append(d.held, b)
	s.stats.made.Add(1)
	s.stats.waiting.Add(1)
	s.ledger.book(entryMade, d.box, s.maker.block(&b).Key)
	if d.state == ready && s.opts.Every > 0 {
		s.fill(d, now)
		s.flush(d)
	}
}

// birth has a twin go on from what the other device holds.
func (s *shard) birth(d *device, now int64) {
	other := &s.queue.all[d.twinOf]
	d.dormant = false
	d.sid, d.seq, d.conn, d.boot, d.offsetMs = other.sid, other.seq, other.conn, other.boot, other.offsetMs
	d.held = slices.Clone(other.held)
	s.stats.waiting.Add(int64(len(d.held)))
	if !d.snapshot { // a disk image: the process starts anew on another boot
		d.newLife()
		d.boot = wire.BootID(d.sid)
	}
	d.state, d.dialAt = offline, now+d.pause(s.opts.MaxPause)
	s.schedule(d, now)
}

// schedule sets when the device makes its next block.
func (s *shard) schedule(d *device, now int64) {
	d.makeAt = dueForBlock
	if s.opts.Every > 0 {
		d.makeAt = now + 1 + d.rng.below(int64(s.opts.Every))
	}
}

// begin has all devices make blocks.
func (s *shard) begin(now int64) {
	s.making = true
	s.each(func(d *device) {
		if d.dormant { // it is born while the other one works
			d.makeAt = now + 1 + d.rng.below(int64(s.opts.For)*3/4)
			return
		}
		s.schedule(d, now)
		if d.state == ready {
			s.fill(d, now)
			s.flush(d)
		}
	})
}

// rest ends the making of blocks and the faults; what is held still goes out.
func (s *shard) rest(int64) {
	s.making = false
	s.each(func(d *device) {
		if d.dormant || s.opts.Every > 0 {
			d.makeAt = never
		}
	})
}

// storm cuts off a share of all connections; the devices come back within
// spread.
func (s *shard) storm(share float64, spread time.Duration) {
	s.each(func(d *device) {
		if d.link != nil && d.rng.chance(share) {
			s.end(d, d.rng.below(int64(spread)))
		}
	})
}

// leave ends all connections politely.
func (s *shard) leave(int64) {
	s.each(func(d *device) {
		d.makeAt, d.dialAt = never, never
		if d.link == nil {
			return
		}
		_, _ = d.link.Write(appendDisconnect(nil)) // a farewell may get lost
		d.link.sock.Close()
		d.link, d.state = nil, offline
	})
}

func (s *shard) each(f func(*device)) {
	for i := range s.queue.all {
		f(&s.queue.all[i])
		s.queue.settle(&s.queue.all[i])
	}
}
