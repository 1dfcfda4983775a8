package models

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
)

// The interfaces that a backend may speak to callers.
const (
	// APIOIP is the Open Inference Protocol, by REST or gRPC.
	APIOIP = "oip"
	// APIOpenAI is that of servers of language models: /v1/chat/completions and its like.
	APIOpenAI = "openai"
)

// What a manifest says of the place where inputs may be computed.
const (
	// StaysOnSite: inputs go to this box and its site, nowhere else. The default.
	StaysOnSite = "never"
	// MayLeaveSite: a route may send inputs to a central endpoint.
	MayLeaveSite = "allowed"
)

// Backend says that a version is served by a program that is not ours. How
// that program is started, or where it is, stands in runner.yaml of the box
// under Name: a signed manifest can choose among what the owner of the box has
// allowed there, and cannot bring a command of its own.
type Backend struct {
	Name string `json:"name" yaml:"name"`
	// API is APIOIP or APIOpenAI.
	API string `json:"api" yaml:"api"`
	// Model and Version are what the program calls it; empty: the name of the
	// manifest, and no version.
	Model   string `json:"model,omitempty" yaml:"model"`
	Version string `json:"version,omitempty" yaml:"version"`
	// Parameters fill the places {param:KEY} of the configuration, each as a
	// part of one argument.
	Parameters map[string]string `json:"parameters,omitempty" yaml:"parameters"`
}

// PromptsFile is the path of the prompts that prove a model of APIOpenAI.
const PromptsFile = "prompts.json"

var (
	parameterForm = regexp.MustCompile(`^[A-Za-z0-9_./:@+=,-]{0,256}$`)
	remoteForm    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./:@+-]{0,127}$`)
)

func (m Manifest) checkBackend() error {
	if m.LeavesSite != "" && m.LeavesSite != StaysOnSite && m.LeavesSite != MayLeaveSite {
		return fmt.Errorf("leaves_site is %q, want %s or %s", m.LeavesSite, StaysOnSite, MayLeaveSite)
	}
	b := m.Backend
	if b == nil {
		return nil
	}
	proof := GoldenFile
	switch b.API {
	case APIOIP:
	case APIOpenAI:
		proof = PromptsFile
	default:
		return fmt.Errorf("backend: api %q is not known, use %s or %s", b.API, APIOIP, APIOpenAI)
	}
	switch {
	case !nameForm.MatchString(b.Name):
		return fmt.Errorf("backend: name %q: use lower case letters, digits and -, at most 63", b.Name)
	case b.Model != "" && !remoteForm.MatchString(b.Model):
		return fmt.Errorf("backend: model %q is no name that a server can have", b.Model)
	case b.Version != "" && !versionForm.MatchString(b.Version):
		return fmt.Errorf("backend: version %q is no version that a server can have", b.Version)
	case len(b.Parameters) > 32:
		return fmt.Errorf("backend: %d parameters, at most 32", len(b.Parameters))
	case len(m.Variants) > 0:
		return errors.New("a model with a backend has no variants: the program serves one form of it")
	case b.API == APIOpenAI && (len(m.Pipelines) > 0 || len(m.Signature.Inputs)+len(m.Signature.Outputs) > 0):
		return errors.New("a model of api openai has no tensors, so neither signature nor pipelines")
	}
	if _, ok := m.File(proof); !ok {
		return fmt.Errorf("a model with a backend of api %s needs %s: a box serves none that it could not try", b.API, proof)
	}
	for _, key := range slices.Sorted(maps.Keys(b.Parameters)) {
		v := b.Parameters[key]
		if !nameForm.MatchString(key) || !parameterForm.MatchString(v) || strings.HasPrefix(v, "-") || strings.Contains(v, "..") {
			return fmt.Errorf("backend: parameter %q: %.40q: use letters, digits and _./:@+=,- without - in front and without two dots in a row", key, v)
		}
	}
	return nil
}

// Remote is what the program calls the model.
func (m Manifest) Remote() (model, version string) {
	if m.Backend == nil {
		return m.Name, m.Version
	}
	if m.Backend.Model == "" {
		return m.Name, m.Backend.Version
	}
	return m.Backend.Model, m.Backend.Version
}

// CheckProof reads what a model with a backend is tried with.
func (m Manifest) CheckProof(open func(File) (io.ReadCloser, error)) error {
	if m.Backend == nil {
		return nil
	}
	name := GoldenFile
	if m.Backend.API == APIOpenAI {
		name = PromptsFile
	}
	file, _ := m.File(name)
	r, err := open(file)
	if err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(r, MaxGoldenBytes+1))
	if err := errors.Join(err, r.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if name == PromptsFile {
		_, err = DecodePrompts(data)
	} else {
		var g Golden
		if g, err = DecodeGolden(data); err == nil {
			err = g.Fits(m.Signature)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// PromptsVersion is the shape of Prompts. History: 1 first.
const PromptsVersion = 1

// Bounds of a file of prompts: a box runs each while it probes.
const (
	maxPromptsBytes = 1 << 20
	maxPrompts      = 64
)

// Prompts is the content of PromptsFile.
type Prompts struct {
	V     int      `json:"v"`
	Cases []Prompt `json:"cases"`
}

// Prompt is one request and what its answer must hold.
type Prompt struct {
	Name string `json:"name"`
	// Path is that of the request behind /v1/; default chat/completions with
	// Prompt as the message of a user.
	Path   string          `json:"path,omitempty"`
	Prompt string          `json:"prompt,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	// MaxTokens bounds the answer to Prompt; default 64.
	MaxTokens int `json:"max_tokens,omitempty"`
	// Contains is a part of the text of the answer, Matches a regular
	// expression (RE2) that it matches; at least one is given. Where the answer
	// is no completion, the text is the whole body.
	Contains string `json:"contains,omitempty"`
	Matches  string `json:"matches,omitempty"`
}

// DecodePrompts parses and validates prompts. Unknown fields are refused.
func DecodePrompts(data []byte) (Prompts, error) {
	if len(data) > maxPromptsBytes {
		return Prompts{}, fmt.Errorf("longer than %d bytes: keep fewer or shorter prompts", maxPromptsBytes)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	var p Prompts
	if err := dec.Decode(&p); err != nil {
		return Prompts{}, fmt.Errorf("parse: %w", err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Prompts{}, errors.New("parse: bytes after its end")
	}
	if p.V != PromptsVersion {
		return Prompts{}, fmt.Errorf("version %d, this program reads %d", p.V, PromptsVersion)
	}
	if len(p.Cases) == 0 || len(p.Cases) > maxPrompts {
		return Prompts{}, fmt.Errorf("%d cases, want 1 to %d", len(p.Cases), maxPrompts)
	}
	for i, c := range p.Cases {
		if err := c.validate(); err != nil {
			return Prompts{}, fmt.Errorf("case %d %q: %w", i+1, c.Name, err)
		}
	}
	return p, nil
}

func (c Prompt) validate() error {
	switch {
	case c.Name == "":
		return errors.New("has no name")
	case (c.Prompt == "") == (len(c.Body) == 0):
		return errors.New("has a prompt or a body, one of them")
	case len(c.Body) > 0 && c.Path == "":
		return errors.New("has a body and no path, for instance chat/completions")
	case c.MaxTokens < 0:
		return fmt.Errorf("max_tokens is %d", c.MaxTokens)
	case c.Contains == "" && c.Matches == "":
		return errors.New("says neither contains nor matches: any answer would be right")
	}
	if len(c.Body) > 0 {
		var body map[string]json.RawMessage
		if err := json.Unmarshal(c.Body, &body); err != nil {
			return errors.New("body is no JSON object")
		}
	}
	if _, err := regexp.Compile(c.Matches); err != nil {
		return fmt.Errorf("matches: %w", err)
	}
	return nil
}

// Request returns path and body of the call; model is put in by who sends it.
func (c Prompt) Request() (path string, body []byte) {
	if len(c.Body) > 0 {
		return c.Path, c.Body
	}
	tokens := c.MaxTokens
	if tokens == 0 {
		tokens = 64
	}
	// The same answer each time, as far as the server can: no chance in it.
	text, err := json.Marshal(map[string]any{
		"messages":   []map[string]string{{"role": "user", "content": c.Prompt}},
		"max_tokens": tokens, "temperature": 0, "seed": 1, "stream": false,
	})
	if err != nil {
		panic("models: prompt that JSON cannot hold: " + err.Error()) // Marshal replaces what is not UTF-8
	}
	return "chat/completions", text
}

// Check says whether an answer is right.
func (c Prompt) Check(status int, body []byte) error {
	if status != http.StatusOK {
		return fmt.Errorf("status %d: %.200s", status, body)
	}
	text := completionText(body)
	if !strings.Contains(text, c.Contains) {
		return fmt.Errorf("the answer %.200q does not contain %q", text, c.Contains)
	}
	if ok, err := regexp.MatchString(c.Matches, text); err != nil || !ok {
		return fmt.Errorf("the answer %.200q does not match %q", text, c.Matches)
	}
	return nil
}

// completionText is the text of a completion, else the whole body.
func completionText(body []byte) string {
	var answer struct {
		Choices []struct {
			Text    *string `json:"text"`
			Message *struct {
				Content *string `json:"content"`
			} `json:"message"`
		} `json:"choices"`
	}
	if json.Unmarshal(body, &answer) != nil || len(answer.Choices) == 0 {
		return string(body)
	}
	switch c := answer.Choices[0]; {
	case c.Message != nil && c.Message.Content != nil:
		return *c.Message.Content
	case c.Text != nil:
		return *c.Text
	}
	return string(body)
}
