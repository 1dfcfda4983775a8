package identity

import "time"

// TLSTime is a clock for TLS: now within the life of the box's own certificate.
// A box whose clock is in 1970 or a year ahead must reach its controller all
// the same: nobody is there to set the clock, and where the certificate has
// really ended, the controller refuses it by its own clock.
func (id *Identity) TLSTime(now func() time.Time) func() time.Time {
	leaf := id.Certificate.Leaf
	return func() time.Time {
		t := now()
		switch {
		case t.Before(leaf.NotBefore):
			return leaf.NotBefore
		case t.After(leaf.NotAfter):
			return leaf.NotAfter
		}
		return t
	}
}
