package fetch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// weights is a file of float32 numbers, and one in which all have moved a little.
func weights(seed uint64, size int) (old, tuned []byte) {
	rng := rand.New(rand.NewPCG(seed, 7))
	for len(old) < size {
		bits := 0x3c000000 + uint32(rng.IntN(1<<25))
		old = binary.LittleEndian.AppendUint32(old, bits)
		tuned = binary.LittleEndian.AppendUint32(tuned, bits+uint32(rng.IntN(1<<10)))
	}
	return old[:size], tuned[:size]
}

// offer has the origin offer a pack that makes its content from base.
func (o *origin) offer(t *testing.T, base []byte) deviceapi.Pack {
	t.Helper()
	var source wdelta.Source
	p := deviceapi.Pack{}
	if base != nil {
		source, p.Base = bytes.NewReader(base), blob.Sum(base)
	}
	var pack, index bytes.Buffer
	if _, err := wdelta.Encode(t.Context(), source, bytes.NewReader(o.content), &pack, wdelta.Options{Coder: wdelta.Fast}); err != nil {
		t.Fatal(err)
	}
	if _, err := wdelta.WriteIndex(bytes.NewReader(pack.Bytes()), &index); err != nil {
		t.Fatal(err)
	}
	p.Digest, p.SizeBytes = blob.Sum(pack.Bytes()), int64(pack.Len())
	p.Index, p.IndexBytes = blob.Sum(index.Bytes()), int64(index.Len())
	if o.others == nil {
		o.others = map[blob.Digest][]byte{}
	}
	o.others[p.Digest], o.others[p.Index] = pack.Bytes(), index.Bytes()
	o.ways.Packs = append(o.ways.Packs, p)
	return p
}

// tuned is an origin of a fine-tune that offers a delta and a cold pack.
func tuned(t *testing.T) (o *origin, base []byte, delta, cold deviceapi.Pack) {
	base, content := weights(5, 5*blob.FrameBytes/4)
	o = originOf(content)
	return o, base, o.offer(t, base), o.offer(t, nil)
}

func TestTheSmallestPackThatWorksIsTaken(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(o *origin, delta, cold deviceapi.Pack)
		base  bool
		uses  string // of delta, cold and whole, the last that was asked for
	}{
		{"a delta, with its base here", func(*origin, deviceapi.Pack, deviceapi.Pack) {}, true, "delta"},
		{"a cold pack without it", func(*origin, deviceapi.Pack, deviceapi.Pack) {}, false, "cold"},
		{"a delta that was made of another base", func(o *origin, delta, _ deviceapi.Pack) {
			other, _ := weights(6, 5*blob.FrameBytes/4)
			o.ways.Packs = nil
			wrong := o.offer(t, other)
			wrong.Base = delta.Base
			o.offer(t, nil)
			o.ways.Packs = append(o.ways.Packs[1:], wrong)
		}, true, "cold"},
		{"a delta whose payload is damaged at the server", func(o *origin, delta, _ deviceapi.Pack) {
			o.others[delta.Digest][delta.SizeBytes/2] ^= 1
		}, true, "cold"},
		{"an index that is damaged", func(o *origin, delta, _ deviceapi.Pack) { o.others[delta.Index][100] ^= 1 }, true, "cold"},
		{"a delta that is gone", func(o *origin, delta, _ deviceapi.Pack) { delete(o.others, delta.Digest) }, true, "cold"},
		{"packs that make another file", func(o *origin, _, _ deviceapi.Pack) {
			was, ways := o.content, o.ways
			o.content, o.ways = bytes.Clone(o.content), deviceapi.Ways{}
			o.content[0] ^= 1
			o.offer(t, nil)
			o.content = was
			o.ways.Packs = append(o.ways.Packs, ways.Packs[0])
			delete(o.others, ways.Packs[0].Digest)
		}, true, "whole"},
		{"nothing but lies", func(o *origin, _, _ deviceapi.Pack) {
			o.ways.Packs = []deviceapi.Pack{{SizeBytes: 1, IndexBytes: 1}, {SizeBytes: -1}, {SizeBytes: 1 << 60, IndexBytes: 5}}
		}, true, "whole"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, base, delta, cold := tuned(t)
			tt.spoil(o, delta, cold)
			last := ""
			f, store := fetcher(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				for _, p := range o.ways.Packs {
					if strings.HasSuffix(r.URL.Path, p.Digest.Hex()) && r.Header.Get("Range") != "" {
						last = map[bool]string{true: "cold", false: "delta"}[p.Base.IsZero()]
					}
				}
				if strings.HasSuffix(r.URL.Path, o.digest().Hex()) {
					last = "whole"
				}
				o.ServeHTTP(w, r)
			}), nil)
			if tt.base {
				if err := store.Put(bytes.NewReader(base), blob.Sum(base)); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.File(t.Context(), o.file(), nil); err != nil {
				t.Fatal(err)
			}
			wantBlob(t, store, o)
			if last != tt.uses {
				t.Errorf("came by %s, want %s", last, tt.uses)
			}
		})
	}
}

func TestAPackGoesOnWhereItStopped(t *testing.T) {
	o, base, delta, _ := tuned(t)
	o.ways.Packs = o.ways.Packs[:1]
	cut := 0
	o.spoil = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, delta.Digest.Hex()) && cut < 2 {
			cut++
			o.cut(w, r, int(delta.SizeBytes)*9/10)
		}
		return false
	}
	f, store := fetcher(t, o, nil)
	if err := store.Put(bytes.NewReader(base), blob.Sum(base)); err != nil {
		t.Fatal(err)
	}
	if err := f.File(t.Context(), o.file(), nil); err != nil {
		t.Fatal(err)
	}
	wantBlob(t, store, o)
	if got, most := o.served.Load(), int64(len(o.content)); got >= most {
		t.Errorf("served %d bytes for a delta of %d", got, delta.SizeBytes)
	}
}

func TestAPackThatIsBeingMadeIsWaitedForAndNotForEver(t *testing.T) {
	for _, made := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			o, _, _, cold := tuned(t)
			all := o.ways.Packs
			o.ways = deviceapi.Ways{WaitMs: 15_000}
			began := time.Now()
			time.AfterFunc(time.Minute+time.Second, func() {
				o.mu.Lock()
				defer o.mu.Unlock()
				if made {
					o.ways = deviceapi.Ways{Packs: all}
				}
			})
			inBubble(t, o, nil, func(t *testing.T, open func() *Fetcher, store *blob.Store) {
				f := open()
				defer f.Close()
				if err := f.File(t.Context(), o.file(), nil); err != nil {
					t.Fatal(err)
				}
				wantBlob(t, store, o)
			})
			took, small := time.Since(began), o.served.Load() <= cold.SizeBytes+cold.IndexBytes+1000
			if small != made || took > packWait+time.Minute || made && took > 2*time.Minute {
				t.Errorf("made %v: took %s and served %d bytes of %d", made, took, o.served.Load(), len(o.content))
			}
		})
	}
}

// TestNothingThatIsNotSignedReachesThePart cuts a file at random, with a wrong
// bit now and then.
func TestNothingThatIsNotSignedReachesThePart(t *testing.T) {
	content := newOrigin(31, 2*blob.FrameBytes+100).content
	frames, _, err := blob.FramesOf(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(31, 2))
	for range 8 {
		d := &disk{now: make([]byte, len(content)), safe: make([]byte, len(content)), dirty: map[int]bool{}, steps: 1 << 30}
		p, err := rehash(d, frames)
		if err != nil {
			t.Fatal(err)
		}
		in := joiner{part: p, end: len(p.have)}
		for at := 0; at < len(content) && err == nil; {
			n := min(rng.IntN(1<<20), len(content)-at)
			data := bytes.Clone(content[at : at+n])
			if n > 0 && rng.IntN(6) == 0 {
				data[rng.IntN(n)] ^= 1
			}
			err = in.add(int64(at), data)
			at += n
		}
		if err != nil && !errors.Is(err, errPack) {
			t.Fatal(err)
		}
		for i, there := range p.have {
			off, n := frames.Span(i)
			got := d.now[off : off+int64(n)]
			if there != bytes.Equal(got, content[off:off+int64(n)]) || !there && !bytes.Equal(got, make([]byte, n)) {
				t.Fatalf("frame %d is called there: %v, and is not as it shall be", i, there)
			}
		}
	}
}
