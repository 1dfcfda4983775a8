// Package ups asks a Network UPS Tools server (upsd) or apcupsd how the supply
// stands: charge, runtime, load, and the temperature that some supplies measure,
// which is one more witness of the room.
//
// Vocabulary: a supply is one UPS that the server knows by a name; a variable
// is one of its figures, by NUT's names (docs/nut-names.txt). What a supply
// does not say is nil, never zero.
//
// The protocol of upsd is lines of text on TCP port 3493 (RFC 9271), that of
// apcupsd messages with a length on port 3551. Reading needs no login.
//
// The one rule a caller can break: a read dials anew and is bounded by its
// context alone; give it a deadline.
package ups

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"strconv"
	"strings"
	"time"
)

// Port is where upsd listens unless told otherwise.
const Port = "3493"

// Supply is what one UPS says.
type Supply struct {
	Name                   string
	ChargeRatio, LoadRatio *float64
	RuntimeSeconds         *float64
	Celsius                *float64 // of the supply, or of a probe in its room
	Watts                  *float64 // what it delivers
	OnBattery              *bool
}

const (
	maxLine  = 4 << 10
	maxLines = 2000 // of one answer
)

var errLine = errors.New("answer is not of the NUT protocol")

// Read asks the server at address (host or host:port) for one supply, or for
// all that it knows if name is empty.
func Read(ctx context.Context, address, name string) ([]Supply, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, Port)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("ask upsd: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	s := &session{to: conn, from: bufio.NewReaderSize(conn, maxLine)}
	names := []string{name}
	if name == "" {
		rows, err := s.list("UPS")
		if err != nil {
			return nil, fmt.Errorf("ask upsd at %s: %w", address, err)
		}
		names = names[:0]
		for _, row := range rows {
			names = append(names, row[0])
		}
	}
	var list []Supply
	var errs []error
	for _, n := range names {
		rows, err := s.list("VAR", n)
		if err != nil {
			errs = append(errs, fmt.Errorf("ask upsd at %s for %s: %w", address, n, err))
			continue
		}
		list = append(list, supply(n, rows))
	}
	fmt.Fprint(conn, "LOGOUT\n")
	return list, errors.Join(errs...)
}

type session struct {
	to   net.Conn
	from *bufio.Reader
}

// list sends LIST and returns the rows of the answer without its words that
// repeat the question.
func (s *session) list(question ...string) ([][]string, error) {
	for _, word := range question {
		if word == "" || strings.ContainsAny(word, " \"\\\r\n\t") {
			return nil, fmt.Errorf("%q is no name of a supply", word)
		}
	}
	asked := strings.Join(question, " ")
	if _, err := fmt.Fprintf(s.to, "LIST %s\n", asked); err != nil {
		return nil, err
	}
	var rows [][]string
	for range maxLines {
		line, err := s.from.ReadSlice('\n')
		if err != nil {
			return nil, err
		}
		f, err := words(strings.TrimRight(string(line), "\r\n"))
		if err != nil {
			return nil, err
		}
		switch {
		case f[0] == "ERR":
			return nil, fmt.Errorf("upsd says %s", strings.Join(f[1:], " "))
		case f[0] == "BEGIN":
		case f[0] == "END":
			return rows, nil
		case f[0] == question[0] && len(f) == len(question)+2:
			rows = append(rows, f[len(question):])
		default:
			return nil, errLine
		}
	}
	return nil, fmt.Errorf("%w: more than %d lines", errLine, maxLines)
}

// words splits a line at spaces; words in double quotes may hold spaces, and
// a backslash there takes the next byte as it is (RFC 9271, 4.1).
func words(line string) ([]string, error) {
	var f []string
	for i := 0; i < len(line); {
		switch line[i] {
		case ' ':
			i++
		case '"':
			var b strings.Builder
			for i++; ; i++ {
				if i >= len(line) {
					return nil, errLine
				}
				if line[i] == '"' {
					i++
					break
				}
				if line[i] == '\\' && i+1 < len(line) {
					i++
				}
				b.WriteByte(line[i])
			}
			f = append(f, b.String())
		default:
			end := strings.IndexByte(line[i:], ' ')
			if end < 0 {
				end = len(line) - i
			}
			f = append(f, line[i:i+end])
			i += end
		}
	}
	if len(f) == 0 {
		return nil, errLine
	}
	return f, nil
}

// supply takes what is used of the variables.
func supply(name string, rows [][]string) Supply {
	s := Supply{Name: name}
	for _, row := range rows {
		value := row[1]
		switch row[0] {
		case "battery.charge":
			s.ChargeRatio = figure(value, 100, 0, 1)
		case "battery.runtime":
			s.RuntimeSeconds = figure(value, 1, 0, 1e7)
		case "ups.load":
			s.LoadRatio = figure(value, 100, 0, 2)
		case "ups.temperature":
			if s.Celsius == nil {
				s.Celsius = celsius(value)
			}
		case "ambient.temperature": // a probe in the room goes first
			if c := celsius(value); c != nil {
				s.Celsius = c
			}
		case "ups.realpower":
			s.Watts = figure(value, 1, 0.1, 1e5)
		case "ups.status":
			// OL and OB are exclusive; a supply whose data are stale says neither.
			for _, flag := range strings.Fields(value) {
				if flag == "OB" || flag == "OL" {
					yes := flag == "OB"
					s.OnBattery = &yes
				}
			}
		}
	}
	return s
}

func celsius(text string) *float64 {
	c := figure(text, 1, -39, 100)
	if c != nil && *c == 0 { // what supplies without a probe say
		return nil
	}
	return c
}

func figure(text string, scale, lo, hi float64) *float64 {
	v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if v /= scale; err != nil || math.IsNaN(v) || v < lo || v > hi {
		return nil
	}
	return &v
}
