package fan

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"
)

// goodbye is what an agent says that has given the fan back itself.
const goodbye = "bye\n"

// guardSilence is how long a guard waits for a sign of life. The agent gives
// one each sense period, which is shorter where a policy is in force.
const guardSilence = 30 * time.Second

// Guard is the guard's process. It reads an Order and then signs of life, and
// restores the fan when they end: the agent has died, hangs, or ctx is done.
func Guard(ctx context.Context, in io.Reader) error {
	lines := make(chan string)
	go func() {
		defer close(lines)
		r := bufio.NewReader(in)
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			select {
			case lines <- line:
			case <-ctx.Done():
				return
			}
		}
	}()
	var order Order
	select {
	case line := <-lines:
		if err := json.Unmarshal([]byte(line), &order); err != nil || order.Mode == "" {
			return fmt.Errorf("guard of the fan: %q is no order", strings.TrimSpace(line))
		}
	case <-ctx.Done():
		return nil
	}
	silence := time.NewTimer(guardSilence)
	defer silence.Stop()
	for {
		select {
		case line, alive := <-lines:
			if line == goodbye {
				return nil
			}
			if !alive {
				return order.restore()
			}
			silence.Reset(guardSilence)
		case <-silence.C:
			return order.restore()
		case <-ctx.Done():
			return order.restore()
		}
	}
}
