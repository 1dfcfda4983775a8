package ups

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// NISPort is where apcupsd's Network Information Server listens unless told
// otherwise.
const NISPort = "3551"

var errNIS = errors.New("answer is not of apcupsd's protocol")

// ReadAPC asks the apcupsd at address (host or host:port) for its one supply.
//
// A message is a length of two bytes, the higher first, and as many bytes. The
// answer to "status" is one for each line of what apcaccess(8) prints, "NAME :
// value unit", and one of length 0 at the end (apcupsd manual, "NIS Server
// Client API").
func ReadAPC(ctx context.Context, address string) (Supply, error) {
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, NISPort)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return Supply{}, fmt.Errorf("ask apcupsd: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write([]byte("\x00\x06status")); err != nil {
		return Supply{}, fmt.Errorf("ask apcupsd at %s: %w", address, err)
	}
	report, err := nisReport(conn)
	if err != nil {
		return Supply{}, fmt.Errorf("ask apcupsd at %s: %w", address, err)
	}
	return apc(report)
}

// nisReport reads the lines of a report.
func nisReport(from io.Reader) (map[string]string, error) {
	report := map[string]string{}
	line := make([]byte, maxLine)
	for range maxLines {
		var head [2]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return nil, err
		}
		n := int(binary.BigEndian.Uint16(head[:]))
		if n == 0 {
			return report, nil
		}
		if n > len(line) {
			return nil, errNIS
		}
		if _, err := io.ReadFull(from, line[:n]); err != nil {
			return nil, err
		}
		name, value, found := strings.Cut(string(line[:n]), ":")
		if !found {
			return nil, errNIS
		}
		report[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return nil, fmt.Errorf("%w: more than %d lines", errNIS, maxLines)
}

// apc takes what is used of a report. Without a cable to the supply the daemon
// goes on to tell its last values: then there are none.
func apc(report map[string]string) (Supply, error) {
	s := Supply{Name: report["UPSNAME"]}
	status := strings.Fields(report["STATUS"])
	if len(status) == 0 {
		return s, fmt.Errorf("%w: it has no STATUS", errNIS)
	}
	for _, flag := range status {
		switch flag {
		case "COMMLOST":
			return s, errors.New("apcupsd has lost its supply (COMMLOST)")
		case "ONLINE", "ONBATT":
			yes := flag == "ONBATT"
			s.OnBattery = &yes
		}
	}
	number := func(name string, units string, scale, lo, hi float64) *float64 {
		value, unit, _ := strings.Cut(report[name], " ")
		if !strings.HasPrefix(unit, units) {
			return nil
		}
		return figure(value, scale, lo, hi)
	}
	s.ChargeRatio = number("BCHARGE", "Percent", 100, 0, 1)
	s.LoadRatio = number("LOADPCT", "Percent", 100, 0, 2)
	if minutes := number("TIMELEFT", "Minutes", 1, 0, 1e6); minutes != nil {
		seconds := 60 * *minutes
		s.RuntimeSeconds = &seconds
	}
	for _, name := range []string{"ITEMP", "AMBTEMP"} { // a probe in the room goes first
		if value, unit, _ := strings.Cut(report[name], " "); strings.HasPrefix(unit, "C") {
			if c := celsius(value); c != nil {
				s.Celsius = c
			}
		}
	}
	if rated := number("NOMPOWER", "Watts", 1, 1, 1e5); rated != nil && s.LoadRatio != nil && *s.LoadRatio > 0 {
		watts := *rated * *s.LoadRatio
		s.Watts = &watts
	}
	return s, nil
}
