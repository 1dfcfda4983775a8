package link

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Knock asks a broker for a session and ends it at once: nothing is subscribed
// and nothing sent. It is for a doctor, while no agent of the box is connected:
// a session more than the controller allows would be refused.
func Knock(ctx context.Context, conn net.Conn, id identity.ID) error {
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return fmt.Errorf("knock at broker: %w", err)
		}
	}
	var sid wire.SID
	rand.Read(sid[:]) // never fails since Go 1.24
	hello := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	hello.ProtocolName, hello.ProtocolVersion = "MQTT", 4
	hello.CleanSession, hello.Keepalive = true, uint16(time.Minute/time.Second)
	hello.ClientIdentifier = wire.ClientID(id, sid)
	if err := hello.Write(conn); err != nil {
		return fmt.Errorf("knock at broker: %w", err)
	}
	answer, err := packets.ReadPacket(conn)
	if err != nil {
		return err // dial says what it means
	}
	ack, ok := answer.(*packets.ConnackPacket)
	if !ok {
		return fmt.Errorf("knock at broker: it answers CONNECT with %s", answer)
	}
	if ack.ReturnCode != packets.Accepted {
		return fmt.Errorf("the broker refuses the box: %w; the controller's log says why", packets.ConnErrors[ack.ReturnCode])
	}
	if err := packets.NewControlPacket(packets.Disconnect).Write(conn); err != nil {
		return fmt.Errorf("end session after knocking: %w", err)
	}
	return nil
}
