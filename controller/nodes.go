package controller

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/controller/cluster"
	"github.com/edgeherd/edgeherd/internal/durable"
	contract "github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// What all controllers of one database have in common.
const (
	agreedCA      = "ca"
	agreedSigning = "signing key"
	agreedBlobs   = "blobs"
)

// blobsMark is a file in the folder of blobs by which controllers know that
// they share it.
const blobsMark = "fleet.id"

// joinFleet makes this controller one of those on its database, if others may
// be there.
func (c *Controller) joinFleet(ctx context.Context) error {
	if !c.store.Shared() {
		return nil
	}
	name, err := os.Hostname()
	if err != nil {
		name = "controller"
	}
	c.node = cluster.New(cluster.Options{
		ID: c.nodeID, Name: name, Store: c.store, Watching: c.hub.Watching,
		Tell: c.hearTell, Deaf: c.deaf, Wake: c.wakeConductor,
		Change: c.hub.Receive,
		Gone: func(boxes []identity.ID) {
			for _, id := range boxes {
				c.boxChanged(id)
			}
		},
	}, c.log)
	c.hub.Forward(c.node.Share)
	return c.node.Beat(ctx)
}

// checkKeys refuses to make keys of its own beside those of the fleet.
func (c *Controller) checkKeys(ctx context.Context) error {
	if !c.store.Shared() {
		return nil
	}
	for _, k := range []struct{ key, file string }{
		{agreedCA, filepath.Join("ca", "ca-key.pem")}, {agreedSigning, filepath.Join("keys", "signing.key")},
	} {
		agreed, err := c.store.Agreed(ctx, k.key)
		if err != nil {
			return err
		}
		if _, err := os.Stat(filepath.Join(c.opts.Dir, k.file)); agreed != "" && errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the database has controllers already, and %s is missing here: copy the folders ca and keys from the state directory of one of them to %s", k.file, c.opts.Dir)
		}
	}
	return nil
}

// agreeOnKeys makes sure that all controllers of the database have the same
// keys and the same folder of blobs.
func (c *Controller) agreeOnKeys(ctx context.Context) error {
	if !c.store.Shared() {
		return nil
	}
	var roots []string // the one that signs first
	for _, r := range c.ca.Roots() {
		roots = append(roots, contract.PinOf(r).String())
	}
	for _, k := range []struct {
		key    string
		values []string
		folder string
	}{
		{agreedCA, roots, "ca"},
		{agreedSigning, []string{string(c.key.Public().ID())}, "keys"},
	} {
		agreed, err := c.store.Agree(ctx, k.key, k.values[0], k.values[1:]...)
		if err != nil {
			return err
		}
		if agreed != k.values[0] {
			return fmt.Errorf("the %s in %s differs from that of the other controllers on this database: copy the folder %s from the state directory of one of them, or use a database of its own",
				k.key, filepath.Join(c.opts.Dir, k.folder), k.folder)
		}
	}
	return c.agreeOnBlobs(ctx)
}

func (c *Controller) agreeOnBlobs(ctx context.Context) error {
	if b := c.opts.S3; b != nil { // the folder is a cache, each controller has its own
		mine := "bucket " + b.Bucket + " " + b.Prefix
		agreed, err := c.store.Agree(ctx, agreedBlobs, mine)
		if err == nil && agreed != mine {
			err = fmt.Errorf("the other controllers on this database keep models in %q, this one in %q: give them the same settings s3", agreed, mine)
		}
		return err
	}
	file := filepath.Join(c.blobs.Dir(), blobsMark)
	text, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at the folder of blobs: %w", err)
	}
	mine := strings.TrimSpace(string(text))
	if mine == "" {
		agreed, err := c.store.Agreed(ctx, agreedBlobs)
		if err != nil {
			return err
		}
		if agreed != "" {
			return c.otherBlobs()
		}
		var raw [8]byte
		rand.Read(raw[:])
		mine = hex.EncodeToString(raw[:])
		if err := durable.WriteFile(file, []byte(mine+"\n"), 0o644); err != nil {
			return err
		}
	}
	agreed, err := c.store.Agree(ctx, agreedBlobs, mine)
	if err == nil && agreed != mine {
		return c.otherBlobs()
	}
	return err
}

func (c *Controller) otherBlobs() error {
	return fmt.Errorf("%s is not the folder of blobs of the other controllers on this database: mount theirs on this machine and name it with the key \"blobs\" of server.yaml; to move theirs, stop them all and copy the whole folder", c.blobs.Dir())
}

// leave ends this controller's part among the others, once its sessions have.
func (c *Controller) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.node.Leave(ctx); err != nil {
		c.log.Warn("the other controllers will miss this one only after a while", "err", err)
	}
}

// leads reports whether this controller does what only one may do.
func (c *Controller) leads() bool { return c.node == nil || c.node.Leads() }

// asLeader returns a context for what only the leader writes; false when
// another controller leads.
func (c *Controller) asLeader(ctx context.Context) (context.Context, bool) {
	if c.node == nil {
		return ctx, true
	}
	return c.node.Fence(ctx)
}

// watching reports whether somebody looks at pages, of any controller.
func (c *Controller) watching() bool {
	if c.node == nil {
		return c.hub.Watching()
	}
	return c.node.Watching()
}

// act lets the leader look at rollouts at once.
func (c *Controller) act() {
	c.wakeConductor()
	if c.node != nil && !c.node.Leads() {
		c.node.WakeLeader()
	}
}

// hearTell takes a message for a box from another controller.
func (c *Controller) hearTell(id identity.ID, topic wire.Topic, payload []byte) {
	if len(c.broker.Sessions(id)) == 0 {
		return // WELCOME tells it at the next connection
	}
	var err error
	if topic == wire.TopicWant {
		payload, err = c.want(id)
	}
	if err == nil && payload != nil {
		err = c.broker.Publish(id, topic, payload, 1)
	}
	if err != nil {
		c.log.Debug("box not told for another controller", "device", id, "topic", string(topic), "err", err)
	}
}

// want is the message with the newest desired state of a box, nil if there is
// none.
func (c *Controller) want(id identity.ID) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if held, err := c.withheld(id); err != nil || held {
		return nil, err
	}
	envelope, err := c.store.DesiredEnvelope(ctx, id)
	if err != nil || len(envelope) == 0 {
		return nil, err
	}
	return wire.Encode(wire.Want{Desired: envelope})
}

// deaf notes that notices of others may have been missed.
func (c *Controller) deaf() {
	select {
	case c.missed <- struct{}{}:
	default:
	}
}

// catchUp makes up for missed notices, and for having counted as dead: every
// box here is asked to say HELLO, and pages read all again.
func (c *Controller) catchUp(ctx context.Context) error {
	hello, err := wire.Encode(wire.Cmd{Hello: true})
	if err != nil {
		panic("controller: a Cmd always encodes: " + err.Error())
	}
	pause := time.NewTicker(helloPause)
	defer pause.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.missed:
		}
		for _, topic := range fleetapi.ChangeTopics() {
			c.hub.Receive(fleetapi.Change{Topic: topic})
		}
		for _, id := range c.broker.Boxes() {
			if err := c.broker.Publish(id, wire.TopicCmd, hello, 1); err != nil {
				c.log.Debug("box not asked for a HELLO", "device", id, "err", err)
			}
			select {
			case <-ctx.Done():
				return nil
			case <-pause.C:
			}
		}
	}
}

// helloPause spreads the HELLOs that catchUp asks for.
const helloPause = time.Millisecond
