// Package deviceapi is what boxes and the controller say to each other about
// files, beside the files themselves: JSON over HTTPS on which both have proved
// who they are. Paths begin with /device/v1/blobs/HEX.
//
// Vocabulary: a way is a form in which a file can come; a pack is a way of fewer
// bytes (docs/wdelta.md): a cold pack needs nothing, a delta needs its base, a
// file that the box may have. The lease of a file lets one box of a site, the
// seed, fetch it over the site's line; the others are its peers.
//
// The one rule a caller can break: nothing here is believed beyond the
// connection it came by. What a way makes is checked against digests that are
// signed.
package deviceapi

import (
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Ways answers GET BLOB/ways.
type Ways struct {
	// Packs are the ways of fewer bytes, in no order.
	Packs []Pack `json:"packs"`
	// WaitMs asks to ask again after so long: a pack is being made. 0: this is
	// all there will be.
	WaitMs int64 `json:"wait_ms,omitempty"`
}

// MaxWaysBytes bounds the answer.
const MaxWaysBytes = 64 << 10

// Pack is one way.
type Pack struct {
	Digest    blob.Digest `json:"digest"`
	SizeBytes int64       `json:"size_bytes"`
	// Index is the pack without its payloads; see wdelta.Index.
	Index      blob.Digest `json:"index"`
	IndexBytes int64       `json:"index_bytes"`
	// Base is the file it needs; zero: none.
	Base blob.Digest `json:"base,omitzero"`
}

// Ask is the body of POST BLOB/lease.
type Ask struct {
	// Address is where the box gives frames to peers; empty: nowhere.
	Address string `json:"address,omitempty"`
	// DoneBytes of SizeBytes are here.
	DoneBytes int64 `json:"done_bytes"`
	SizeBytes int64 `json:"size_bytes"`
	// Yield says that the box will not use the line: it has all, or may not now.
	Yield bool `json:"yield,omitempty"`
	// Bad are peers that gave wrong frames.
	Bad []identity.ID `json:"bad,omitempty"`
}

// MaxAskBytes bounds an Ask, and the answer.
const MaxAskBytes = 16 << 10

// Lease answers an Ask.
type Lease struct {
	// Seed says that the asker fetches over the line, for ForMs from now.
	Seed  bool  `json:"seed"`
	ForMs int64 `json:"for_ms"`
	// Peers have frames, the seed first.
	Peers []Peer `json:"peers"`
}

// Peer is a box of the same site.
type Peer struct {
	ID      identity.ID `json:"id"`
	Address string      `json:"address"`
}

// Place answers GET BLOB/url: where the bytes of a blob can be read without the
// controller, in ranges, for ForMs from now. It is as good as a password for that
// blob: it is never written down. 404: nowhere.
type Place struct {
	URL   string `json:"url"`
	ForMs int64  `json:"for_ms"`
}

// MaxPlaceBytes bounds the answer.
const MaxPlaceBytes = 8 << 10
