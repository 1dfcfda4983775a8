// Package pipeline carries out what manifests declare (models.Pipeline): frames
// and clips go in, boxes, classes, text and segments come out.
//
// Vocabulary: a frame is a decoded picture; a view is the part of a frame that a
// pipeline looks at, a rotated rectangle; a raster is a view at the size that a
// model wants, and knows which part of the frame it covers, so that boxes find
// their way back. A plan is one pipeline of one version of a model with the
// files it needs; it is made anew when another version serves, so what is done
// before and after a model always belongs to the version that ran.
//
// The box is asked through two things: Infer runs a model, Catalog tells which
// versions serve and what their signed manifests say.
//
// The one rule a caller can break: a Runner is used by one goroutine at a time.
package pipeline
