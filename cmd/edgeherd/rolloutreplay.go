package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

func (c *cli) rolloutEvents(ctx context.Context, client *fleetapi.Client, args []string) error {
	list, err := client.RolloutEvents(ctx, args[0])
	if err != nil {
		return err
	}
	s := sheet{kind: "rollout-event-list", item: "rollout-event", value: list, items: items(list.Items), head: []string{"STEP", "TIME", "DECISION"}}
	for _, e := range list.Items {
		s.rows = append(s.rows, []string{strconv.FormatInt(e.Seq, 10), e.Time.Format(time.RFC3339), oneLine(e.Text)})
	}
	return c.print(s)
}

// rolloutReplayCommand asks what another policy would have done.
func rolloutReplayCommand(c *cli) *cobra.Command {
	var file string
	cmd := c.verb("replay ID", "Show what another policy would have done on the same reports", func(ctx context.Context, args []string) error {
		var req fleetapi.ReplayRequest
		var err error
		if req.Policy, err = readPolicy(file); err != nil {
			return err
		}
		client, _, err := c.client()
		if err != nil {
			return err
		}
		r, err := client.Replay(ctx, args[0], req)
		if err != nil {
			return err
		}
		if !r.Faithful {
			c.say("The stored log does not give the stored decisions: it was written by another version of edgeherd.")
		} else if file == "" {
			c.say("The stored log gives the stored decisions again.")
		}
		which := "This policy"
		if file == "" {
			which = "The same policy, without what people did beside it,"
		}
		c.say("%s would have exposed %s, not %s: %d bad, not %d.", which,
			plural(r.Would.Exposed, "box", "boxes"), plural(r.Was.Exposed, "box", "boxes"), r.Would.Bad, r.Was.Bad)
		if r.Guessed > 0 {
			c.say("%s never had the version; those most like them stand in.", plural(r.Guessed, "box", "boxes"))
		}
		s := sheet{kind: "rollout-replay", value: r, head: []string{"POLICY", "STATE", "EXPOSED", "BAD", "TOOK", "SENTENCE"}, names: []string{r.Rollout}}
		for i, o := range []fleetapi.ReplayOutcome{r.Was, r.Would} {
			took := time.Duration(o.Seconds * float64(time.Second)).Round(time.Second)
			s.rows = append(s.rows, []string{[]string{"used", "other"}[i], string(o.State), strconv.Itoa(o.Exposed), strconv.Itoa(o.Bad), took.String(), oneLine(o.Sentence)})
		}
		return c.print(s)
	})
	cmd.Flags().StringVar(&file, "policy", "", "file with the other policy (default the one that was used)")
	return cmd
}

// readPolicy reads a policy file; the controller checks what is in it.
func readPolicy(file string) (string, error) {
	if file == "" {
		return "", nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read policy: %w", err)
	}
	return string(text), nil
}
