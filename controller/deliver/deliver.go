// Package deliver makes files of models smaller for the lines of sites.
//
// Vocabulary: a pack is a form of a file: a cold pack, which needs nothing, or a
// delta, which needs a base that the box has (docs/wdelta.md). A pack is worth
// having when it saves enough: a cold pack against the file, a delta against the
// cold pack. Packs are blobs as others are, and the table of packs says which
// there are and which are wanted.
//
// Packs are made one at a time, in less than 64 MiB, from a queue in the
// database. A pack that is missing is never an error: boxes take the next best.
//
// The one rule a caller can break: of several controllers on one database only
// one runs a Packer; two would make each pack twice.
package deliver

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/models"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// Options of a Packer. Store and Blobs are required.
type Options struct {
	Store *store.Store
	Blobs *blob.Store
	// Leads says whether this controller may make packs now; nil: always.
	Leads func() bool
	// Timeout bounds the making of one pack; default 2 hours: a core makes about
	// 60 GB in that time.
	Timeout time.Duration
	// Look is how often the queue is looked at without a cause; default 1 min.
	Look time.Duration
	// PackBytes bounds the room of packs; default 100 GB. Those that boxes were not
	// told of for longest go first, those that a version under way needs never.
	PackBytes int64
	// CacheBytes bounds the folder of a store with a bucket behind it; default 50 GB.
	CacheBytes int64
}

// Packer makes the packs that are wanted.
type Packer struct {
	opts Options
	log  *slog.Logger
	wake chan struct{} // buffer 1: something is wanted

	// Only Run touches these: packs that were tried since the start, by their own
	// digest, and those that were made again for it.
	tried  map[blob.Digest]bool
	remade map[pair]bool

	mu   sync.Mutex // guards used
	used map[blob.Digest]time.Time
}

// New returns a Packer. It starts nothing.
func New(opts Options, log *slog.Logger) *Packer {
	opts.Timeout = cmp.Or(opts.Timeout, 2*time.Hour)
	opts.Look = cmp.Or(opts.Look, time.Minute)
	opts.PackBytes = cmp.Or(opts.PackBytes, 100e9)
	opts.CacheBytes = cmp.Or(opts.CacheBytes, 50e9)
	if opts.Leads == nil {
		opts.Leads = func() bool { return true }
	}
	return &Packer{opts: opts, log: log, wake: make(chan struct{}, 1), tried: map[blob.Digest]bool{}, remade: map[pair]bool{}, used: map[blob.Digest]time.Time{}}
}

// Bounds of the deltas of one file: from so many versions, or until they cover
// this share of the boxes.
const (
	maxBases = 3
	coverage = 0.95
)

// Wants lists the packs of the files of next for boxes of which so many have
// each version in has: cold packs, and deltas from the files of the same path
// of the commonest versions.
func Wants(next models.Manifest, has map[blob.Digest]int, versions map[blob.Digest]models.Manifest) []store.Pack {
	total, covered := 0, 0
	var common []blob.Digest
	for d, n := range has {
		if _, known := versions[d]; known {
			common = append(common, d)
		}
		total += n
	}
	slices.SortFunc(common, func(a, b blob.Digest) int {
		return cmp.Or(cmp.Compare(has[b], has[a]), bytes.Compare(a[:], b[:]))
	})
	var out []store.Pack
	for _, f := range next.Files {
		if f.Framed() {
			out = append(out, store.Pack{Target: f.Digest})
		}
	}
	for i, d := range common {
		if i == maxBases || float64(covered) >= coverage*float64(total) {
			break
		}
		covered += has[d]
		for _, f := range next.Files {
			if base, ok := versions[d].File(f.Path); ok && f.Framed() && base.Digest != f.Digest {
				out = append(out, store.Pack{Target: f.Digest, Base: base.Digest})
			}
		}
	}
	return out
}

// Want asks for packs to be made.
func (p *Packer) Want(ctx context.Context, packs []store.Pack) error {
	err := p.opts.Store.WantPacks(ctx, packs)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return err
}

// Run makes packs until ctx is done.
func (p *Packer) Run(ctx context.Context) error {
	var swept time.Time
	for {
		if p.opts.Leads() && time.Since(swept) >= sweepEvery {
			swept = time.Now()
			if err := p.Sweep(ctx); err != nil && ctx.Err() == nil {
				p.log.Warn("old packs stay", "err", err)
			}
		}
		if err := p.opts.Blobs.Trim(p.opts.CacheBytes); err != nil {
			p.log.Warn("the cache of the bucket is not trimmed", "err", err)
		}
		for p.opts.Leads() && ctx.Err() == nil {
			more, err := p.one(ctx)
			if err != nil && ctx.Err() == nil {
				p.log.Warn("pack not made", "err", err)
			}
			if err == nil && !more {
				if more, err = p.check(ctx); err != nil && ctx.Err() == nil {
					p.log.Warn("packs not tried", "err", err)
				}
			}
			if err != nil || !more {
				break
			}
		}
		look := time.NewTimer(p.opts.Look)
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-look.C:
		}
		look.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// Used notes that boxes were told of the packs of a file. Thousands ask at once:
// it is written once a while.
func (p *Packer) Used(ctx context.Context, target blob.Digest) {
	p.mu.Lock()
	now := time.Now()
	fresh := now.Sub(p.used[target]) < sweepEvery
	if !fresh {
		p.used[target] = now
	}
	p.mu.Unlock()
	if fresh {
		return
	}
	if err := p.opts.Store.UsePacks(ctx, target); err != nil {
		p.log.Warn("use of packs is not noted", "digest", target, "err", err)
	}
}

// sweepEvery is how often packs are looked at for what can go.
const sweepEvery = 10 * time.Minute

// Sweep removes packs until they have at most the room that they may.
func (p *Packer) Sweep(ctx context.Context) error {
	total, err := p.opts.Store.PacksBytes(ctx)
	if err != nil || total <= p.opts.PackBytes {
		return err
	}
	keep, err := p.underWay(ctx)
	if err != nil {
		return err
	}
	for total > p.opts.PackBytes {
		blobs, err := p.opts.Store.EvictPack(ctx, keep)
		if errors.Is(err, store.ErrNotFound) {
			p.log.Warn("packs of versions under way have more room than packs may", "bytes", total)
			return nil
		}
		if err != nil {
			return err
		}
		for _, d := range blobs {
			if err := p.opts.Blobs.Delete(d); err != nil {
				return err
			}
		}
		if total, err = p.opts.Store.PacksBytes(ctx); err != nil {
			return err
		}
	}
	return nil
}

// underWay are the files of versions that a rollout which has not ended brings.
func (p *Packer) underWay(ctx context.Context) (map[blob.Digest]bool, error) {
	rollouts, err := p.opts.Store.Rollouts(ctx, fleetapi.RolloutDraft, fleetapi.RolloutRunning, fleetapi.RolloutPaused, fleetapi.RolloutHalted)
	if err != nil {
		return nil, err
	}
	versions, err := p.opts.Store.Models(ctx)
	if err != nil {
		return nil, err
	}
	keep := map[blob.Digest]bool{}
	for _, r := range rollouts {
		for _, v := range versions {
			if v.Digest != r.Target.Digest {
				continue
			}
			for _, f := range v.Manifest.Files {
				keep[f.Digest] = true
			}
		}
	}
	return keep, nil
}

// one makes the next pack and tells what became of it. more says that there may
// be another one.
func (p *Packer) one(ctx context.Context) (more bool, err error) {
	pack, err := p.opts.Store.NextPack(ctx)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	began := time.Now()
	limited, cancel := context.WithTimeout(ctx, p.opts.Timeout)
	defer cancel()
	made, err := p.make(limited, pack)
	if ctx.Err() != nil {
		return false, nil // it is still wanted
	}
	if err != nil {
		// Another try would most likely end the same; a person reads it in the table.
		p.log.Warn("pack failed", "digest", pack.Target, "err", err)
		made = pack
		made.State, made.Why = store.PackFailed, err.Error()
	} else {
		p.log.Info("pack made", "digest", pack.Target, "state", made.State, "bytes", made.SizeBytes, "took", time.Since(began))
	}
	return true, p.opts.Store.PutPack(ctx, made)
}

// make encodes a pack and keeps it if it is worth it.
func (p *Packer) make(ctx context.Context, pack store.Pack) (_ store.Pack, err error) {
	target, err := p.source(pack.Target)
	if err != nil {
		return pack, err
	}
	defer target.Close()
	var base wdelta.Source
	if !pack.Base.IsZero() {
		f, err := p.source(pack.Base)
		if err != nil {
			return pack, err
		}
		defer f.Close()
		base = f
	}
	out, err := os.CreateTemp(filepath.Join(p.opts.Blobs.Dir(), "stage"), pack.Target.Hex()+".pack-*")
	if err != nil {
		return pack, fmt.Errorf("make pack: %w", err)
	}
	defer os.Remove(out.Name())
	defer out.Close()
	sum := sha256.New()
	var o wdelta.Options
	if o.TargetTensors, err = p.tensors(ctx, pack.Target); err == nil && base != nil {
		o.BaseTensors, err = p.tensors(ctx, pack.Base)
	}
	if err != nil {
		return pack, err
	}
	stats, err := wdelta.Encode(ctx, base, target, io.MultiWriter(out, sum), o)
	if err != nil {
		return pack, err
	}
	pack.SizeBytes = stats.WireBytes
	if pack.Why, err = p.unfit(ctx, pack, target.Size()); err != nil || pack.Why != "" {
		pack.State = store.PackUnfit
		return pack, err
	}
	var index bytes.Buffer
	if _, err := wdelta.WriteIndex(io.NewSectionReader(out, 0, stats.WireBytes), &index); err != nil {
		return pack, err
	}
	pack.Digest, pack.Index, pack.IndexBytes = blob.Digest(sum.Sum(nil)), blob.Sum(index.Bytes()), int64(index.Len())
	pack.State = store.PackReady
	return pack, errors.Join(p.opts.Blobs.Put(&index, pack.Index), p.opts.Blobs.Adopt(out.Name(), pack.Digest))
}

// unfit says why a pack is not worth having; "" is: it is.
func (p *Packer) unfit(ctx context.Context, pack store.Pack, whole int64) (string, error) {
	least := whole // of bytes that a box would take without it
	if !pack.Base.IsZero() {
		others, err := p.opts.Store.Packs(ctx, pack.Target)
		if err != nil {
			return "", err
		}
		for _, o := range others {
			if o.Base.IsZero() && o.State == store.PackReady {
				least = min(least, o.SizeBytes)
			}
		}
		if !wdelta.Worth(pack.SizeBytes, least) {
			return fmt.Sprintf("the delta has %d bytes, without it a box takes %d", pack.SizeBytes, least), nil
		}
		return "", nil
	}
	// A pack costs a box its decoding, and the controller its room.
	if float64(pack.SizeBytes) > coldShare*float64(whole) {
		return fmt.Sprintf("the cold pack has %d bytes, the file %d", pack.SizeBytes, whole), nil
	}
	return "", nil
}

// coldShare of the file is the most that a cold pack may have.
const coldShare = 0.97

// file is a blob to read at any place.
type file struct {
	*io.SectionReader
	io.Closer
}

func (p *Packer) source(d blob.Digest) (file, error) {
	f, err := p.opts.Blobs.Get(d)
	if err != nil {
		return file{}, err
	}
	info, err := f.Stat()
	if err != nil {
		return file{}, errors.Join(err, f.Close())
	}
	return file{io.NewSectionReader(f, 0, info.Size()), f}, nil
}
