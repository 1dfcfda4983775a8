package store

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/internal/wire"
)

// Nearly every block is the next of its stream. The keys of the numbers around
// it are in the box's row of newest, which its message changes anyway: so it
// touches no page of block_key, but once in 64 blocks. A row of keys that is
// open counts in place of the one in block_key, which is older and has no key
// that the open one lacks.
//
// Open rows follow each other, the last used last: the stream in 8 bytes, the
// lane in 1, the chunk in 8, the number of keys in 1, and the keys as in
// block_key.
const (
	openHead = 8 + 1 + 8 + 1
	// maxOpenBytes bounds what is rewritten with every message of a box: some
	// rows, as a box has one a lane, and one more for what it sends late. Those
	// of a stream that ended are not kept: they would make each of its messages
	// dirty a page of its own.
	maxOpenBytes = 1 << 10
	// maxOpenKeys: a row with as many has all that is likely to come.
	maxOpenKeys = 1<<chunkBits - 1
)

// eachOpen calls f for the open rows of a box.
func eachOpen(box identity.ID, open []byte, f func(chunkID, []byte)) error {
	for in := (input{rest: open}); len(in.rest) > 0; {
		sid, lane, number := in.eight(), in.octet(), in.eight()
		body := in.take(int(in.octet()) * entrySize)
		if in.short {
			return fmt.Errorf("open keys of %s: %w", box, errDamaged)
		}
		f(chunkID{box, int64(binary.BigEndian.Uint64(sid[:])), wire.Lane(lane), int64(binary.BigEndian.Uint64(number[:]))}, body)
	}
	return nil
}

func appendOpen(out []byte, id chunkID, body []byte) []byte {
	out = binary.BigEndian.AppendUint64(out, uint64(id.sid))
	out = binary.BigEndian.AppendUint64(append(out, byte(id.lane)), uint64(id.chunk))
	return append(append(out, byte(len(body)/entrySize)), body...)
}

// shut chooses what stays open of each box, sets the new rows of newest and
// returns the rows of block_key that are to be written.
func (c *commit) shut() map[chunkID]*chunk {
	used := map[identity.ID][]chunkID{}
	for id, k := range c.keys.rows {
		if k.dirty {
			used[id.box] = append(used[id.box], id)
		}
	}
	done := map[chunkID]*chunk{}
	for _, b := range c.order {
		ids := used[b.id]
		if len(ids) == 0 {
			continue
		}
		slices.SortFunc(ids, chunkID.compare)
		ids = append(slices.DeleteFunc(b.open, func(id chunkID) bool { return c.keys.rows[id].dirty }), ids...)
		size, stay := 0, len(ids)
		streams := map[wire.Lane]int64{}     // that are used now
		for i := len(ids) - 1; i >= 0; i-- { // the last used first
			k := c.keys.rows[ids[i]]
			need := openHead + len(k.body)
			now, ok := streams[ids[i].lane]
			if !ok {
				streams[ids[i].lane] = ids[i].sid
			}
			ended := ok && now != ids[i].sid && !k.dirty // its spool began anew
			if ended || len(k.body)/entrySize > maxOpenKeys || size+need > maxOpenBytes {
				done[ids[i]] = k
				continue
			}
			size += need
			stay--
			ids[stay] = ids[i]
		}
		b.row.openKeys = make([]byte, 0, size)
		for _, id := range ids[stay:] {
			b.row.openKeys = appendOpen(b.row.openKeys, id, c.keys.rows[id].body)
		}
	}
	return done
}
