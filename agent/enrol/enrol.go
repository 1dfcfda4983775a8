// Package enrol makes a machine a member of a fleet and keeps it one: it
// exchanges a token for a certificate, and the certificate for the next one.
//
// Vocabulary: the identity is the directory STATE/identity with the files of
// package identity; it changes as a whole. The next one is made beside it in
// STATE/identity.new, its key first and on the disk before anything leaves the
// box, so that a request that is repeated after a power cut has the same key and
// gets the same answer.
//
//	STATE/identity/         who the box is
//	STATE/identity.new/     who it is about to be
//	STATE/identity.old/     who it was, while the two above change places
//	STATE/fence.json        how often an agent has started on this disk
//
// A key lies in key.pem or, sealed by a TPM, in tpm.json; so does the one that
// secrets for the box are sealed to (seal.pem, and seal-before.pem after a
// renewal).
//
// The one rule a caller can break: Load, not identity.Load, opens an identity:
// it finishes what a power cut left and knows keys in a TPM.
package enrol

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// Options say how a box enrols. Dir is required.
type Options struct {
	Dir  string // of the identity
	Root string // of sysfs; default /
	// TPM is "off", "auto" (the default: use one that is there) or the path of a
	// device or of swtpm's socket, which then has to be there.
	TPM     string
	Version string // of the agent
	Name    string // how the box would like to be called
	// Again enrols a box that is a member already. Its old identity goes when
	// the new one has come.
	Again bool
	// Net, Proxy and ProxyAuth are as in dial.Options.
	Net              func(ctx context.Context, network, address string) (net.Conn, error)
	Proxy, ProxyAuth string
	// WallClock judges certificates; nil means time.Now.
	WallClock func() time.Time
	// Say tells the person in front of the box what is waited for.
	Say func(text string)
	// Draw makes a picture of an address for the camera of a phone; nil makes none.
	Draw func(address string) (string, error)
	// Patience is how long a network that fails is tried again; default 1 min.
	Patience time.Duration
}

func (o Options) withDefaults() Options {
	if o.Root == "" {
		o.Root = "/"
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	if o.Say == nil {
		o.Say = func(string) {}
	}
	if o.Patience <= 0 {
		o.Patience = time.Minute
	}
	return o
}

// ErrMember says that a box is a member already.
var ErrMember = errors.New("this box is enrolled already")

// Enrol exchanges a token for an identity. It may be repeated after any failure.
func Enrol(ctx context.Context, opts Options, token enrol.Token) (identity.Box, error) {
	opts = opts.withDefaults()
	key, request, err := opts.prepare(token)
	if err != nil {
		return identity.Box{}, err
	}
	c := client{opts: opts, token: token, key: key}
	answer, err := c.untilAnswered(ctx, enrol.PathRequests, request)
	told := ""
	for err == nil && (answer.Code == enrol.Pending || answer.Code == enrol.TPMChallenge) {
		if answer.Code == enrol.TPMChallenge {
			answer, err = c.prove(ctx, answer)
			continue
		}
		if told != answer.ShortCode {
			told = answer.ShortCode
			opts.sayWaiting(told, token.ClaimURL())
		}
		if err = wait(ctx, time.Duration(max(answer.PollSeconds, 1))*time.Second); err != nil {
			err = fmt.Errorf("%w (%w)", ErrStopped, err)
		} else {
			answer, err = c.untilAnswered(ctx, enrol.PathRequests, request)
		}
	}
	if err != nil {
		return identity.Box{}, err
	}
	if answer.Code != enrol.Issued {
		return identity.Box{}, refusal(answer)
	}
	return answer.Member.Box, opts.adopt(key, *answer.Member)
}

// sayWaiting tells the person in front of the box what it waits for, once.
func (o Options) sayWaiting(code, address string) {
	o.Say(fmt.Sprintf("Waiting for approval. Read this code to ops: %s\nOr claim this machine with a phone: %s", code, address))
	if o.Draw == nil {
		return
	}
	if picture, err := o.Draw(address); err == nil { // the address was told in words
		o.Say(picture)
	}
}

// prepare looks whether the box may enrol, and makes its request and its key.
func (o Options) prepare(token enrol.Token) (key, enrol.Request, error) {
	var request enrol.Request
	if err := o.preflight(); err != nil {
		return key{}, request, err
	}
	k, err := o.makeKey(nextDir(o.Dir))
	if err != nil {
		return key{}, request, err
	}
	csr, err := makeCSR(k, nextDir(o.Dir))
	if err != nil {
		return key{}, request, err
	}
	request = enrol.Request{
		V: enrol.Version, TokenID: token.ID, Secret: token.Secret, CSR: csr, Hardware: readHardware(o.Root),
		Agent: enrol.Agent{Version: o.Version, BootID: bootID()}, NameHint: o.Name,
	}
	request.TPM, err = k.tpm()
	return k, request, err
}

// preflight is what can be said before anything is sent.
func (o Options) preflight() error {
	have, err := Load(o.Dir)
	switch {
	case err == nil && !o.Again:
		return fmt.Errorf("%w as %s, %q at site %s: to enrol it anew, which needs a token of its own, use --re-enroll", ErrMember, have.ID, have.Name, have.Site)
	case err != nil && Enrolled(o.Dir) && !o.Again:
		return fmt.Errorf("there is an identity that cannot be read: %w; to replace it, ask ops for a replace token and use --re-enroll", err)
	}
	return nil
}

// prove answers a challenge by the TPM.
func (c client) prove(ctx context.Context, a enrol.Answer) (enrol.Answer, error) {
	secret, err := c.key.activate(*a.Challenge)
	if err != nil {
		return enrol.Answer{}, err
	}
	return c.untilAnswered(ctx, enrol.PathChallenge(a.RequestID), enrol.ChallengeReply{V: enrol.Version, Answer: secret})
}

// wait is a pause that ctx cuts short.
func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "" // it is for comparing; without it there is nothing to compare
	}
	return strings.TrimSpace(string(text))
}

// http is a client that reaches the controller of a token and no other.
func (o Options) http(token enrol.Token) *http.Client {
	return &http.Client{
		Timeout: time.Minute,
		Transport: &http.Transport{DisableKeepAlives: true, DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dial.Open(ctx, dial.Options{Net: o.Net, Proxy: o.Proxy, ProxyAuth: o.ProxyAuth}, token.Address(), token.ClientTLS(o.WallClock))
		}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
