package inputs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"io"
	"os"
)

// bbolt maps its file and follows page numbers without checks: a damaged page
// ends the process, at times from a goroutine of its own where recover cannot
// reach. So the tree is walked here first, with ordinary reads.
//
// The format is version 2 (bbolt internal/common/{page,meta,bucket}.go), in the
// byte order of the machine, which is little-endian on all we build for:
//
//	page    id u64, flags u16, count u16, overflow u32, elements
//	branch  pos u32, key size u32, page u64          (pos counts from the element)
//	leaf    flags u32, pos u32, key size u32, value size u32
//	bucket  root u64, sequence u64, a page if root is 0   (value of a leaf with flag 1)
//	meta    magic u32, version u32, page size u32, flags u32, bucket, free list u64,
//	        pages u64, transaction u64, FNV-1a of the above u64
const (
	pageHeader  = 16
	elementSize = 16
	bucketSize  = 16
	metaSize    = 64
	branchPage  = 1
	leafPage    = 2
	boltMagic   = 0xED0CDAED
	boltVersion = 2
	maxDepth    = 40 // a tree of 16 MB has 3 levels
)

// keyRange is what the parent page says of a page's keys: low ≤ key < high;
// nil is no bound.
type keyRange struct{ low, high []byte }

type boltFile struct {
	r        io.ReaderAt
	pageSize uint64
	pages    uint64 // those from here on were never used
	seen     map[uint64]bool
}

// checkPages returns a *damageError unless every page that the newest meta page
// leads to is in its place, reached once, and has its elements inside itself
// and in order.
func checkPages(r io.ReaderAt, size int64) error {
	root, f, err := newestMeta(r, size)
	if err != nil {
		return err
	}
	return f.walk(root, 0, keyRange{})
}

func damaged(format string, args ...any) error {
	return &damageError{fmt.Sprintf(format, args...)}
}

// newestMeta reads both meta pages; the first one knows the page size, and
// without it the system's is assumed.
func newestMeta(r io.ReaderAt, size int64) (uint64, *boltFile, error) {
	var root, newest uint64
	f := &boltFile{r: r, seen: map[uint64]bool{}}
	second := int64(os.Getpagesize())
	for _, at := range []*int64{new(int64), &second} {
		buf := make([]byte, pageHeader+metaSize)
		if _, err := r.ReadAt(buf, *at); err != nil {
			continue
		}
		m := buf[pageHeader:]
		sum := fnv.New64a()
		sum.Write(m[:56])
		le := binary.LittleEndian
		if le.Uint32(m) != boltMagic || le.Uint32(m[4:]) != boltVersion || le.Uint64(m[56:]) != sum.Sum64() {
			continue
		}
		if f.pageSize == 0 {
			f.pageSize = uint64(le.Uint32(m[8:]))
			second = int64(f.pageSize)
		}
		if txid := le.Uint64(m[48:]); root == 0 || txid > newest {
			newest, root, f.pages = txid, le.Uint64(m[16:]), le.Uint64(m[40:])
		}
	}
	switch {
	case root == 0:
		return 0, nil, damaged("both its meta pages are unreadable")
	case f.pageSize < 512 || f.pageSize > 1<<20 || f.pages > uint64(size)/f.pageSize:
		return 0, nil, damaged("it has %d bytes and should have %d pages of %d", size, f.pages, f.pageSize)
	}
	return root, f, nil
}

func (f *boltFile) walk(id uint64, depth int, in keyRange) error {
	page, err := f.page(id, depth)
	if err != nil {
		return err
	}
	return f.elements(page, id, depth, in)
}

// page reads page id with its overflow pages.
func (f *boltFile) page(id uint64, depth int) ([]byte, error) {
	if id < 2 || id >= f.pages || depth > maxDepth {
		return nil, damaged("it leads to page %d of %d, %d levels deep", id, f.pages, depth)
	}
	var head [pageHeader]byte
	if _, err := f.r.ReadAt(head[:], int64(id*f.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d of outbox: %w", id, err)
	}
	n := uint64(binary.LittleEndian.Uint32(head[12:])) + 1
	if got := binary.LittleEndian.Uint64(head[:]); got != id || n > f.pages-id {
		return nil, damaged("page %d calls itself %d and has %d pages", id, got, n)
	}
	for i := id; i < id+n; i++ {
		if f.seen[i] {
			return nil, damaged("page %d is used twice", i)
		}
		f.seen[i] = true
	}
	page := make([]byte, n*f.pageSize)
	if _, err := f.r.ReadAt(page, int64(id*f.pageSize)); err != nil {
		return nil, fmt.Errorf("read page %d of outbox: %w", id, err)
	}
	return page, nil
}

// elements checks the content of one page, or of a bucket kept inside page id.
func (f *boltFile) elements(page []byte, id uint64, depth int, in keyRange) error {
	le := binary.LittleEndian
	kind, count := le.Uint16(page[8:]), int(le.Uint16(page[10:]))
	if kind != branchPage && kind != leafPage || kind == branchPage && count == 0 {
		return damaged("page %d is of kind %d with %d elements", id, kind, count)
	}
	if pageHeader+elementSize*count > len(page) {
		return damaged("page %d has %d elements", id, count)
	}
	keys, values := make([][]byte, count), make([][]byte, count)
	for i := range count {
		at := uint64(pageHeader + elementSize*i)
		e := page[at:]
		pos, keyLen, valueLen := uint64(le.Uint32(e)), uint64(le.Uint32(e[4:])), uint64(0)
		if kind == leafPage {
			pos, keyLen, valueLen = uint64(le.Uint32(e[4:])), uint64(le.Uint32(e[8:])), uint64(le.Uint32(e[12:]))
		}
		start := at + pos
		if start+keyLen+valueLen > uint64(len(page)) || start < uint64(pageHeader+elementSize*count) {
			return damaged("element %d of page %d lies outside", i, id)
		}
		keys[i], values[i] = page[start:start+keyLen], page[start+keyLen:start+keyLen+valueLen]
		if i > 0 && bytes.Compare(keys[i-1], keys[i]) >= 0 {
			return damaged("element %d of page %d is out of order", i, id)
		}
	}
	if count > 0 && (in.low != nil && bytes.Compare(keys[0], in.low) < 0 || in.high != nil && bytes.Compare(keys[count-1], in.high) >= 0) {
		return damaged("keys of page %d belong elsewhere", id)
	}
	for i := range count {
		e := page[pageHeader+elementSize*i:]
		var err error
		switch {
		case kind == branchPage:
			child := keyRange{keys[i], in.high}
			if i+1 < count {
				child.high = keys[i+1]
			}
			err = f.walk(le.Uint64(e[8:]), depth+1, child)
		case le.Uint32(e)&1 != 0:
			err = f.bucket(values[i], id, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *boltFile) bucket(value []byte, id uint64, depth int) error {
	if len(value) < bucketSize {
		return damaged("a bucket of page %d has %d bytes", id, len(value))
	}
	if root := binary.LittleEndian.Uint64(value); root != 0 {
		return f.walk(root, depth+1, keyRange{})
	}
	inline := value[bucketSize:]
	if len(inline) < pageHeader || depth > maxDepth || binary.LittleEndian.Uint16(inline[8:]) != leafPage {
		return damaged("a bucket inside page %d is no leaf page", id)
	}
	return f.elements(inline, id, depth+1, keyRange{})
}
