package wire

import (
	"bytes"
	"errors"
	"fmt"
)

// The payloads that are CBOR. They are sealed, so reading is strict:
// the bytes must be the very ones that encoding the value gives.

// EncodeEvents returns the payload of a KindEvents block. Texts are cut to
// their limits; a body beyond its limit is an error.
func EncodeEvents(events []Event) ([]byte, error) {
	out := make([]Event, len(events))
	for i, e := range events {
		e.Type, e.Text = clean(e.Type, maxName), clean(e.Text, maxText)
		out[i] = e
	}
	return encodeRecords(out)
}

// DecodeEvents reads the payload of a KindEvents block.
func DecodeEvents(payload []byte) ([]Event, error) { return decodeRecords[Event](payload) }

// EncodeResults returns the payload of a KindResults block. Texts are cut to
// their limits.
func EncodeResults(results []Result) ([]byte, error) {
	out := make([]Result, len(results))
	for i, r := range results {
		r.Input, r.Pipeline, r.Item = clean(r.Input, maxName), clean(r.Pipeline, maxName), clean(r.Item, maxText)
		r.Text, r.Want = clean(r.Text, maxText), clean(r.Want, maxText)
		models := make([]string, len(r.Models))
		for j, m := range r.Models {
			models[j] = clean(m, 2*maxName)
		}
		r.Models = models
		out[i] = r
	}
	return encodeRecords(out)
}

// DecodeResults reads the payload of a KindResults block.
func DecodeResults(payload []byte) ([]Result, error) { return decodeRecords[Result](payload) }

// EncodeGap returns the payload of a KindGap block.
func EncodeGap(g Gap) ([]byte, error) {
	data, err := Encode(g)
	if err != nil {
		return nil, err
	}
	if err := atMost("bytes of payload", len(data), MaxPayloadBytes); err != nil {
		return nil, err
	}
	return data, nil
}

// DecodeGap reads the payload of a KindGap block.
func DecodeGap(payload []byte) (Gap, error) {
	if err := atMost("bytes of payload", len(payload), MaxPayloadBytes); err != nil {
		return Gap{}, err
	}
	g, err := Decode[Gap](payload)
	if err != nil {
		return Gap{}, err
	}
	if err := same(g, payload); err != nil {
		return Gap{}, err
	}
	return g, nil
}

func encodeRecords[T checker](records []T) ([]byte, error) {
	if err := checkRecords(records); err != nil {
		return nil, err
	}
	data, err := Encode(records)
	if err != nil {
		return nil, err
	}
	if err := atMost("bytes of payload", len(data), MaxPayloadBytes); err != nil {
		return nil, err
	}
	return data, nil
}

func decodeRecords[T checker](payload []byte) ([]T, error) {
	if err := atMost("bytes of payload", len(payload), MaxPayloadBytes); err != nil {
		return nil, err
	}
	records, err := Decode[[]T](payload)
	if err != nil {
		return nil, err
	}
	if err := checkRecords(records); err != nil {
		return nil, err
	}
	if err := same(records, payload); err != nil {
		return nil, err
	}
	return records, nil
}

// same refuses a payload that encoding v again would not give.
func same(v any, payload []byte) error {
	again, err := Encode(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, payload) {
		return fmt.Errorf("decode %s: not in the deterministic form", nameOf(v))
	}
	return nil
}

func checkRecords[T checker](records []T) error {
	if len(records) == 0 {
		return errors.New("payload without records")
	}
	if err := atMost("records", len(records), MaxRecords); err != nil {
		return err
	}
	for _, r := range records {
		if err := r.check(); err != nil {
			return err
		}
	}
	return nil
}

func (e Event) check() error {
	return errors.Join(text("event type", e.Type, maxName), text("event text", e.Text, maxText), atMost("bytes of event body", len(e.Body), maxBody))
}

func (r Result) check() error {
	err := errors.Join(
		text("input", r.Input, maxName), text("pipeline", r.Pipeline, maxName), text("item", r.Item, maxText),
		text("text", r.Text, maxText), text("want", r.Want, maxText), atMost("models", len(r.Models), MaxModels))
	for _, m := range r.Models {
		err = errors.Join(err, text("model", m, 2*maxName))
	}
	return err
}

func (g Gap) check() error {
	ranges := append([]GapRange{{g.SID, g.Lane, g.From, g.To, g.Count}}, g.Also...)
	if err := atMost("ranges", len(ranges), MaxGapRanges); err != nil {
		return err
	}
	for _, r := range ranges {
		if r.Lane >= Lanes || r.To < r.From {
			return fmt.Errorf("gap of lane %d from %d to %d", r.Lane, r.From, r.To)
		}
	}
	return text("reason", g.Reason, maxName)
}
