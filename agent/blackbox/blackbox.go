// Package blackbox keeps the last hour of a box through whatever ends it, and
// tells after the next boot what that was.
//
//	STATE/blackbox.ring   64 slots of 4096 bytes, a record in each
//
// Vocabulary: a record is 512 bytes with a checksum: up to a minute of readings
// and counts of this boot. A clue is what hardware and kernel say of the last
// reset. Judge makes a cause of records and clues; it is pure.
//
// The file is made once at its full size and written in place, by synchronous
// writes, each record in a block of the file system of its own: a write that
// power cuts short costs that record and no other. It is the one state that
// does not go through package durable's rename, which would wear flash more.
//
// Wear: a record a minute is 4 KB, on coarse flash 16 KB, so 6 to 23 MB a day;
// while the box is hot, throttles or lacks voltage each reading is written, at
// most six times that. A 16 GB eMMC of 3,000 cycles takes 48 TB: a box that is
// hot all its life uses 0.1 % of it a year. Options.Period slows it down.
//
// The one rule a caller can break: one Recorder a file, used by one goroutine.
package blackbox

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
)

const (
	slots     = 64
	slotBytes = 4096
	fileBytes = slots * slotBytes
)

// Options of a Recorder. Path and Boot are required.
type Options struct {
	Path string
	Boot [8]byte // names this boot of the operating system
	// Root is where sysfs and procfs are; default "/".
	Root string
	// Period is how often a record is written in quiet times; default 1 min.
	Period time.Duration
	// NoSync leaves out that writes wait for the disk: for tests of weeks.
	NoSync bool
	// GoingDown says at the end whether the system goes down with us; default:
	// systemd is asked.
	GoingDown func() bool
}

// Recorder writes the ring.
type Recorder struct {
	opts   Options
	log    *slog.Logger
	file   *os.File
	counts counts

	seq      uint64
	wrote    time.Duration // since boot, of the last record
	noted    time.Duration // and of the last sample
	pending  []Sample
	urgent   bool // the last sample was
	lowVolts uint32
	sags     uint32 // readings at which the voltage was too low
	failing  bool
}

// Past is what the ring held of the boot before this one.
type Past struct {
	Boot    [8]byte
	Records []Record // oldest first, at least one
}

// Open opens or makes the ring and returns the records of the last boot that
// was not this one, nil if there are none.
func Open(opts Options, log *slog.Logger) (*Recorder, *Past, error) {
	if opts.Root == "" {
		opts.Root = "/"
	}
	if opts.Period <= 0 {
		opts.Period = time.Minute
	}
	if opts.GoingDown == nil {
		root := opts.Root
		opts.GoingDown = func() bool { return root == "/" && systemdStops() }
	}
	r := &Recorder{opts: opts, log: log, counts: findCounts(opts.Root)}
	if info, err := os.Stat(opts.Path); errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() != fileBytes {
		if err := durable.WriteFile(opts.Path, make([]byte, fileBytes), 0o600); err != nil {
			return nil, nil, fmt.Errorf("make the ring of the last hour: %w", err)
		}
	}
	mode := os.O_RDWR | syscall.O_DSYNC
	if opts.NoSync {
		mode = os.O_RDWR
	}
	var err error
	if r.file, err = os.OpenFile(opts.Path, mode, 0); err != nil {
		return nil, nil, fmt.Errorf("open the ring of the last hour: %w", err)
	}
	records, err := readRing(r.file)
	if err != nil {
		r.file.Close()
		return nil, nil, fmt.Errorf("read the ring of the last hour: %w", err)
	}
	if n := len(records); n > 0 {
		r.seq = records[n-1].Seq
	}
	r.lowVolts = r.counts.lowVolts()
	return r, pastOf(records, opts.Boot), nil
}

// readRing returns the whole records, oldest first.
func readRing(f *os.File) ([]Record, error) {
	var records []Record
	buf := make([]byte, recordBytes)
	for i := range int64(slots) {
		if _, err := f.ReadAt(buf, i*slotBytes); err != nil {
			// A block that the medium cannot read costs its record only.
			if errors.Is(err, syscall.EIO) {
				continue
			}
			return nil, err
		}
		if r, err := decode(buf); err == nil {
			records = append(records, r)
		}
	}
	slices.SortFunc(records, func(a, b Record) int { return cmp.Compare(a.Seq, b.Seq) })
	return records, nil
}

// pastOf picks the newest boot that is not this one.
func pastOf(records []Record, boot [8]byte) *Past {
	var p *Past
	for i := len(records) - 1; i >= 0; i-- {
		switch r := records[i]; {
		case r.Boot == boot:
		case p == nil:
			p = &Past{Boot: r.Boot, Records: []Record{r}}
		case r.Boot == p.Boot:
			p.Records = append(p.Records, r)
		}
	}
	if p != nil {
		slices.Reverse(p.Records)
	}
	return p
}

// spacing is the least time between two samples of a record: 13 of them make a
// minute.
const spacing = 4900 * time.Millisecond

// hotBelow the limit of the die each reading is written at once, in K.
const hotBelow = 3

// Note takes a reading. limitC is where the die throttles, 0 when unknown; wall
// is zero when nobody vouches for the clock.
func (r *Recorder) Note(s Sample, limitC float64, wall time.Time) {
	if r.counts.sagging() {
		r.sags++
	}
	low := r.counts.lowVolts() + r.sags
	urgent := s.Throttled > 0 || limitC > 0 && s.Die >= limitC-hotBelow || low > r.lowVolts
	r.lowVolts = low
	began := urgent && !r.urgent
	r.urgent = urgent
	if r.noted > 0 && s.Mono-r.noted < spacing && !began {
		return
	}
	r.noted = s.Mono
	r.pending = append(r.pending, s)
	if urgent || s.Mono-r.wrote >= r.opts.Period || len(r.pending) == maxSamples || r.seq == 0 {
		flags := uint16(0)
		if urgent {
			flags = flagUrgent
		}
		r.write(flags, s.Mono, wall)
	}
}

// Close writes the mark of a clean stop.
func (r *Recorder) Close(mono time.Duration, wall time.Time) error {
	flags := uint16(flagClean)
	if r.opts.GoingDown() {
		flags |= flagGoingDown
	}
	r.write(flags, mono, wall)
	return r.file.Close()
}

func (r *Recorder) write(flags uint16, mono time.Duration, wall time.Time) {
	rec := Record{Samples: r.pending[max(0, len(r.pending)-maxSamples):]}
	rec.Seq, rec.Boot, rec.MonoMs, rec.Flags = r.seq+1, r.opts.Boot, mono.Milliseconds(), flags
	if !wall.IsZero() {
		rec.WallMs = wall.UnixMilli()
	}
	rec.OOMKills, rec.LowVolts = r.counts.oomKills(), r.lowVolts
	if c := rec.Last().ThrottleCount; c == c {
		rec.Throttle = uint32(min(max(c, 0), math.MaxUint32))
	}
	_, err := r.file.WriteAt(rec.encode(), int64(rec.Seq%slots)*slotBytes)
	if err != nil && !r.failing {
		r.log.Warn("last hour of the box is not recorded", "err", err)
	}
	if r.failing = err != nil; r.failing {
		r.pending = r.pending[max(0, len(r.pending)-maxSamples):]
		return
	}
	r.seq, r.wrote, r.pending = rec.Seq, mono, r.pending[:0]
}
