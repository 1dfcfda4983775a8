package controller

import (
	"github.com/edgeherd/edgeherd/controller/secrets"
	"github.com/edgeherd/edgeherd/internal/trust"
)

func (c *Controller) openSecrets() (err error) {
	c.secrets, err = secrets.Open(secrets.Options{Dir: c.opts.Dir, Keys: c.opts.Keys, Store: c.store, Sign: c.signDesired, Told: c.tellDesired}, c.log)
	return err
}

func (c *Controller) signDesired(payload []byte) ([]byte, error) {
	return trust.Sign(trust.TypeDesired, payload, c.key)
}
