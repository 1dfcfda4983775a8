package loadgen

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/internal/wire"
)

// The kinds of MQTT 3.1.1 control packets that a device meets.
const (
	kindConnect    = 1
	kindConnack    = 2
	kindPublish    = 3
	kindPuback     = 4
	kindSubscribe  = 8
	kindSuback     = 9
	kindPingreq    = 12
	kindPingresp   = 13
	kindDisconnect = 14
)

// maxPacketBytes bounds what is read: the largest message, its topic and header.
const maxPacketBytes = wire.MaxMessageBytes + 512

// errPacket is wrapped by the error for bytes that are no packet of MQTT 3.1.1.
var errPacket = errors.New("not a packet of MQTT 3.1.1")

// packet is one control packet. Topic and payload lie in the bytes it was read
// from.
type packet struct {
	kind    byte
	dup     bool   // of PUBLISH
	qos     byte   // of PUBLISH
	code    byte   // of CONNACK and SUBACK
	id      uint16 // of PUBLISH with QoS 1, PUBACK, SUBACK
	topic   []byte
	payload []byte
}

// connect is what CONNECT says besides the constants: clean session, will of
// QoS 1 that is not retained.
type connect struct {
	clientID  string
	keepAlive uint16 // seconds
	willTopic string // "": no will
	will      []byte
}

func appendConnect(dst []byte, c connect) []byte {
	size := 10 + 2 + len(c.clientID)
	flags := byte(0x02)
	if c.willTopic != "" {
		flags |= 0x04 | 0x08
		size += 4 + len(c.willTopic) + len(c.will)
	}
	dst = appendHeader(dst, kindConnect<<4, size)
	dst = appendText(dst, "MQTT")
	dst = append(dst, 4, flags)
	dst = binary.BigEndian.AppendUint16(dst, c.keepAlive)
	dst = appendText(dst, c.clientID)
	if c.willTopic != "" {
		dst = appendText(dst, c.willTopic)
		dst = appendText(dst, c.will)
	}
	return dst
}

func appendSubscribe(dst []byte, id uint16, filter string) []byte {
	dst = appendHeader(dst, kindSubscribe<<4|2, 2+2+len(filter)+1)
	dst = binary.BigEndian.AppendUint16(dst, id)
	return append(appendText(dst, filter), 1)
}

// appendPublish encodes a PUBLISH of QoS 0 or 1.
func appendPublish[T string | []byte](dst []byte, topic T, p packet) []byte {
	head, size := byte(kindPublish<<4)|p.qos<<1, 2+len(topic)+len(p.payload)
	if p.dup {
		head |= 0x08
	}
	if p.qos > 0 {
		size += 2
	}
	dst = appendText(appendHeader(dst, head, size), topic)
	if p.qos > 0 {
		dst = binary.BigEndian.AppendUint16(dst, p.id)
	}
	return append(dst, p.payload...)
}

func appendPuback(dst []byte, id uint16) []byte {
	return binary.BigEndian.AppendUint16(append(dst, kindPuback<<4, 2), id)
}

func appendPing(dst []byte) []byte       { return append(dst, kindPingreq<<4, 0) }
func appendDisconnect(dst []byte) []byte { return append(dst, kindDisconnect<<4, 0) }

func appendHeader(dst []byte, first byte, size int) []byte {
	return binary.AppendUvarint(append(dst, first), uint64(size)) // MQTT counts in the same base 128
}

func appendText[T string | []byte](dst []byte, s T) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// nextPacket reads the packet that data begins with, and how many bytes it
// takes; 0 means that more must come.
func nextPacket(data []byte) (packet, int, error) {
	if len(data) < 2 {
		return packet{}, 0, nil
	}
	size, n := binary.Uvarint(data[1:min(len(data), 5)])
	switch {
	case n == 0 && len(data) < 5:
		return packet{}, 0, nil
	case n <= 0 || n > 1 && data[n] == 0: // too long, or longer than needed
		return packet{}, 0, fmt.Errorf("%w: its length is wrong", errPacket)
	case size > maxPacketBytes:
		return packet{}, 0, fmt.Errorf("%w: %d bytes, the limit is %d", errPacket, size, maxPacketBytes)
	}
	end := 1 + n + int(size)
	if len(data) < end {
		return packet{}, 0, nil
	}
	p, err := parse(data[0], data[1+n:end])
	if err != nil {
		return packet{}, 0, err
	}
	return p, end, nil
}

func parse(first byte, body []byte) (packet, error) {
	p := packet{kind: first >> 4}
	if p.kind == kindPublish {
		return parsePublish(first, body)
	}
	if first&0x0f != 0 {
		return packet{}, fmt.Errorf("%w: flags %x of kind %d", errPacket, first&0x0f, p.kind)
	}
	want := map[byte]int{kindConnack: 2, kindPuback: 2, kindSuback: 3, kindPingresp: 0}
	if size, known := want[p.kind]; !known || size != len(body) {
		return packet{}, fmt.Errorf("%w: kind %d with %d bytes", errPacket, p.kind, len(body))
	}
	switch p.kind {
	case kindConnack:
		p.code = body[1]
	case kindPuback, kindSuback:
		p.id = binary.BigEndian.Uint16(body)
		if p.kind == kindSuback {
			p.code = body[2]
		}
	}
	return p, nil
}

func parsePublish(first byte, body []byte) (packet, error) {
	p := packet{kind: kindPublish, dup: first&0x08 != 0, qos: first >> 1 & 3}
	if p.qos > 1 || first&1 != 0 {
		return packet{}, fmt.Errorf("%w: PUBLISH of QoS %d, flags %x", errPacket, p.qos, first&0x0f)
	}
	need := 2
	if len(body) >= 2 {
		need += int(binary.BigEndian.Uint16(body)) + 2*int(p.qos)
	}
	if len(body) < need {
		return packet{}, fmt.Errorf("%w: PUBLISH ends early", errPacket)
	}
	end := need - 2*int(p.qos)
	p.topic, p.payload = body[2:end], body[need:]
	if p.qos > 0 {
		p.id = binary.BigEndian.Uint16(body[end:])
	}
	return p, nil
}
