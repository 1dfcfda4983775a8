// Package loadgen is thousands of devices in one process: they speak protocol
// v1 over raw MQTT 3.1.1, with real blocks, and every block they make is booked.
//
// A device is one life of one box: about 400 bytes of state, no goroutine and
// no buffer of its own. A shard owns a share of the devices, an epoll
// instance and one goroutine. Handshakes, which block, run on a bounded pool;
// what has shaken hands is served by its shard. A block is a function of a few
// numbers, so a device keeps those and makes the bytes again to send again.
// Faults come from one seed: messages that get lost, come twice or break off,
// devices that restart, whole fleets that reconnect at once, clocks that jump,
// and twins: two devices that go on from one disk image or memory snapshot.
//
//	LEDGER   every block that was made, and every one that was acknowledged;
//	         a line of JSON with the ids of the boxes, then fixed records
//
// Linux only: it uses epoll, and reads /proc of the controller.
//
// The one rule a caller can break: only on machines of your own. Run opens as
// many connections as it is told to, and hostile ones when it is asked to.
package loadgen
