package loadgen

import (
	"encoding/json"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// order is a desired state that a device has taken and told; the controller has
// not acknowledged that it heard.
type order struct {
	generation uint64
	box        int32
}

// obey takes a desired state, whose signature is not looked at, and reports at
// once that its models serve: no trial and nothing fetched. The report goes out
// once; a connection that ends with it brings the desired state again.
func (s *shard) obey(d *device, envelope []byte) error {
	if s.opts.Obeyed == nil || len(envelope) == 0 {
		return nil
	}
	var signed struct{ Payload []byte }
	var want wire.Desired
	if err := json.Unmarshal(envelope, &signed); err != nil {
		return fmt.Errorf("read desired state: %w", err)
	}
	if err := json.Unmarshal(signed.Payload, &want); err != nil {
		return fmt.Errorf("read desired state: %w", err)
	}
	b, err := s.report(d, want)
	if err != nil {
		return err
	}
	payload, err := wire.Encode(wire.Data{Blocks: []wire.Block{b}})
	if err != nil {
		return err
	}
	if s.orders == nil {
		s.orders = map[wire.Key]order{}
	}
	s.orders[b.Key] = order{want.Generation, d.box}
	s.publish(d, wire.TopicData, payload)
	return nil
}

// report is a block with what serves now and a phase for each model.
func (s *shard) report(d *device, want wire.Desired) (wire.Block, error) {
	now := s.now()
	running := wire.Running{Generation: want.Generation}
	var events []wire.Event
	event := func(kind string, body any) error {
		text, err := json.Marshal(body)
		events = append(events, wire.Event{MonoMs: uptimeMs(now), WallMs: s.wall(now).UnixMilli(), Type: kind, Text: kind, Body: text})
		return err
	}
	for _, m := range want.Models {
		running.Models = append(running.Models, wire.RunningModel{Name: m.Name, Version: m.Version, Digest: m.Digest.String()})
		body := wire.PhaseBody{Name: m.Name, Version: m.Version, Digest: m.Digest.String(), Rollout: m.Rollout, Attempt: m.Attempt, Generation: want.Generation, Phase: "active"}
		if err := event(wire.EventModelPhase, body); err != nil {
			return wire.Block{}, err
		}
	}
	if err := event(wire.EventRunning, running); err != nil {
		return wire.Block{}, err
	}
	payload, err := wire.EncodeEvents(events)
	if err != nil {
		return wire.Block{}, err
	}
	d.seq++
	b := wire.Block{
		Key:  wire.Key{SID: d.sid, Lane: wire.LaneEvents, Seq: uint64(d.seq)},
		Kind: wire.KindEvents, Boot: d.boot, MonoMs: uptimeMs(now), WallMs: s.wall(now).UnixMilli(), Quality: d.quality(),
		Count: uint32(len(events)), Payload: payload, CRC: crc32.Checksum(payload, crc32.MakeTable(crc32.Castagnoli)),
	}
	return b, wire.Seal(&b)
}

// heard tells that the controller has a report of obedience.
func (s *shard) heard(k wire.Key) {
	if o, ok := s.orders[k]; ok {
		delete(s.orders, k)
		s.opts.Obeyed(int(o.box), o.generation, time.Now())
	}
}
