package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/trust/tufrepo"
	"github.com/edgeherd/edgeherd/models"
)

func modelCommand(c *cli) *cobra.Command {
	return c.group("model", "Models and their versions",
		modelPushCommand(c),
		c.call("list", "Models with their versions", c.modelList),
		c.call("show NAME", "One model with its versions and signature", c.modelShow),
		modelDriftCommand(c),
		modelDiffCommand(c),
		modelWhereCommand(c),
		modelVerifyCommand(c),
		modelRetireCommand(c), modelPinCommand(c, true), modelPinCommand(c, false),
		modelExportCommand(c),
		modelImportCommand(c),
		modelDeltaCommand(c),
		modelPatchCommand(c),
	)
}

func modelPushCommand(c *cli) *cobra.Command {
	var key string
	var l listing
	var q quantising
	cmd := c.verb("push DIR", "Pack, sign and upload the model in a directory", func(ctx context.Context, args []string) error {
		client, oc, err := c.client()
		if err != nil {
			return err
		}
		if l.sign != "" {
			key = l.sign
		}
		if key == "" {
			key = oc.SigningKey
		}
		var pack fleetapi.Packed
		if pack.Manifest, pack.Paths, err = models.Pack(args[0]); err != nil {
			return err
		}
		if _, ok := pack.Manifest.File(models.GoldenFile); !ok && pack.Manifest.Backend == nil {
			c.say("No %s: boxes can prove that the model loads, not that it answers right.", models.GoldenFile)
		}
		if err := q.check(pack.Manifest.Name); err != nil {
			return err
		}
		signer, err := l.begin(ctx, c, tufrepo.Target{Kind: tufrepo.KindModel, Name: pack.Manifest.Name, Version: pack.Manifest.Version}, key)
		if err != nil {
			return err
		}
		if q.on {
			var done func()
			if pack, done, err = q.apply(ctx, c, client, pack); err != nil {
				return err
			}
			defer done()
		}
		p, err := fleetapi.PushModelWith(ctx, client, pack, signer, c.progress())
		ref, missing := p.Ref, 0
		if err == nil && l.sign != "" {
			missing, err = c.list(ctx, client, signer, l, tufrepo.Target{Kind: tufrepo.KindModel, Name: ref.Name, Version: ref.Version, Digest: ref.Digest, Length: p.Length})
		}
		if err != nil {
			return err
		}
		c.pushed(missing, "edgeherd rollout start "+ref.String())
		return c.print(sheet{kind: "model-version", value: ref, head: []string{"MODEL", "VERSION", "DIGEST"},
			rows: [][]string{{ref.Name, ref.Version, ref.Digest.Short()}}, names: []string{ref.String()}})
	})
	cmd.Flags().StringVar(&key, "key", "", "file of the signing key (default: signing_key of the context)")
	l.addTo(cmd)
	q.addTo(cmd.Flags())
	return cmd
}

// pushed says what comes next. Before the last signature no box may have what
// was pushed; who can give it was said before.
func (c *cli) pushed(missing int, next string) {
	if missing == 0 {
		c.say("Pushed. Next: %s", next)
		return
	}
	c.say("Pushed. Boxes may not have it before %s signed. After that: %s", plural(missing, "more person has", "more people have"), next)
}

// progress shows uploads: a line that changes for a person, a line a file else.
func (c *cli) progress() func(fleetapi.Progress) {
	var shown time.Time
	return func(p fleetapi.Progress) {
		done := p.Sent >= p.Total
		if c.wordsTTY && !done && time.Since(shown) < 100*time.Millisecond || !c.wordsTTY && !done {
			return
		}
		shown = time.Now()
		line := fmt.Sprintf("uploading %s: %s of %s", p.File, bytesText(p.Sent), bytesText(p.Total))
		if !c.wordsTTY {
			c.say("%s", line)
			return
		}
		fmt.Fprintf(c.words, "\r\x1b[K%s", line)
		if done {
			fmt.Fprintln(c.words)
		}
	}
}

func (c *cli) modelList(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.Models(ctx)
	if err != nil {
		return err
	}
	s := modelSheet("model-list", list, list.Items)
	s.items = items(list.Items)
	return c.print(s)
}

func modelSheet(kind string, value any, list []fleetapi.Model) sheet {
	s := sheet{kind: kind, item: "model", value: value, narrow: 7,
		head: []string{"MODEL", "VERSION", "SIZE", "RUNNING", "DESIRED", "PINNED", "PUSHED", "LICENCE", "DIGEST"}}
	for _, m := range list {
		for _, v := range m.Versions {
			s.rows = append(s.rows, []string{m.Name, v.Version, bytesText(v.SizeBytes), strconv.Itoa(v.Running), strconv.Itoa(v.Desired), map[bool]string{true: "yes", false: "-"}[v.Pinned],
				v.Pushed.Format(time.RFC3339), orDash(v.Licence), v.Digest.String()})
			s.names = append(s.names, v.Ref.String())
		}
	}
	return s
}

func (c *cli) modelShow(ctx context.Context, client *fleetapi.Client, args []string) error {
	m, err := client.Model(ctx, args[0])
	if err != nil {
		return err
	}
	if err := c.print(modelSheet("model", m, []fleetapi.Model{m})); err != nil || c.output != "table" && c.output != "wide" || len(m.Versions) == 0 {
		return err
	}
	for _, v := range m.Versions {
		if v.Drift != "" {
			fmt.Fprintf(c.out, "\nDrift of %s: %s.\n", v.Ref, v.Drift)
		}
	}
	for _, v := range m.Versions {
		if v.Provenance != nil && v.Provenance.Quantised != nil {
			q := v.Provenance.Quantised
			fmt.Fprintf(c.out, "\n%s is %s and whole steps: %s %.6g of %d samples, as trained %.6g.\n", v.Ref, q.Base.Version, q.Metric, q.After, q.Cases, q.Before)
		}
	}
	newest := m.Versions[0]
	fmt.Fprintf(c.out, "\nDigest of %s: %s\nSignature of %s\n", newest.Ref, newest.Digest, newest.Ref)
	s := sheet{head: []string{"SIDE", "TENSOR", "TYPE", "SHAPE"}}
	for _, side := range []struct {
		name    string
		tensors []models.TensorSpec
	}{{"in", newest.Signature.Inputs}, {"out", newest.Signature.Outputs}} {
		for _, t := range side.tensors {
			s.rows = append(s.rows, []string{side.name, t.Name, string(t.DType), strings.ReplaceAll(fmt.Sprint(t.Shape), "-1", "?")})
		}
	}
	c.table(s)
	return nil
}

func releaseCommand(c *cli) *cobra.Command {
	return c.group("release", "Agent releases",
		releasePushCommand(c),
		c.call("list", "Agent releases, newest first", c.releaseList),
	)
}

func releasePushCommand(c *cli) *cobra.Command {
	var key string
	n := fleetapi.NewRelease{}
	var l listing
	cmd := c.verb("push", "Sign and upload programs of the agent as a release", func(ctx context.Context, _ []string) error {
		client, oc, err := c.client()
		if err != nil {
			return err
		}
		if l.sign != "" {
			key = l.sign
		}
		if key == "" {
			key = oc.SigningKey
		}
		signer, err := l.begin(ctx, c, tufrepo.Target{Kind: tufrepo.KindRelease, Name: firmware.KindAgent, Version: n.Version}, key)
		if err != nil {
			return err
		}
		r, length, err := fleetapi.PushReleaseFiles(ctx, client, n, signer, c.progress())
		missing := 0
		if err == nil && l.sign != "" {
			missing, err = c.list(ctx, client, signer, l, tufrepo.Target{Kind: tufrepo.KindRelease, Name: firmware.KindAgent, Version: r.Version, Digest: r.Digest, Length: length})
		}
		if err != nil {
			return err
		}
		c.pushed(missing, "edgeherd rollout start --release "+r.Version)
		return c.print(releaseSheet("release", r, []fleetapi.Release{r}))
	})
	f := cmd.Flags()
	f.StringToStringVar(&n.Binaries, "agent-binary", nil, "program for a platform, such as linux/arm64=FILE; once for each")
	f.StringVar(&n.Version, "version", "", "semantic version, such as 1.4.0")
	f.StringVar(&n.Notes, "notes", "", "what is new")
	f.StringVar(&key, "key", "", "file of the signing key (default: signing_key of the context)")
	l.addTo(cmd)
	for _, name := range []string{"agent-binary", "version"} {
		if err := cmd.MarkFlagRequired(name); err != nil {
			panic("cli: " + err.Error())
		}
	}
	return cmd
}

func (c *cli) releaseList(ctx context.Context, client *fleetapi.Client, _ []string) error {
	list, err := client.Releases(ctx)
	if err != nil {
		return err
	}
	s := releaseSheet("release-list", list, list.Items)
	s.items = items(list.Items)
	return c.print(s)
}

func releaseSheet(kind string, value any, list []fleetapi.Release) sheet {
	s := sheet{kind: kind, item: "release", value: value, narrow: 5,
		head: []string{"VERSION", "COUNTER", "PLATFORMS", "RUNNING", "PUSHED", "DIGEST"}}
	for _, r := range list {
		s.rows = append(s.rows, []string{r.Version, strconv.FormatUint(r.Counter, 10), strings.Join(r.Platforms, " "), strconv.Itoa(r.Running), r.Pushed.Format(time.RFC3339), r.Digest.String()})
		s.names = append(s.names, r.Version)
	}
	return s
}
