package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// terminal is where a command reads and writes.
type terminal struct {
	in    io.Reader
	out   io.Writer // data
	words io.Writer // everything for people
	// inTTY and outTTY say that a person sits there.
	inTTY, outTTY, wordsTTY bool
	env                     func(string) string
	columns                 int // of the screen that out is; 0: it is none
}

func newTerminal() terminal {
	return terminal{
		in: os.Stdin, out: os.Stdout, words: os.Stderr, env: os.Getenv,
		inTTY: isTTY(os.Stdin), outTTY: isTTY(os.Stdout), wordsTTY: isTTY(os.Stderr),
		columns: columnsOf(os.Stdout),
	}
}

func columnsOf(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}

func isTTY(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// say writes a line for people, or several.
func (t terminal) say(format string, args ...any) {
	for line := range strings.SplitSeq(fmt.Sprintf(format, args...), "\n") {
		fmt.Fprintln(t.words, printable(line))
	}
}

// colourful reports whether data may be coloured (no-color.org, bixense.com/clicolors).
func (t terminal) colourful(flag string) bool {
	switch {
	case flag == "always":
		return true
	case flag == "never" || t.env("NO_COLOR") != "" || t.env("TERM") == "dumb":
		return false
	case t.env("CLICOLOR_FORCE") != "" && t.env("CLICOLOR_FORCE") != "0":
		return true
	}
	return t.outTTY
}

// ask puts a yes-or-no question. The end of input is no.
func (t terminal) ask(question string) bool {
	fmt.Fprintf(t.words, "%s [y/N] ", question)
	line, _ := bufio.NewReader(t.in).ReadString('\n') // what was read counts, up to any end
	answer := strings.ToLower(strings.TrimSpace(line))
	return answer == "y" || answer == "yes"
}
