package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/edgeherd/edgeherd/agent"
	"github.com/edgeherd/edgeherd/agent/condition"
	"github.com/edgeherd/edgeherd/internal/health"
)

// outputFlag takes -o json out of args.
func outputFlag(args []string) (asJSON bool, rest []string, err error) {
	i := slices.Index(args, "-o")
	if i < 0 {
		return false, args, nil
	}
	if i+1 >= len(args) || args[i+1] != "json" {
		return false, nil, fmt.Errorf("%w: -o takes json", errUsage)
	}
	return true, slices.Delete(slices.Clone(args), i, i+2), nil
}

// printHealth says what the box found about its own heat. It reads a file: no
// agent need run and no controller be reached.
func printHealth(args []string, stdout io.Writer) error {
	asJSON, args, err := outputFlag(args)
	if err != nil {
		return err
	}
	c, err := loadConfig(args, os.Getenv)
	if err != nil {
		return err
	}
	r, err := condition.Read(agent.HealthPath(c.State))
	if err != nil {
		return err
	}
	if asJSON {
		enc := json.NewEncoder(stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
	fmt.Fprintf(stdout, "box        %s  site %s  %s\n", r.Box, r.Site, r.SKU)
	level := r.Level.String()
	if !r.Judged && r.Level == health.Healthy {
		level = "not known yet"
	}
	fmt.Fprintf(stdout, "health     %s\n", level)
	if r.Until != 0 {
		fmt.Fprintf(stdout, "judged     until %s\n", condition.Stamp(r.Until))
	}
	if r.Learning != "" {
		fmt.Fprintf(stdout, "learning   %s\n", r.Learning)
	}
	if r.Rise.OK() {
		fmt.Fprintf(stdout, "heat       %+.1f %% for the same work and airflow, against the clean box (air: %s)\n", r.Rise, r.Reference)
	}
	for _, f := range r.Findings {
		printFinding(stdout, f)
	}
	for _, m := range r.Mutes {
		fmt.Fprintf(stdout, "muted      %s until %s %s\n", m.Family, condition.Stamp(m.Until), m.Why)
	}
	if r.Waiting > 0 {
		fmt.Fprintf(stdout, "waiting    %d hours and findings for a disk that takes no writes\n", r.Waiting)
	}
	return nil
}

func printFinding(stdout io.Writer, f health.Finding) {
	fmt.Fprintf(stdout, "finding    %s\n", condition.Sentence(f))
	for _, e := range f.Evidence {
		fmt.Fprintf(stdout, "           - %s\n", e.Text)
	}
	if f.Forecast != nil {
		fmt.Fprintf(stdout, "           - %s\n", forecastWords(*f.Forecast))
	}
}

// forecastWords says in how many days the box will throttle, counted from the
// day on which the forecast was made.
func forecastWords(f health.Forecast) string {
	made := time.Unix(int64(f.Day)*86400, 0).UTC().Format("2006-01-02")
	limit := fmt.Sprintf("%.0f °C", f.TripC)
	if !f.TripKnown {
		limit += ", which is assumed"
	}
	if f.Mid >= 365 {
		return fmt.Sprintf("will not throttle (%s) within a year, as of %s", limit, made)
	}
	return fmt.Sprintf("will throttle (%s) in %.0f to %.0f days, most likely %.0f, as of %s", limit, f.Low, f.High, f.Mid, made)
}
