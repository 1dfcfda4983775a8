package loadgen

import (
	"bytes"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang/packets"
)

// The packets that devices send must mean to another implementation what they
// mean to us.
func TestPacketsAreReadByAnotherImplementation(t *testing.T) {
	long := bytes.Repeat([]byte("x"), 70_000)
	stream := appendConnect(nil, connect{clientID: "d-1:2", keepAlive: 60, willTopic: "a/will", will: []byte("gone")})
	stream = appendSubscribe(stream, 7, "a/dn/#")
	stream = appendPublish(stream, "a/up", packet{qos: 1, dup: true, id: 300, payload: long})
	stream = appendPublish(stream, "a/up", packet{payload: []byte("zero")})
	stream = appendDisconnect(appendPing(appendPuback(stream, 65535)))
	r := bytes.NewReader(stream)
	next := func() paho.ControlPacket {
		t.Helper()
		p, err := paho.ReadPacket(r)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	c := next().(*paho.ConnectPacket)
	if c.Validate() != paho.Accepted || c.ClientIdentifier != "d-1:2" || c.Keepalive != 60 || !c.CleanSession || c.WillTopic != "a/will" || string(c.WillMessage) != "gone" || c.WillQos != 1 || c.WillRetain {
		t.Errorf("CONNECT is %+v", c)
	}
	if s := next().(*paho.SubscribePacket); s.MessageID != 7 || s.Topics[0] != "a/dn/#" || s.Qoss[0] != 1 {
		t.Errorf("SUBSCRIBE is %+v", s)
	}
	if p := next().(*paho.PublishPacket); p.MessageID != 300 || !p.Dup || p.Qos != 1 || p.TopicName != "a/up" || !bytes.Equal(p.Payload, long) {
		t.Errorf("PUBLISH is %v", p.Details())
	}
	if p := next().(*paho.PublishPacket); p.Qos != 0 || string(p.Payload) != "zero" {
		t.Errorf("PUBLISH of QoS 0 is %+v", p)
	}
	if p := next().(*paho.PubackPacket); p.MessageID != 65535 {
		t.Errorf("PUBACK is %+v", p)
	}
	if _, ok := next().(*paho.PingreqPacket); !ok {
		t.Error("no PINGREQ")
	}
	if _, ok := next().(*paho.DisconnectPacket); !ok || r.Len() != 0 {
		t.Errorf("no DISCONNECT, or %d bytes after it", r.Len())
	}
}

func TestPacketsThatComeInPiecesWait(t *testing.T) {
	whole := appendPublish(nil, "a/dn/ack", packet{qos: 1, id: 9, payload: bytes.Repeat([]byte("y"), 200)})
	for cut := range whole {
		if _, n, err := nextPacket(whole[:cut]); n != 0 || err != nil {
			t.Fatalf("%d of %d bytes: took %d, %v", cut, len(whole), n, err)
		}
	}
	p, n, err := nextPacket(append(whole, 0xd0, 0))
	if err != nil || n != len(whole) || string(p.topic) != "a/dn/ack" || len(p.payload) != 200 || p.id != 9 {
		t.Fatalf("%+v, %d, %v", p, n, err)
	}
}

// FuzzPacket: what is read and can be written is written with the same bytes.
func FuzzPacket(f *testing.F) {
	f.Add(appendPublish(nil, "eh/1/x/dn/ack", packet{qos: 1, id: 3, payload: []byte{1, 2}}))
	f.Add(appendPublish(nil, "t", packet{payload: []byte{}}))
	f.Add(appendPuback(nil, 1))
	f.Add([]byte{0x20, 2, 0, 0})
	f.Add([]byte{0x90, 3, 0, 1, 1})
	f.Add([]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x01})
	f.Add([]byte{0x32, 0x82, 0x00, 0, 0})
	f.Fuzz(func(t *testing.T, data []byte) {
		p, n, err := nextPacket(data)
		if err != nil {
			if n != 0 || p.kind != 0 {
				t.Fatalf("an error comes with %+v, %d", p, n)
			}
			return
		}
		if n == 0 {
			return
		}
		var again []byte
		switch p.kind {
		case kindPublish:
			again = appendPublish(nil, p.topic, p)
		case kindPuback:
			again = appendPuback(nil, p.id)
		default:
			return
		}
		if !bytes.Equal(again, data[:n]) {
			t.Fatalf("%x is read and written as %x", data[:n], again)
		}
	})
}
