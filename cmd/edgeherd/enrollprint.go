package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/pflag"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/paper"
	"github.com/edgeherd/edgeherd/internal/qrtext"
)

// prints are the forms in which a token leaves the controller.
type prints struct {
	png, pdf, stick string
	copies          int
	noQR            bool
}

func (p *prints) flags(f *pflag.FlagSet) {
	f.StringVar(&p.png, "png", "", "write the QR code to this file")
	f.StringVar(&p.pdf, "labels", "", "write a sheet of labels to this PDF file")
	f.IntVar(&p.copies, "copies", 1, "labels on the sheet")
	f.StringVar(&p.stick, "stick", "", "write a USB kit into this folder: the agent finds it there")
	f.BoolVar(&p.noQR, "no-qr", false, "show no QR code")
}

// check is asked before a token is made: it is shown once, and what cannot be
// written then would be lost with its name on the list.
func (p prints) check() error {
	if info, err := os.Stat(p.stick); p.stick != "" && (err != nil || !info.IsDir()) {
		return failure{exitUsage, fmt.Errorf("%s is not a folder: is the stick mounted there? No token was made", p.stick)}
	}
	for _, file := range []string{p.png, p.pdf} {
		if info, err := os.Stat(filepath.Dir(file)); err != nil || !info.IsDir() {
			return failure{exitUsage, fmt.Errorf("%s: there is no folder %s. No token was made", file, filepath.Dir(file))}
		}
	}
	return nil
}

func (c *cli) printToken(made fleetapi.EnrolTokenMade, p prints) error {
	l, err := labelOf(made)
	if err != nil {
		return err
	}
	if !p.noQR && c.output == "table" {
		fmt.Fprint(c.words, l.code.Draw())
	}
	for _, f := range []struct {
		path string
		data func() ([]byte, error)
	}{
		{p.png, func() ([]byte, error) { return l.code.PNG(8) }},
		{p.pdf, func() ([]byte, error) {
			return labelSheet(slices.Repeat([]label{l}, max(1, min(p.copies, 1000))))
		}},
	} {
		if f.path == "" {
			continue
		}
		data, err := f.data()
		if err != nil {
			return err
		}
		if err := durable.WriteFile(f.path, data, 0o600); err != nil {
			return err
		}
		c.say("wrote %s", f.path)
	}
	if p.stick == "" {
		return nil
	}
	text := fmt.Sprintf("# %s, %s until %s; id %s\n%s\n", made.Site, plural(made.Uses, "machine", "machines"), made.Expires.UTC().Format("2006-01-02 15:04 UTC"), made.ID, made.Token)
	return c.writeFiles(filepath.Join(p.stick, enrol.KitDir), []outFile{
		{enrol.KitToken, []byte(text), 0o600}, {"README.txt", []byte(kitText), 0o644},
	})
}

const kitText = `edgeherd enrolment kit

Plug this stick into the box, mount it, and run as root:

    edgeherd-agent enroll

It finds token.txt here, makes a key that never leaves the box, and asks the
controller. When the box has no network, run

    edgeherd-agent enroll --offline FOLDER

with the folder where this stick is mounted. It writes a request file there.
Bring the stick to somebody who runs "edgeherd enroll sign" on that file; then,
on the box,

    edgeherd-agent enroll --import FILE

with the answer, which lies beside the request and ends in .ehresp.

A stick with a token that is still good is a key to the fleet: keep it so.
`

// Labels on an A4 sheet, in points of 1/72 inch.
const (
	labelColumns, labelRows = 2, 5
	labelWidth, labelHeight = 270, 150
	sheetMargin             = 27
	codeSide                = 120.0
	claimSide               = 54.0 // 19 mm: 29 or 33 modules of 0.6 mm; letters stay four of them away
)

// label is what one says: the token for the machine, and the address at which a
// phone claims it.
type label struct {
	made        fleetapi.EnrolTokenMade
	code, claim qrtext.Code
}

func labelOf(made fleetapi.EnrolTokenMade) (label, error) {
	token, err := enrol.ParseToken(made.Token)
	if err != nil {
		return label{}, err
	}
	code, err := qrtext.Encode(made.Token, qrtext.M)
	if err != nil {
		return label{}, err
	}
	claim, err := qrtext.Encode(token.ClaimURL(), qrtext.Q)
	return label{made, code, claim}, err
}

// labelSheet draws labels as a PDF whose lengths are in points.
func labelSheet(all []label) ([]byte, error) {
	pen, err := paper.New("pt", all[0].made.Expires)
	if err != nil {
		return nil, err
	}
	const perPage = labelColumns * labelRows
	for i, l := range all {
		at := i % perPage
		if at == 0 {
			pen.PDF.AddPage()
		}
		l.draw(pen, float64(sheetMargin+at%labelColumns*labelWidth), float64(sheetMargin+at/labelColumns*labelHeight))
	}
	var out bytes.Buffer
	if err := pen.PDF.Output(&out); err != nil {
		return nil, fmt.Errorf("write the labels: %w", err)
	}
	return out.Bytes(), nil
}

// draw draws one label whose upper left corner is at x and y.
func (l label) draw(pen *paper.Pen, x, y float64) {
	y += (labelHeight - codeSide) / 2
	drawCode(pen, l.code, codeSide, x+8, y)
	drawCode(pen, l.claim, claimSide, x+codeSide+20, y+codeSide-claimSide)
	m := l.made
	lines := []string{"edgeherd", m.Site, "token " + m.ID, plural(m.Uses, "machine", "machines"), "until " + m.Expires.UTC().Format("2006-01-02 15:04") + " UTC"}
	for i, line := range lines {
		pen.Size = 9
		if i < 2 {
			pen.Size = 12
		}
		pen.Write(x+codeSide+20, y+9+float64(i)*11.5, cutTo(pen, line, labelWidth-codeSide-24))
	}
	for i, line := range []string{"claim it", "by phone"} {
		pen.Write(x+codeSide+30+claimSide, y+codeSide-16+float64(i)*12, line)
	}
}

// cutTo shortens a text that would run into the next label.
func cutTo(pen *paper.Pen, text string, width float64) string {
	if pen.Width(text) <= width {
		return text
	}
	runes := []rune(text)
	for len(runes) > 0 && pen.Width(string(runes)+"…") > width {
		runes = runes[:len(runes)-1]
	}
	return string(runes) + "…"
}

// drawCode draws a QR code whose upper left corner is at x and y.
func drawCode(pen *paper.Pen, code qrtext.Code, side, x, y float64) {
	pen.PDF.SetFillColor(0, 0, 0)
	side /= float64(code.Size)
	for row := range code.Size {
		for col := 0; col < code.Size; col++ {
			begin := col
			for col < code.Size && code.Black(col, row) {
				col++
			}
			if n := col - begin; n > 0 {
				pen.PDF.Rect(x+float64(begin)*side, y+float64(row)*side, float64(n)*side, side, "F")
			}
		}
	}
}
