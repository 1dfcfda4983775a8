// Package weights counts what models cost the lines of sites: a whole fleet of
// real agents and a real controller in one testing/synctest bubble, with what
// each box reads from the controller counted at its connections. It holds tests
// only.
//
// Vocabulary: a fine-tune is a demo model whose weights have moved a little; the
// line of a site is what all its boxes read from the controller's port of files.
//
// The one rule to keep: judge by the bytes of connections, never by what the
// code under test says of itself.
package weights
