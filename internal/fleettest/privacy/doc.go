// Package privacy holds the tests that no picture leaves a site: one walks all
// that can be sent, one reads labels from a camera and looks at all that is.
//
// A frame is what a camera saw; what leaves is text, numbers and names that were
// made of it. Raw bytes may travel in a few fields only, each of which is listed
// with its bound and the reason why it cannot be a frame.
//
// The one rule a caller can break: a new field of raw bytes needs a line in the
// list, and that line a reason.
package privacy
