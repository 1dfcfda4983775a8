// Package deviceapi is what boxes and the controller say to each other about
// files, beside the files themselves: JSON over HTTPS on which both have proved
// who they are. Paths begin with /device/v1/blobs/HEX.
//
// Vocabulary: a way is a form in which a file can come; a pack is a way of fewer
// bytes (docs/wdelta.md): a cold pack needs nothing, a delta needs its base, a
// file that the box may have.
//
// The one rule a caller can break: nothing here is believed beyond the
// connection it came by. What a way makes is checked against digests that are
// signed.
package deviceapi

import "github.com/edgeherd/edgeherd/internal/blob"

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
