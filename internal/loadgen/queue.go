package loadgen

import "container/heap"

// queue has the devices of a shard in the order in which they are due.
type queue struct {
	all   []device
	order []int32
}

func (q *queue) Len() int           { return len(q.order) }
func (q *queue) Less(i, j int) bool { return q.all[q.order[i]].due < q.all[q.order[j]].due }
func (q *queue) Swap(i, j int) {
	q.order[i], q.order[j] = q.order[j], q.order[i]
	q.all[q.order[i]].place, q.all[q.order[j]].place = int32(i), int32(j)
}
func (q *queue) Push(any) { panic("loadgen: devices are made once") }
func (q *queue) Pop() any { panic("loadgen: devices are made once") }

func newQueue(all []device) *queue {
	q := &queue{all: all, order: make([]int32, len(all))}
	for i := range all {
		q.order[i], all[i].place, all[i].due = int32(i), int32(i), all[i].nextDue()
	}
	heap.Init(q)
	return q
}

// settle puts a device where its times say.
func (q *queue) settle(d *device) {
	if due := d.nextDue(); due != d.due {
		d.due = due
		heap.Fix(q, int(d.place))
	}
}

// first is the device that is due first.
func (q *queue) first() *device { return &q.all[q.order[0]] }
