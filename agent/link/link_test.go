package link_test

import (
	"math"
	"net"
	"net/url"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/edgeherd/edgeherd/agent/link"
	"github.com/edgeherd/edgeherd/internal/memnet"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// until waits for cond, on fake time.
func (r *rig) until(limit time.Duration, what string, cond func() bool) {
	r.t.Helper()
	for end := time.Now().Add(limit); !cond(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			r.t.Fatalf("not within %v: %s; %+v, %+v", limit, what, r.Status(), r.spool.Buffer())
		}
	}
}

func TestBlocksAreDeliveredAndMarked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{})
		r.add(100)
		r.until(time.Minute, "100 blocks delivered", r.delivered)
		if b := r.spool.Buffer(); b.Window != 100 {
			t.Errorf("buffer %+v", b)
		}
		st := r.Status()
		if !st.Connected || st.Acked != 100 || st.Sent != 100 || st.Run != run1 {
			t.Errorf("status %+v", st)
		}
		f.with(func() {
			h := f.hellos[0]
			if h.SID != r.spool.SID() || h.Conn != 1 || h.Nonce == (wire.Nonce{}) || h.Inventory.Serial != "�" {
				t.Errorf("hello %+v", h)
			}
		})
		r.stop()
		synctest.Wait()
		f.with(func() {
			if f.clean != 1 {
				t.Error("the box did not say good-bye, so its Will is sent")
			}
			// DISCONNECT has deleted the Will: brokers of others would tell nobody.
			if want := []wire.Will{{SID: r.spool.SID(), Conn: 1}}; !slices.Equal(f.wills, want) {
				t.Errorf("the box published wills %+v before, want %+v", f.wills, want)
			}
		})
	})
}

// TestAPubackDeliversNothing is trap T1: the broker takes everything, the
// controller stores nothing.
func TestAPubackDeliversNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.noAck = func(wire.Key) bool { return true }
		r := start(t, f, link.Options{})
		r.add(3)
		time.Sleep(5 * time.Minute)
		if b := r.spool.Buffer(); b.Blocks != 3 || r.Status().Acked != 0 {
			t.Errorf("buffer %+v", b)
		}
		if n := r.Status().Repeated; n < 3*2 || n > 3*4 { // after 30, 90, 210 s
			t.Errorf("%d repeats in 5 minutes", n)
		}
		f.with(func() { f.noAck = nil })
		r.until(15*time.Minute, "delivered after all", r.delivered)
	})
}

// TestPahoFailsTheTokensOfALostConnection holds the options that make paho
// honest (trap T1): without AutoReconnect, with CleanSession.
func TestPahoFailsTheTokensOfALostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		l, err := n.Listen("ctl:1")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			packets.ReadPacket(conn)
			packets.NewControlPacket(packets.Connack).Write(conn)
			packets.ReadPacket(conn) // the PUBLISH, which is not acknowledged
			conn.Close()
		}()
		c := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tcp://x").SetProtocolVersion(4).
			SetAutoReconnect(false).SetConnectRetry(false).SetCleanSession(true).
			SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
				return n.Dial(t.Context(), "box", "ctl:1")
			}))
		if token := c.Connect(); !token.WaitTimeout(time.Minute) || token.Error() != nil {
			t.Fatal(token.Error())
		}
		token := c.Publish("x", 1, false, "x")
		if !token.WaitTimeout(time.Minute) {
			t.Fatal("the token stays open for ever")
		}
		if token.Error() == nil {
			t.Error("the token reports success without a PUBACK")
		}
	})
}

// TestAFloodFromTheControllerDoesNotStall is traps T2 and T6: messages with
// and without meaning, while blocks go up. All get their PUBACK.
func TestAFloodFromTheControllerDoesNotStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{})
		r.until(time.Minute, "link up", r.Connected)
		before := 0
		f.with(func() { before = f.pubacks })
		s := f.last()
		go func() {
			for range 300 {
				s.send(wire.TopicCmd, wire.Cmd{})
				s.send("dn/unknown", wire.Cmd{})
				s.send(wire.TopicWant, wire.Want{Desired: []byte("x")})
			}
		}()
		r.add(200)
		r.until(2*time.Minute, "delivered", r.delivered)
		r.until(time.Minute, "900 PUBACKs", func() (ok bool) {
			f.with(func() { ok = f.pubacks >= before+900 })
			return ok
		})
		if n := r.Status().Connections; n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

// TestADeadConnectionIsNoticed is trap T5.
func TestADeadConnectionIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{KeepAlive: time.Minute})
		r.until(time.Minute, "link up", r.Connected)
		f.net.Blackhole("box", "ctl")
		began := time.Now()
		r.until(2*time.Minute, "noticed", func() bool { return !r.Connected() })
		if took := time.Since(began); took > 80*time.Second {
			t.Errorf("noticed after %v", took)
		}
		r.add(1)
		f.net.Heal("box", "ctl")
		r.until(5*time.Minute, "delivered", r.delivered)
	})
}

func TestAWithheldPubackEndsTheConnectionOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.noPuback, f.noAck = true, func(wire.Key) bool { return true }
		r := start(t, f, link.Options{})
		r.add(1)
		time.Sleep(time.Hour)
		st := r.Status()
		// 30 s each, then waits that grow to between 1 s and 5 min.
		if st.Connections < 12 || st.Connections > 60 || st.Refused != 0 {
			t.Errorf("in an hour: %+v", st)
		}
		f.with(func() { f.noPuback, f.noAck = false, nil })
		r.until(10*time.Minute, "delivered", r.delivered)
	})
}

func TestAnAckOfAnUnknownRunAsksFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{})
		r.until(time.Minute, "link up", r.Connected)
		time.Sleep(10 * time.Second)
		f.with(func() { f.run = run2; f.silent = true }) // restarted behind the broker
		r.add(2)
		time.Sleep(10 * time.Second)
		if r.spool.Buffer().Blocks != 2 {
			t.Error("an ACK of a run without WELCOME was believed")
		}
		f.with(func() {
			if len(f.hellos) != 2 {
				t.Errorf("%d HELLOs", len(f.hellos))
			}
			f.silent = false
			f.sessions[0].greet(f.hellos[0]) // with an old nonce
		})
		time.Sleep(time.Second)
		if r.spool.Buffer().Blocks != 2 || r.Status().Run != run1 {
			t.Error("a WELCOME with an old nonce was believed")
		}
		f.with(func() { f.sessions[0].greet(f.hellos[1]) })
		r.until(5*time.Second, "delivered", r.delivered)
		if st := r.Status(); st.Run != run2 || st.Connections != 1 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestWhatTheDatabaseLostIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{})
		r.add(10)
		r.until(time.Minute, "delivered", r.delivered)
		f.with(func() {
			f.run = run2
			f.datas = nil
			f.onHello = func(s *session, h wire.Hello) { // restored from before the run
				s.send(wire.TopicWelcome, wire.Welcome{V: 1, Nonce: h.Nonce, Run: run2})
			}
		})
		f.last().conn.Close()
		r.until(time.Minute, "sent again", func() (ok bool) {
			n := 0
			f.with(func() {
				for _, d := range f.datas {
					n += len(d.Blocks)
				}
			})
			return n == 10 && r.delivered()
		})
	})
}

// TestAnAckThatOvertakesAWelcomeIsNotWithdrawn: the controller asks for a second
// HELLO while blocks are in flight, as it does after each start of a box. What
// answers it knows nothing of the run that this HELLO could not name; their ACK
// comes first.
func TestAnAckThatOvertakesAWelcomeIsNotWithdrawn(t *testing.T) {
	for name, answered := range map[string]bool{"WELCOME comes later": true, "WELCOME never comes": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := startFake(t)
				r := start(t, f, link.Options{})
				r.until(time.Minute, "link up", r.Connected)
				f.with(func() { f.silent = true })
				f.last().send(wire.TopicCmd, wire.Cmd{Question: 1})
				synctest.Wait()
				r.add(3)
				synctest.Wait()
				f.with(func() {
					if len(f.hellos) != 2 || len(f.hellos[1].Runs) != 0 || len(f.datas) == 0 {
						t.Fatalf("HELLOs %+v, %d DATA", f.hellos, len(f.datas))
					}
					if f.silent = false; answered {
						f.sessions[0].greet(f.hellos[1])
					}
				})
				time.Sleep(5 * time.Minute)
				if st := r.Status(); !r.delivered() || st.Sent != 3 || st.Acked != 3 {
					t.Errorf("3 blocks that were stored once: %+v, %+v", st, r.spool.Buffer())
				}
			})
		})
	}
}

// TestAPoisonBlockDoesNotStopTheOthers has the broker hang up on one block.
func TestAPoisonBlockDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{})
		const seq = 14 // known before the block is made, and so before it is sent
		f.with(func() {
			f.hangUp = func(d wire.Data) bool {
				for _, b := range d.Blocks {
					if b.Key.Seq == seq && b.Kind != wire.KindGap {
						return true
					}
				}
				return false
			}
		})
		poison := r.add(30)[seq-1]
		r.until(10*time.Minute, "the other 29", func() bool { return r.spool.Buffer().Blocks <= 1 })
		r.until(2*time.Hour, "poison set aside", func() bool { return r.Status().Refused == 1 })
		r.until(10*time.Minute, "its gap delivered", r.delivered)
		f.with(func() {
			var g wire.Gap
			var err error
			for _, d := range f.datas {
				if b := d.Blocks[0]; b.Kind == wire.KindGap {
					g, err = wire.DecodeGap(b.Payload)
				}
			}
			if err != nil || g.Reason != wire.ReasonRefused || g.From != poison.Seq || g.Count != 1 {
				t.Errorf("gap %+v, %v", g, err)
			}
		})
	})
}

// TestABadLinkMakesNoPoison cuts the connection soon after each DATA, many
// times over: nothing may be set aside, since nothing ends when it is sent alone
// time after time.
func TestABadLinkMakesNoPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		var n atomic.Int64
		f.hangUp = func(wire.Data) bool { return n.Add(1)%3 != 0 }
		r := start(t, f, link.Options{})
		r.add(100)
		r.until(6*time.Hour, "delivered", r.delivered)
		if st := r.Status(); st.Refused != 0 {
			t.Errorf("%d blocks set aside", st.Refused)
		}
	})
}

// TestALinkThatPassesNothingMakesNoPoison has every DATA end the connection, as
// a firewall that dislikes it would.
func TestALinkThatPassesNothingMakesNoPoison(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.hangUp = func(wire.Data) bool { return true }
		r := start(t, f, link.Options{})
		r.add(20)
		time.Sleep(12 * time.Hour)
		if st := r.Status(); st.Refused != 0 {
			t.Errorf("%d blocks set aside", st.Refused)
		}
		f.with(func() { f.hangUp = nil })
		r.until(time.Hour, "delivered", r.delivered)
	})
}

func TestARefusedBlockIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.noAck = func(k wire.Key) bool { return k.Lane == wire.LaneTelemetry && k.Seq == 2 }
		r := start(t, f, link.Options{})
		keys := r.add(3)
		r.until(time.Minute, "two acked", func() bool { return r.Status().Acked == 2 })
		f.last().send(wire.TopicAck, wire.Ack{Run: run1, LSN: 9, Refused: keys[1:2]})
		r.until(time.Minute, "set aside", func() bool { return r.Status().Refused == 1 && r.delivered() })
		if st := r.Status(); st.Connections != 1 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestTheWindowBoundsWhatIsInFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.welcome = wire.Welcome{WindowCount: 5}
		f.noAck = func(wire.Key) bool { return true }
		r := start(t, f, link.Options{})
		r.add(50)
		time.Sleep(20 * time.Second)
		if st := r.Status(); st.Sent != 5 || st.InFlight != 5 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestTheBacklogWaitsAndTheLiveDoesNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.welcome = wire.Welcome{DrainMs: 600_000}
		f.net.CutAll("ctl")
		r := start(t, f, link.Options{MaxBackoff: time.Second})
		r.add(20)
		time.Sleep(10 * time.Second)
		f.net.HealAll("ctl")
		r.until(time.Minute, "link up", r.Connected)
		r.add(2)
		time.Sleep(time.Minute)
		if st := r.Status(); st.Acked != 2 {
			t.Errorf("before the backlog may go: %+v", st)
		}
		r.until(10*time.Minute, "delivered", r.delivered)
	})
}

// A controller that errs cannot silence the backlog for good, nor have live
// samples sent for ever, whatever number it says.
func TestWaitsAndWatchingAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.welcome = wire.Welcome{DrainMs: math.MaxInt64, LiveMs: math.MaxInt64}
		live := make(chan time.Duration, 2)
		r := start(t, f, link.Options{OnLive: func(d time.Duration) { live <- d }})
		r.until(time.Minute, "link up", r.Connected)
		if d := <-live; d != 10*time.Minute {
			t.Errorf("live samples for %v", d)
		}
		r.add(1) // younger than the connection
		r.until(time.Minute, "delivered", r.delivered)
		f.last().send(wire.TopicCmd, wire.Cmd{LiveMs: math.MaxInt64})
		if d := <-live; d != 10*time.Minute {
			t.Errorf("live samples for %v when asked", d)
		}
		f.net.CutAll("ctl")
		r.until(5*time.Minute, "link lost", func() bool { return !r.Connected() })
		r.add(20)
		f.net.HealAll("ctl")
		r.until(10*time.Minute, "link up again", r.Connected)
		up := time.Now()
		r.until(2*time.Hour, "delivered", r.delivered)
		if waited := time.Since(up); waited < 59*time.Minute || waited > 61*time.Minute {
			t.Errorf("the backlog waited %v, want an hour", waited)
		}
	})
}

func TestASchemaIsSentUntilABlockWithItWasAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.noAck = func(wire.Key) bool { return true }
		r := start(t, f, link.Options{})
		r.addSample()
		time.Sleep(45 * time.Second) // sent twice
		f.with(func() { f.noAck = nil })
		r.until(2*time.Minute, "delivered", r.delivered)
		r.addSample()
		r.until(time.Minute, "delivered", r.delivered)
		f.with(func() {
			for i, d := range f.datas {
				if want := i < len(f.datas)-1; (len(d.Schemas) == 1) != want {
					t.Errorf("DATA %d of %d has %d schemas", i+1, len(f.datas), len(d.Schemas))
				}
			}
		})
	})
}

// TestASchemaIsSentAgainWhereItMayBeUnknown: a HELLO on the same connection may
// reach another database, and a refused block may have brought nothing.
func TestASchemaIsSentAgainWhereItMayBeUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{})
		send := func(want int, what string) (key wire.Key) {
			t.Helper()
			key = r.addSample()
			time.Sleep(10 * time.Second)
			f.with(func() {
				for _, d := range f.datas {
					if d.Blocks[0].Key == key && len(d.Schemas) != want {
						t.Errorf("%s: DATA with %d schemas, want %d", what, len(d.Schemas), want)
					}
				}
			})
			return key
		}
		f.with(func() { f.noAck = func(wire.Key) bool { return true } })
		key := send(1, "the first block")
		f.last().send(wire.TopicAck, wire.Ack{Run: run1, LSN: 1, Refused: []wire.Key{key}})
		r.until(time.Minute, "set aside", func() bool { return r.Status().Refused == 1 })
		f.with(func() { f.noAck = nil })
		send(1, "after one that was refused")
		send(0, "after one that was acknowledged")
		f.last().send(wire.TopicCmd, wire.Cmd{Hello: true})
		r.until(time.Minute, "delivered", r.delivered)
		send(1, "after a WELCOME that does not name it")
		if st := r.Status(); st.Connections != 1 || st.Acked != 4 {
			t.Errorf("status %+v", st)
		}
	})
}

func TestConnectionsAreTriedWithJitterWithinBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		var at []time.Time
		began := time.Now()
		r := start(t, f, link.Options{FirstDelay: time.Minute, MinBackoff: time.Second, MaxBackoff: 5 * time.Minute})
		f.net.CutAll("ctl")
		for time.Since(began) < 6*time.Hour {
			if n := r.Status().Connections; n > uint64(len(at)) {
				at = append(at, time.Now())
			}
			time.Sleep(50 * time.Millisecond)
		}
		if d := at[0].Sub(began); d > time.Minute {
			t.Errorf("first attempt after %v", d)
		}
		if len(at) < 70 || len(at) > 400 {
			t.Errorf("%d attempts in 6 hours", len(at))
		}
		for i := 1; i < len(at); i++ {
			if d := at[i].Sub(at[i-1]); d < 900*time.Millisecond || d > 5*time.Minute+time.Second {
				t.Errorf("attempt %d after %v", i, d)
			}
		}
	})
}

func TestDesiredStateAndLiveReachTheAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.welcome = wire.Welcome{Desired: []byte("first"), LiveMs: 5000}
		desired, live := make(chan string, 9), make(chan time.Duration, 9)
		care := make(chan wire.Care, 9)
		r := start(t, f, link.Options{
			OnCare:    func(c wire.Care) { care <- c },
			OnDesired: func(e []byte) { desired <- string(e) },
			OnLive:    func(d time.Duration) { live <- d },
		})
		if got := <-desired; got != "first" {
			t.Errorf("from WELCOME: %q", got)
		}
		if got := <-live; got != 5*time.Second {
			t.Errorf("from WELCOME: %v", got)
		}
		f.last().send(wire.TopicWant, wire.Want{Desired: []byte("second")})
		f.last().send(wire.TopicCmd, wire.Cmd{LiveMs: 7000})
		if got := <-desired; got != "second" {
			t.Errorf("from WANT: %q", got)
		}
		if got := <-live; got != 7*time.Second {
			t.Errorf("from CMD: %v", got)
		}
		f.last().send(wire.TopicCare, wire.Care{V: wire.Version, TripC: 95})
		if got := <-care; got.TripC != 95 {
			t.Errorf("from CARE: %+v", got)
		}
		for range 5 { // a burst: the newest is enough
			r.PublishLive(wire.Live{WallMs: 1})
		}
		synctest.Wait()
		f.with(func() {
			if f.lives == 0 {
				t.Error("no LIVE arrived")
			}
		})
	})
}

func TestHelloIsRepeatedOnALongConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{HelloEvery: time.Hour})
		time.Sleep(10*time.Hour + time.Minute)
		f.with(func() {
			if n := len(f.hellos); n < 11 || n > 14 {
				t.Errorf("%d HELLOs in 10 hours", n)
			}
		})
		f.last().send(wire.TopicCmd, wire.Cmd{Hello: true})
		before := 0
		f.with(func() { before = len(f.hellos) })
		r.until(time.Minute, "HELLO on request", func() (ok bool) {
			f.with(func() { ok = len(f.hellos) > before })
			return ok
		})
		if st := r.Status(); st.Connections != 1 {
			t.Errorf("status %+v", st)
		}
	})
}

// TestRunEndsWhileConnecting ends the link during a dial and during a CONNECT
// without answer.
func TestRunEndsWhileConnecting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		f.net.Blackhole("box", "ctl")
		r := start(t, f, link.Options{})
		time.Sleep(5 * time.Second)
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		n := memnet.New()
		l, err := n.Listen("ctl:1")
		if err != nil {
			t.Fatal(err)
		}
		f := &fake{t: t, net: n}
		r := start(t, f, link.Options{})
		mute, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		began := time.Now()
		r.stop()
		if took := time.Since(began); took > time.Second {
			t.Errorf("took %v", took)
		}
		mute.Close()
		l.Close()
	})
}

// TestASecondWelcomeToOneHelloIsIgnored: a HELLO doubled on its way is answered
// twice, and the answer that comes last may be of a run that is gone.
func TestASecondWelcomeToOneHelloIsIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startFake(t)
		r := start(t, f, link.Options{})
		r.until(time.Minute, "link up", r.Connected)
		f.with(func() {
			f.run = run2
			f.sessions[0].greet(f.hellos[0])
		})
		time.Sleep(time.Second)
		if got := r.Status().Run; got != run1 {
			t.Errorf("the box follows run %s after a second answer, want %s", got, run1)
		}
		f.with(func() { f.run = run1 })
		r.add(2)
		r.until(time.Minute, "delivered", r.delivered)
	})
}
