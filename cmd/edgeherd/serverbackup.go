package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/spf13/cobra"

	"github.com/edgeherd/edgeherd/controller/backup"
	"github.com/edgeherd/edgeherd/controller/doctor"
)

func (c *cli) backupOptions(cfg serverConfig) backup.Options {
	return backup.Options{State: cfg.State, Blobs: cfg.Blobs, Database: cfg.Database, PasswordFile: cfg.PasswordFile, Program: c.version, Bucket: cfg.S3.place()}
}

func serverBackupCommand(c *cli) *cobra.Command {
	var s *serverFlags
	var blobs bool
	cmd := c.verb("backup FILE", "Save database, authority and keys to one file, while the controller runs", func(ctx context.Context, args []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		opts := c.backupOptions(cfg)
		opts.WithBlobs = blobs
		m, err := backup.Write(ctx, opts, args[0])
		if err != nil {
			return err
		}
		switch {
		case m.Bucket != "":
			c.say("Models and releases are in the bucket %s and not in this backup: save the bucket by its own means, such as versions and replication. A restore needs both.", m.Bucket)
		case len(m.Blobs) > 0 && !blobs:
			c.say("%d files of models and releases are not in it; save them with --with-blobs, or keep the folder.", len(m.Blobs))
		}
		c.say("It holds the private keys of the fleet: keep it as safe as the controller.")
		if m.WithoutKey {
			c.say("It does not hold keys/secrets.key, so that it shows no secret of a box: keep a copy of that file in another place.")
		}
		return c.print(backupSheet(args[0], m))
	})
	s = addServerFlags(cmd)
	cmd.Flags().BoolVar(&blobs, "with-blobs", false, "models and releases as well")
	return cmd
}

func backupSheet(file string, m backup.Manifest) sheet {
	size := int64(0)
	for _, f := range m.Files {
		size += f.Size
	}
	return sheet{kind: "backup", value: m, head: []string{"FILE", "ENGINE", "FILES", "BYTES", "COMMIT"}, names: []string{file},
		rows: [][]string{{file, m.Engine, fmt.Sprint(len(m.Files)), fmt.Sprint(size), fmt.Sprint(m.LSN)}}}
}

func serverRestoreCommand(c *cli) *cobra.Command {
	var s *serverFlags
	var force bool
	cmd := c.verb("restore FILE", "Put a backup in place of the state directory, and fill the database", func(ctx context.Context, args []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		r, err := backup.Restore(ctx, c.backupOptions(cfg), args[0], force)
		if errors.Is(err, fs.ErrExist) {
			return failure{exitConflict, err}
		}
		if err != nil {
			return err
		}
		if r.Before != "" {
			c.say("What was there before is in %s.", r.Before)
		}
		if at, here := r.Manifest.Bucket, cfg.S3.place(); at != "" && here == "" {
			c.say("Models and releases are in the bucket %s: set `s3` in server.yaml before the controller starts.", at)
		} else if at != "" {
			c.say("Models and releases were in the bucket %s and are looked for in %s. Look whether it has them all, once the controller runs: edgeherd model verify NAME:VERSION. What it lacks is pushed again.", at, here)
		}
		if len(r.Missing) > 0 {
			c.say("%d files of models and releases are missing: copy the old blobs folder, or push them again.", len(r.Missing))
		}
		if r.KeyMissing {
			c.say("keys/secrets.key is missing: bring it back from where it was kept, or set all secrets of boxes anew (`edgeherd secret list`). Boxes keep those they have.")
		}
		c.say("All people sign in again. Users who were disabled and tokens that were revoked after the backup are as before: look at `edgeherd user list` and `edgeherd token list`.")
		c.say("Start the controller; boxes send again what this backup lacks, as far as they have it. Rollouts are paused, and what boxes were told after the backup is kept until you choose: edgeherd rollout conflicts.")
		sh := backupSheet(args[0], r.Manifest)
		sh.kind, sh.value = "restore", r
		return c.print(sh)
	})
	s = addServerFlags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "replace what is there; the directory of before is kept beside it")
	return cmd
}

// serverRestoredCommand is for those who put databases back by means of their own.
func serverRestoredCommand(c *cli) *cobra.Command {
	var s *serverFlags
	cmd := c.verb("restored", "Say that the database was put back by other means, before the controller starts", func(ctx context.Context, _ []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		if err := backup.Mark(ctx, c.backupOptions(cfg)); err != nil {
			return err
		}
		c.say("Start the controller. It commands no box before it has heard it. Next: edgeherd rollout conflicts")
		return nil
	})
	s = addServerFlags(cmd)
	return cmd
}

func doctorOptions(cfg serverConfig) doctor.Options {
	o := doctor.Options{
		State: cfg.State, Database: cfg.Database, PasswordFile: cfg.PasswordFile, Retention: cfg.Retention.values(), Hosts: cfg.Hosts, S3: cfg.S3.options(),
		Broker: doctor.Broker{URL: cfg.Broker.URL, CA: cfg.Broker.CA, Cert: cfg.Broker.Cert, Key: cfg.Broker.Key},
	}
	if !cfg.HTTPPlain {
		if o.HTTP = cfg.HTTP; o.HTTP == "" {
			o.HTTP = "127.0.0.1:8443"
		}
	}
	return o
}

func serverDoctorCommand(c *cli) *cobra.Command {
	var s *serverFlags
	cmd := c.verb("doctor", "Check database, disk, certificates and clock", func(ctx context.Context, _ []string) error {
		cfg, err := s.load(c.env)
		if err != nil {
			return failure{exitUsage, err}
		}
		opts := doctorOptions(cfg)
		if opts.Keys, err = cfg.keys(c.env); err != nil {
			return failure{exitUsage, err}
		}
		r := doctor.Examine(ctx, opts)
		sh := sheet{kind: "doctor", value: r, item: "finding", head: []string{"LEVEL", "CHECK", "FOUND", "WAY OUT"}}
		for _, f := range r.Findings {
			sh.items = append(sh.items, f)
			sh.names = append(sh.names, f.Check)
			sh.rows = append(sh.rows, []string{string(f.Level), f.Check, strings.ReplaceAll(f.Found, "\n", "; "), f.Way})
		}
		if err := c.print(sh); err != nil {
			return err
		}
		switch r.Level {
		case "fail":
			return ended(exitFailed, "something must be done")
		case "warn":
			return ended(exitPartly, "something should be looked at")
		}
		return nil
	})
	s = addServerFlags(cmd)
	return cmd
}
