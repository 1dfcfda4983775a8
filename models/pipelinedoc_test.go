package models

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/internal/assets"
	"github.com/edgeherd/edgeherd/internal/durable"
)

// go test ./models -run Document -args -write
var writeDoc = flag.Bool("write", false, "write the table of stages into docs/pipelines.md")

const pipelinesDoc = "../docs/pipelines.md"

// TestStagesAreInTheDocument: what the program knows and what the page tells are
// one.
func TestStagesAreInTheDocument(t *testing.T) {
	data, err := os.ReadFile(pipelinesDoc)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- stages: begin -->\n", "<!-- stages: end -->"
	head, rest, ok := strings.Cut(string(data), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks its marks", pipelinesDoc)
	}
	want := head + begin + stageReference() + end + tail
	if *writeDoc {
		if err := durable.WriteFile(pipelinesDoc, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(data) != want {
		t.Errorf("the table of stages in %s differs from the one in code: run go test ./models -run Document -args -write", pipelinesDoc)
	}
}

// stageReference is the table of stages as markdown.
func stageReference() string {
	var b strings.Builder
	for _, group := range []struct {
		title  string
		stages []StageSpec
	}{
		{"Pictures", imageStages}, {"The model", tensorStages}, {"What the model answers", readStages}, {"Boxes", boxStages}, {"Sound", audioStages},
	} {
		fmt.Fprintf(&b, "### %s\n", group.title)
		for _, s := range group.stages {
			gives := string(s.Gives)
			switch {
			case s.Name == "run":
				gives = "outputs or series"
			case s.Name == "call":
				gives = "boxes, classes or text"
			case gives == "":
				gives = string(s.Takes[0])
			}
			fmt.Fprintf(&b, "**`%s`**: %s → %s. %s\n\n", s.Name, kinds(s.Takes), gives, s.Doc)
			if len(s.Params) == 0 {
				continue
			}
			b.WriteString("| parameter | value | default | unit | |\n|---|---|---|---|---|\n")
			for _, p := range s.Params {
				def := "–"
				switch {
				case p.Required:
					def = "required"
				case p.Default != nil:
					def = strings.Trim(strings.ReplaceAll(fmt.Sprint(p.Default), " ", ", "), "[]")
				}
				unit := p.Unit
				if unit == "" {
					unit = "–"
				}
				fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", p.Name, p.want(), def, unit, p.Doc)
			}
			b.WriteString("\n")
		}
	}
	return b.String()
}

// TestExamplesOfTheDocumentAreSound: each is held against the model it is for.
func TestExamplesOfTheDocumentAreSound(t *testing.T) {
	for model, folder := range map[string]string{"face-detect": "face-detect-1.2.0", "ocr-rec": "ocr-rec-4.0.0"} {
		m, _, err := Pack(assets.Model(t, folder))
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(pipelinesDoc)
		if err != nil {
			t.Fatal(err)
		}
		_, block, _ := strings.Cut(string(data), "```yaml "+model+"\n")
		block, _, _ = strings.Cut(block, "```")
		var desc description
		if err := yaml.Unmarshal([]byte(block), &desc); err != nil {
			t.Fatal(err)
		}
		m.Pipelines = desc.Pipelines
		if err := m.Validate(); err != nil || len(m.Pipelines) == 0 {
			t.Errorf("%s: %d pipelines, %v", model, len(m.Pipelines), err)
		}
	}
}
