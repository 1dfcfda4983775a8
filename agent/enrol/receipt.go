package enrol

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// SendReceipt tells the controller, signed, what a retired box has wiped. dial
// is as in RenewOptions.
func SendReceipt(ctx context.Context, id *identity.Identity, dial func(ctx context.Context, network, address string) (net.Conn, error), r enrol.Receipt) error {
	sealed, ok := id.Certificate.PrivateKey.(crypto.Signer)
	if !ok {
		return errors.New("sign receipt: the box's key does not sign")
	}
	r.DeviceID, r.BootID = id.ID, bootID()
	body, err := enrol.SignReceipt(r, sealed)
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialTLSContext: dial, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+id.HTTPS+enrol.PathReceipt, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	answer, err := send(client, req)
	if err != nil {
		return err
	}
	if answer.Code != enrol.Received {
		return refusal(answer)
	}
	return nil
}

// Forget removes the identity of a box that is a member no longer.
func Forget(dir string) error {
	return errors.Join(removeTree(nextDir(dir)), removeTree(oldDir(dir)), removeTree(dir))
}
