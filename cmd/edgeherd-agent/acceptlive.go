package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/edgeherd/edgeherd/agent/accept"
	"github.com/edgeherd/edgeherd/internal/acceptance"
)

// This file shows a test that runs on a terminal: the checks that are judged,
// and how far the present step is. It holds no rule of the test.

// live is what the screen shows. It is changed by Update alone.
type live struct {
	name    string
	stop    func() // ends the test; its report is kept
	ending  bool
	done    bool
	width   int
	height  int
	colours bool
	checks  []acceptance.Check
	step    accept.Event
	dies    []float64 // of the load, the newest last
}

type ended struct{}

// acceptLive runs a test with a live screen. Ctrl-C and q end it early.
func acceptLive(ctx context.Context, opts accept.Options, out io.Writer) (acceptance.Report, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	screen := live{name: opts.Identity.Name, stop: stop, width: 80, height: 24, colours: os.Getenv("NO_COLOR") == ""}
	p := tea.NewProgram(screen, tea.WithOutput(out), tea.WithoutSignalHandler())
	opts.Each = func(e accept.Event) { p.Send(e) }
	var report acceptance.Report
	var err error
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		report, err = accept.Run(ctx, opts)
		p.Send(ended{})
	}()
	_, screenErr := p.Run()
	if screenErr != nil {
		stop() // without a screen nobody could end it
	}
	<-finished
	if err == nil {
		err = screenErr
	}
	level := acceptance.Level("")
	for _, c := range report.Checks { // what was seen stays on the terminal
		if c.Level != level {
			level = c.Level
			fmt.Fprintln(out, level)
		}
		for _, line := range checkLines(c) {
			fmt.Fprintln(out, line)
		}
	}
	return report, err
}

func (l live) Init() tea.Cmd { return nil }

func (l live) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch m := msg.(type) {
	case tea.WindowSizeMsg:
		l.width, l.height = m.Width, m.Height
	case tea.KeyPressMsg:
		if k := m.String(); k == "q" || k == "ctrl+c" {
			l.ending = true
			l.stop()
		}
	case accept.Event:
		if m.Check != nil {
			l.checks = append(l.checks[:len(l.checks):len(l.checks)], *m.Check)
			break
		}
		l.step = m
		if m.Die != nil {
			l.dies = append(l.dies[max(0, len(l.dies)-maxSpark+1):len(l.dies):len(l.dies)], *m.Die)
		}
	case ended:
		l.done = true
		return l, tea.Quit
	}
	return l, nil
}

const (
	maxSpark = 60
	barWidth = 24
)

// View shows the newest checks that fit, and the step below them.
func (l live) View() tea.View {
	if l.done {
		return tea.NewView("")
	}
	var lines []string
	level := acceptance.Level("")
	for _, c := range l.checks {
		if c.Level != level {
			level = c.Level
			lines = append(lines, l.paint("1", string(level)))
		}
		for i, line := range checkLines(c) {
			line = cut(line, l.width)
			if i == 0 {
				line = strings.Replace(line, string(c.Result), l.paint(tint[c.Result], string(c.Result)), 1)
			}
			lines = append(lines, line)
		}
	}
	foot := []string{"", cut(l.progress(), l.width)}
	if s := spark(l.dies); s != "" {
		foot = append(foot, cut("  die "+s, l.width))
	}
	words := "  q or Ctrl-C ends it early; what was measured is kept"
	if l.ending {
		words = "  ending …"
	}
	foot = append(foot, cut(words, l.width))
	head := l.paint("1", cut("acceptance test of "+l.name, l.width))
	if room := max(0, l.height-len(foot)-2); len(lines) > room {
		lines = lines[len(lines)-room:]
	}
	return tea.NewView(strings.Join(append(append([]string{head}, lines...), foot...), "\n"))
}

func (l live) progress() string {
	if l.step.Step == "" {
		return "  " + string(l.step.Level)
	}
	full := int(barWidth * min(max(l.step.Done, 0), 1))
	return "  " + strings.Repeat("█", full) + strings.Repeat("░", barWidth-full) + " " + stepText(l.step)
}

// tint is the colour of a result (ECMA-48).
var tint = map[acceptance.Result]string{acceptance.Pass: "32", acceptance.Warn: "33", acceptance.Fail: "31", acceptance.Skipped: "2"}

func (l live) paint(code, text string) string {
	if !l.colours {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// cut keeps a line from being wrapped.
func cut(line string, width int) string {
	if r := []rune(line); width > 1 && len(r) > width {
		return string(r[:width-1]) + "…"
	}
	return line
}

// spark draws values as a row of blocks between their least and their most.
func spark(values []float64) string {
	if len(values) < 2 {
		return ""
	}
	low, high := values[0], values[0]
	for _, v := range values {
		low, high = min(low, v), max(high, v)
	}
	var b strings.Builder
	for _, v := range values {
		at := 0
		if high > low {
			at = int(7.99 * (v - low) / (high - low))
		}
		b.WriteRune([]rune("▁▂▃▄▅▆▇█")[at])
	}
	return fmt.Sprintf("%s %.0f–%.0f °C", b.String(), low, high)
}
