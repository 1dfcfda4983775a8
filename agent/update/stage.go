package update

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/minio/selfupdate"

	"github.com/edgeherd/edgeherd/firmware"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/trust"
)

// open fetches a release and checks digest and signature.
func (u *Updater) open(ctx context.Context, release blob.Digest) Event {
	envelope, err := u.read(ctx, release)
	if err != nil {
		return WorkFailed{Err: fmt.Sprintf("fetch release: %v", err)}
	}
	rel, err := firmware.OpenListed(u.opts.Keys(), envelope)
	if err != nil {
		return WorkFailed{Err: err.Error(), Final: true}
	}
	if u.opts.Allow != nil {
		if err := u.opts.Allow(ctx, rel.Version, release); err != nil {
			return WorkFailed{Err: err.Error(), Final: errors.Is(err, trust.ErrUntrusted)}
		}
	}
	slots, err := u.slots.Load()
	if err != nil {
		return WorkFailed{Err: err.Error()}
	}
	return Opened{Release: rel, Running: u.opts.Slot, Slots: slots}
}

func (u *Updater) read(ctx context.Context, d blob.Digest) ([]byte, error) {
	path, err := u.opts.Fetch(ctx, d)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, trust.MaxEnvelopeBytes+1))
	if err != nil {
		return nil, err
	}
	if blob.Sum(data) != d {
		return nil, blob.ErrMismatch
	}
	return data, nil
}

// stage puts the program of the job into its slot.
func (u *Updater) stage(ctx context.Context, job Job) Event {
	if err := u.fill(ctx, job); err != nil {
		return WorkFailed{Err: fmt.Sprintf("stage agent %s: %v", job.Version, err)}
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	return Staged{WasConnected: !u.contact.IsZero() && time.Since(u.contact) < contactWindow}
}

// spareBytes stay free beside the new program, for the state files.
const spareBytes = 1 << 20

func (u *Updater) fill(ctx context.Context, job Job) (err error) {
	if u.slots.Find().Found.Of(job.Slot) == job.Program {
		return nil
	}
	if err := u.slots.Prepare(job.Slot); err != nil {
		return err
	}
	dir := filepath.Dir(u.slots.Path(job.Slot))
	free, err := u.free(dir)
	if err != nil {
		return fmt.Errorf("ask for free space in %s: %w", dir, err)
	}
	if need := uint64(job.SizeBytes + job.SizeBytes/10 + spareBytes); free < need {
		return fmt.Errorf("%s has %d bytes free, the update needs %d: make space", dir, free, need)
	}
	path, err := u.opts.Fetch(ctx, job.Program)
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if fi, err := f.Stat(); err != nil || fi.Size() != job.SizeBytes {
		return errors.Join(err, fmt.Errorf("the program does not have the %d bytes that the release says", job.SizeBytes))
	}
	defer func() {
		if err != nil {
			os.Remove(u.slots.StagePath(job.Slot)) // a half program must not fill the disk
		}
		// selfupdate holds the whole program in memory; the agent's own
		// budget is about as large as that.
		debug.FreeOSMemory()
	}()
	// Only the checks and the copy are left to selfupdate: its Apply and
	// CommitBinary rename without any fsync and can leave no agent at all.
	err = selfupdate.PrepareAndCheckBinary(f, selfupdate.Options{
		TargetPath: u.slots.Path(job.Slot),
		TargetMode: 0o755,
		Checksum:   job.Program[:],
		Hash:       crypto.SHA256,
	})
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return u.slots.Seal(job.Slot, job.Program)
}

// arm writes the trial into the launcher's state.
func (u *Updater) arm(job Job) Event {
	s, err := u.slots.Load()
	if err != nil {
		return WorkFailed{Err: fmt.Sprintf("arm the trial: %v", err)}
	}
	if job.Slot != s.Good.Other() || u.opts.Slot != s.Good {
		return WorkFailed{Err: fmt.Sprintf("arm the trial: slot %s is the good one now, %s is running", s.Good, u.opts.Slot)}
	}
	if err := u.slots.Save(s.Arm(job.Slot, job.Program)); err != nil {
		return WorkFailed{Err: fmt.Sprintf("arm the trial: %v", err)}
	}
	return Armed{}
}

func freeBytes(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return uint64(st.Bavail) * uint64(st.Bsize), nil
}
