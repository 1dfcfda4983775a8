package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/edgeherd/edgeherd/agent/sense"
)

// listReads are a second apart: rates need two, and programs some seconds.
const listReads = 6

// printSensors lists the keys of sensors for the key sensors of agent.yaml, with
// the metric that each one is and what it says. An agent may run meanwhile: what
// it has for itself, serial lines and I²C, is left out and takes no role anyhow.
func printSensors(ctx context.Context, args []string, stdout io.Writer) error {
	c, err := loadConfig(args, os.Getenv)
	if err != nil {
		return err
	}
	outside := c.Outside
	outside.Dust, outside.Pressure = nil, sense.Outside{}.Pressure
	s := sense.New(sense.Options{Root: c.Root, Roles: c.Sensors, Outside: outside}, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(ctx) // ends the programs that still run
	defer stop()
	says := map[string]float64{}
	keys := map[string]string{} // of metrics
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for range listReads {
		readings, _ := s.Read(ctx) // what does not answer has no value in the list
		for _, r := range readings {
			says[r.Metric] = r.Value
		}
		for _, sensor := range s.Sensors() {
			keys[sensor.Name()] = sensor.Key
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
	out := tabwriter.NewWriter(stdout, 0, 0, 2, ' ', 0)
	there := map[string]bool{}
	for _, metric := range slices.SortedFunc(maps.Keys(keys), func(x, y string) int {
		return slices.Compare([]string{keys[x], x}, []string{keys[y], y})
	}) {
		there[keys[metric]] = true
		value := "no value"
		if v, ok := says[metric]; ok {
			value = strconv.FormatFloat(v, 'g', 6, 64)
		}
		fmt.Fprintf(out, "%s\t%s\t%s\n", keys[metric], metric, value)
	}
	for _, key := range slices.Sorted(maps.Keys(c.Sensors)) {
		switch role := c.Sensors[key]; {
		case role == "none":
			fmt.Fprintf(out, "%s\tnone\tleft out\n", key)
		case !there[key]:
			fmt.Fprintf(out, "%s\t%s\tnot there\n", key, role)
		}
	}
	return out.Flush()
}
