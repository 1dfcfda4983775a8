package enrol

import (
	"context"
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/edgeherd/edgeherd/controller/store"
	"github.com/edgeherd/edgeherd/internal/enrol"
)

// SignFile answers the file of a request, which somebody carried here. Who signs
// it agrees to it. server is a certificate of the controller with the root in
// its chain: the box believes the file as it would believe a connection.
func (d *Desk) SignFile(ctx context.Context, file []byte, by string, server tls.Certificate) ([]byte, enrol.Answer, error) {
	q, signed, err := enrol.OpenRequest(file)
	if err != nil {
		return nil, enrol.Answer{}, &badRequest{err}
	}
	token, err := d.opts.Store.EnrolToken(ctx, q.TokenID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, enrol.Answer{}, &badRequest{fmt.Errorf("the file names token %s, which is not known here", q.TokenID)}
	}
	if err != nil {
		return nil, enrol.Answer{}, err
	}
	if !signed.Authentic(token.Hash) {
		return nil, enrol.Answer{}, &badRequest{errors.New("who wrote this file did not have the token that it names: it was made up or changed on the way")}
	}
	a, err := d.redeem(ctx, q, token.Hash, origin{address: "a file", file: true, agreed: by})
	if err != nil {
		return nil, a.Answer, err
	}
	if a.Code != enrol.Issued {
		return nil, a.Answer, nil
	}
	key, ok := server.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, a.Answer, fmt.Errorf("sign the answer: the controller's key is %T", server.PrivateKey)
	}
	out, err := enrol.AnswerFile(a.Answer, server.Certificate, key)
	return out, a.Answer, err
}

// Unusable says whether an error is about what was handed in, not about us.
func Unusable(err error) bool {
	var b *badRequest
	return errors.As(err, &b)
}
