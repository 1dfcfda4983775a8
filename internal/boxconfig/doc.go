// Package boxconfig says what a fleet may set on its boxes, and reads the
// documents that set it. It is pure; controller, commands and boxes share it.
//
// Vocabulary: a document (kind: BoxConfig) has a name, a selector over boxes, a
// priority and settings. A setting is one value under a path, such as
// agent.sense_period or runner.inputs[dock].interval; items of lists go by
// their name. Texts may be templates over facts of the box. To render is to
// fill them in; to merge is to lay the settings of several documents over each
// other, the higher priority above. Content is the outcome for one box as JSON,
// named by its digest: that is what a box gets, signed.
//
// Settings that could run a program, or read a file of the box and send it
// elsewhere, are not in the table of fields: a thief of the controller must not
// come further than whoever signs models and releases lets it.
//
// The one rule a caller can break: a box checks content again by Parse before
// it follows it.
package boxconfig

// Kind of a document.
const Kind = "BoxConfig"

// The bounds.
const (
	// MaxDocumentBytes is for the YAML of one document.
	MaxDocumentBytes = 64 << 10
	// MaxContentBytes is for what one box gets: with all its secrets and models it
	// still fits into a WELCOME.
	MaxContentBytes = 24 << 10
	// MaxDocuments lie over each other on one box.
	MaxDocuments = 16
	maxText      = 4096 // bytes of one value
	maxName      = 63
)
