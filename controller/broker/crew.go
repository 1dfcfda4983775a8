package broker

import "errors"

// crewSize is how many messages are delivered at once. Half of them wait for
// their commit while the others are decoded; 200 in a commit cost little more
// than one.
const crewSize = 512

// errEnding says that the broker is going down.
var errEnding = errors.New("broker is ending")

// crew runs deliveries. The sink goes deep (CBOR, SQL), and a goroutine keeps
// the stack it has grown: 32 KB for each of 10,000 sessions instead of for some
// of 512 workers.
type crew struct {
	work  chan errand
	slots chan struct{} // a worker has been started for each
	quit  chan struct{} // closed when the last session has ended
}

type errand struct {
	do   func() error
	done chan<- error
}

func newCrew() *crew {
	return &crew{work: make(chan errand), slots: make(chan struct{}, crewSize), quit: make(chan struct{})}
}

// run has a worker call do and returns its result.
func (c *crew) run(do func() error) error {
	done := make(chan error, 1) // the worker goes on at once
	e := errand{do, done}
	select {
	case c.work <- e: // one is idle
	default:
		select {
		case c.work <- e:
		case c.slots <- struct{}{}:
			go c.serve(e)
		case <-c.quit:
			return errEnding
		}
	}
	return <-done
}

func (c *crew) serve(e errand) {
	for {
		e.done <- e.do()
		select {
		case e = <-c.work:
		case <-c.quit:
			return
		}
	}
}
