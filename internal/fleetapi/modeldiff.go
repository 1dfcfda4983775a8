package fleetapi

import "github.com/edgeherd/edgeherd/models"

// ModelDiff says what a box that has one version of a model fetches for another.
type ModelDiff struct {
	From models.Ref `json:"from"`
	To   models.Ref `json:"to"`
	// SizeBytes is the whole of To, DownloadBytes what goes over the line.
	SizeBytes     int64      `json:"size_bytes"`
	DownloadBytes int64      `json:"download_bytes"`
	Files         []FileDiff `json:"files"`
}

// FileDiff is one file of a ModelDiff.
type FileDiff struct {
	Path string `json:"path"`
	// Change is same, changed, new or gone.
	Change    string `json:"change"`
	SizeBytes int64  `json:"size_bytes"`
	// DownloadBytes is the least of the file, its cold pack and its delta.
	DownloadBytes int64 `json:"download_bytes"`
	// Cold and Delta are the packs; without one of a kind it is none.
	Cold  PackSize `json:"cold"`
	Delta PackSize `json:"delta"`
}

// PackSize says how a pack stands.
type PackSize struct {
	// State is none, wanted, ready, unfit or failed; Why says why.
	State     string `json:"state"`
	SizeBytes int64  `json:"size_bytes,omitempty"`
	Why       string `json:"why,omitempty"`
}
