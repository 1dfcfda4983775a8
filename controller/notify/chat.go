package notify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/nicholas-fedor/shoutrrr"
	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"

	"github.com/edgeherd/edgeherd/controller/care"
)

// chat is a service that shoutrrr knows.
type chat struct {
	send    *router.ServiceRouter
	secrets secrets
}

// maxSecretBytes bounds a file with an address or a secret.
const maxSecretBytes = 4096

func newChat(e Endpoint) (*chat, error) {
	address := e.Shoutrrr
	if e.ShoutrrrFile != "" {
		var err error
		if address, err = secret(e.ShoutrrrFile); err != nil {
			return nil, err
		}
	}
	c := &chat{secrets: secretsOf(address)}
	send, err := shoutrrr.NewSender(log.New(io.Discard, "", 0), address)
	if err != nil {
		return nil, fmt.Errorf("its address is not one of shoutrrr: %s; see https://shoutrrr.nickfedor.com for how each service is written", c.secrets.hide(err.Error()))
	}
	send.Timeout = tellTimeout
	c.send = send
	return c, nil
}

// secret reads a file that holds one secret.
func secret(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSecretBytes+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", file, err)
	}
	text := strings.TrimSpace(string(data))
	if text == "" || len(data) > maxSecretBytes {
		return "", fmt.Errorf("%s is empty or longer than %d bytes", file, maxSecretBytes)
	}
	return text, nil
}

// secrets are the parts of an address, never to be shown.
type secrets []string

// secretsOf are the parts of an address that may be a secret: all that is long
// enough for one.
func secretsOf(address string) secrets {
	_, rest, ok := strings.Cut(address, "://")
	if !ok {
		rest = address
	}
	var out secrets
	if len(address) >= 6 {
		out = append(out, address)
	}
	for _, part := range strings.FieldsFunc(rest, func(r rune) bool { return strings.ContainsRune("/:@?&=", r) }) {
		if len(part) >= 6 {
			out = append(out, part)
			if plain, err := url.PathUnescape(part); err == nil && plain != part {
				out = append(out, plain)
			}
		}
	}
	return out
}

// hide makes what a service said one line that shows no secret.
func (all secrets) hide(text string) string {
	for _, s := range all {
		text = strings.ReplaceAll(text, s, "…")
	}
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

func (c *chat) tell(ctx context.Context, n care.Notice, link string, _ time.Time) error {
	text := n.Text
	if link != "" {
		text += "\n" + link
	}
	// Services without titles would leave it out.
	text = n.Title + "\n" + text
	done := make(chan error, 1) // it has no context: its own timeout ends it
	go func() {
		params := types.Params{}
		done <- errors.Join(c.send.Send(text, &params)...)
	}()
	select {
	case err := <-done:
		if err != nil {
			return errors.New(c.secrets.hide(err.Error()))
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("no answer within %s", tellTimeout)
	}
}
