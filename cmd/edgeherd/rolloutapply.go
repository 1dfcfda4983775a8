package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// rolloutDocument is a rollout as a file in a repository: what, where and how.
type rolloutDocument struct {
	Kind    string    `yaml:"kind"`
	Model   string    `yaml:"model"`
	Release string    `yaml:"release"`
	Filter  string    `yaml:"filter"`
	Policy  yaml.Node `yaml:"policy"`
}

const kindRollout = "Rollout"

// rolloutDocuments reads a file of rollouts; ok is false when it has none. Rollouts
// and settings share no file: what is in one file is applied together.
func rolloutDocuments(file string, data []byte) (list []fleetapi.PlanRequest, ok bool, err error) {
	d := yaml.NewDecoder(bytes.NewReader(data))
	for n := 1; ; n++ {
		var node yaml.Node
		if err := d.Decode(&node); errors.Is(err, io.EOF) {
			return list, len(list) > 0, nil
		} else if err != nil {
			return nil, false, nil // the settings say what is wrong with it
		}
		var kind struct{ Kind string }
		if err := node.Decode(&kind); err != nil || kind.Kind != kindRollout {
			if len(list) > 0 {
				return nil, true, fmt.Errorf("%s: document %d is of kind %q: rollouts have a file of their own", file, n, kind.Kind)
			}
			return nil, false, nil
		}
		req, err := readRollout(&node)
		if err != nil {
			return nil, true, fmt.Errorf("%s: document %d: %w", file, n, err)
		}
		list = append(list, req)
	}
}

func readRollout(node *yaml.Node) (fleetapi.PlanRequest, error) {
	var r rolloutDocument
	text, err := yaml.Marshal(node)
	if err != nil {
		return fleetapi.PlanRequest{}, err
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	d.KnownFields(true)
	if err := d.Decode(&r); err != nil {
		why := strings.NewReplacer("yaml: ", "", "unmarshal errors:\n  ", "", " not found in type main.rolloutDocument", " is none").Replace(err.Error())
		return fleetapi.PlanRequest{}, fmt.Errorf("%s; a rollout has kind, model or release, filter and policy", why)
	}
	if (r.Model == "") == (r.Release == "") {
		return fleetapi.PlanRequest{}, errors.New("give either model: NAME:VERSION or release: VERSION")
	}
	req := fleetapi.PlanRequest{Model: r.Model, Release: r.Release, Filter: r.Filter}
	if !r.Policy.IsZero() {
		policy, err := yaml.Marshal(&r.Policy)
		if err != nil {
			return req, err
		}
		req.Policy = string(policy)
	}
	return req, nil
}

// applyRollouts starts what was not started yet. Applying the same again starts
// nothing: neither what runs or is done, nor what somebody or a gate has stopped.
func (c *cli) applyRollouts(ctx context.Context, client *fleetapi.Client, want []fleetapi.PlanRequest, o startFlags) error {
	have, err := client.AllRollouts(ctx)
	if err != nil {
		return err
	}
	for _, req := range want {
		if done, err := c.appliedBefore(have.Items, req); err != nil {
			return err
		} else if done {
			continue
		}
		r, err := client.Plan(ctx, req)
		if err != nil {
			return err
		}
		if err := c.sure(r, o); err != nil {
			return err
		}
		if r, err = client.Act(ctx, r.ID, "start"); err != nil {
			return err
		}
		c.say("Started %s: %s on %s. Next: edgeherd rollout watch %s", r.ID, r.Target, plural(len(targets(r)), "box", "boxes"), r.ID)
	}
	return nil
}

// appliedBefore looks for the newest rollout of the same artefact, newest first in
// list: if it is of the same document it counts, if not, things have changed since.
func (c *cli) appliedBefore(list []fleetapi.Rollout, req fleetapi.PlanRequest) (bool, error) {
	name, _, _ := strings.Cut(req.Model, ":")
	for _, r := range list {
		of, _, _ := strings.Cut(r.Request.Model, ":")
		if of != name || (r.Request.Release == "") != (req.Release == "") || r.State == fleetapi.RolloutDraft {
			continue
		}
		if r.Request.Filter != req.Filter {
			continue // of other boxes
		}
		if r.Request.Model != req.Model || r.Request.Release != req.Release || r.Request.Policy != req.Policy {
			return false, nil
		}
		switch r.State {
		case fleetapi.RolloutHalted, fleetapi.RolloutCanceled:
			return false, ended(exitConflict, "%s of this document is %s: %s\nIt is not repeated by itself; change the document, or start it yourself: edgeherd rollout start", r.ID, r.State, r.Sentence)
		}
		c.say("%s is %s already: %s", r.ID, r.State, r.Sentence)
		return true, nil
	}
	return false, nil
}
