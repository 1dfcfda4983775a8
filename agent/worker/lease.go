package worker

import (
	"sync/atomic"
	"unsafe"
)

// leases is how many regions of the ring callers may fill themselves.
const leases = 4

// Lease is shared memory that a caller fills before it calls Run: tensors in
// it that begin at a multiple of 64 bytes are not copied, and the outputs of
// Run stay in it. It outlives its worker.
type Lease struct {
	w    *Worker
	n    int // its region
	size int64
	refs atomic.Int32
}

// Lease returns memory for n bytes of input, or nil when there is none now or
// the request is too large. The caller calls Release when it needs neither the
// inputs nor the outputs any more.
func (w *Worker) Lease(n int64) *Lease {
	if n <= 0 || align(n) > w.ring.max/2 {
		return nil
	}
	select {
	case at := <-w.lent:
		if !w.ring.hold() {
			w.lent <- at
			return nil // closed
		}
		l := &Lease{w: w, n: at, size: n}
		l.refs.Store(1)
		return l
	default:
		return nil
	}
}

// Bytes is the memory; its first byte is at a multiple of 64.
func (l *Lease) Bytes() []byte {
	base := l.w.regions[l.n].base
	return l.w.ring.bytes(base, l.size)
}

// Release gives the memory back. Out of the request it was for is void then.
func (l *Lease) Release() {
	if l.refs.Add(-1) > 0 {
		return // the worker may use it still
	}
	g := &l.w.regions[l.n]
	l.w.ring.trim(g.base, max(g.end, g.base+l.size))
	g.end = g.base
	l.w.lent <- l.n
	_ = l.w.ring.release() // only address space is at stake
}

// offset is where data lies in the ring, if it lies in the lease as ONNX
// Runtime needs it.
func (l *Lease) offset(data []byte) (int64, bool) {
	memory := l.Bytes()
	at := uintptr(unsafe.Pointer(unsafe.SliceData(data))) - uintptr(unsafe.Pointer(unsafe.SliceData(memory)))
	if len(data) == 0 || at > uintptr(len(memory)) || at%alignment != 0 {
		return 0, false
	}
	return l.w.regions[l.n].base + int64(at), true
}

// lease is that of the only request of b, if it is one of w.
func (b *Batch) lease(w *Worker) *Lease {
	if len(b.Requests) != 1 || b.Requests[0].Lease == nil || b.Requests[0].Lease.w != w {
		return nil
	}
	return b.Requests[0].Lease
}
