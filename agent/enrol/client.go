package enrol

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/agent/dial"
	"github.com/edgeherd/edgeherd/internal/enrol"
)

// client talks to the controller of a token.
type client struct {
	opts  Options
	token enrol.Token
	key   key
}

// untilAnswered asks until there is an answer that is not "later": a network
// that fails is tried again for a while, a busy controller as long as it asks
// for. What cannot get better by waiting ends it at once.
func (c client) untilAnswered(ctx context.Context, path string, body any) (enrol.Answer, error) {
	http := c.opts.http(c.token)
	defer http.CloseIdleConnections()
	end := time.Now().Add(c.opts.Patience)
	for pause := time.Second; ; pause = min(2*pause, 15*time.Second) {
		answer, err := post(ctx, http, "https://"+c.token.Address()+path, body)
		switch {
		case err == nil && answer.Code != enrol.Busy:
			return answer, nil
		case err == nil:
			pause = time.Duration(max(answer.RetrySeconds, 1)) * time.Second
			c.opts.Say(fmt.Sprintf("The controller is busy; trying again in %s.", pause))
		case ctx.Err() != nil:
			return answer, fmt.Errorf("%w (%w)", ErrStopped, ctx.Err())
		case errors.Is(err, enrol.ErrPin):
			return answer, fmt.Errorf("%s: %w", c.token.Address(), enrol.ErrPin)
		case errors.Is(err, enrol.ErrHost) || !time.Now().Add(pause).Before(end):
			return answer, err
		default:
			c.opts.Say(fmt.Sprintf("%s Trying again in %s.", sentence(err), pause))
		}
		if err := wait(ctx, pause); err != nil {
			return answer, fmt.Errorf("%w (%w)", ErrStopped, err)
		}
	}
}

// ErrStopped says that somebody ended an enrolment that had no answer yet.
var ErrStopped = errors.New("stopped before this machine was enrolled; nothing is lost: run the same command with the same token again")

// sentence is an error as one: of a fault on the way only what it says itself,
// which names the address.
func sentence(err error) string {
	var fault *dial.Fault
	if !errors.As(err, &fault) {
		return err.Error() + "."
	}
	text := strings.ToUpper(fault.What[:1]) + fault.What[1:]
	if strings.HasSuffix(text, "?") {
		return text
	}
	return text + "."
}

// post sends v and reads the answer, whatever its status is.
func post(ctx context.Context, client *http.Client, url string, v any) (enrol.Answer, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return enrol.Answer{}, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return enrol.Answer{}, fmt.Errorf("make request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	return send(client, req)
}

func send(client *http.Client, req *http.Request) (enrol.Answer, error) {
	resp, err := client.Do(req)
	if err != nil {
		var fault *dial.Fault
		if errors.As(err, &fault) {
			return enrol.Answer{}, fault // without the address that url.Error puts before it
		}
		return enrol.Answer{}, fmt.Errorf("ask the controller: %w", err)
	}
	defer resp.Body.Close()
	answer, err := enrol.ReadAnswer(resp.Body)
	if err != nil {
		return enrol.Answer{}, fmt.Errorf("%s answers %s: %w", req.URL.Host, resp.Status, err)
	}
	return answer, nil
}

// Refused is a controller's no.
type Refused struct{ Answer enrol.Answer }

func refusal(a enrol.Answer) error { return &Refused{a} }

// Error is the sentence for the person in front of the box.
func (r *Refused) Error() string {
	a := r.Answer
	text, ok := sentences[a.Code]
	if !ok {
		return fmt.Sprintf("the controller says %q: %s", a.Code, a.Detail)
	}
	switch a.Code {
	case enrol.HardwareKnown, enrol.IdentityConflict:
		text = fmt.Sprintf(text, a.DeviceID)
	case enrol.AgentTooOld:
		text = fmt.Sprintf(text, a.MinAgent)
	}
	if a.Detail != "" {
		text += " (" + a.Detail + ")"
	}
	return text
}

// sentences say what a tech can do about a refusal.
var sentences = map[enrol.Code]string{
	enrol.TokenUnknown:     "token not known here: copy it again, or ask ops for a new one",
	enrol.TokenExpired:     "the token has expired or was withdrawn: ask ops for a new one",
	enrol.TokenSite:        "the token is not for this place or machine: ask ops for one that is",
	enrol.Denied:           "ops said no to this box: ask them why",
	enrol.TokenUsed:        "this token was used by another box already: ask ops for a new one",
	enrol.HardwareKnown:    "this machine is %s already: to enrol it anew, ask ops for a replace token",
	enrol.IdentityConflict: "the key on this disk is that of %s: the disk is a copy; wipe it, or remove identity.new",
	enrol.BadRequest:       "the controller does not understand this agent: update the agent, or report it",
	enrol.BadCSR:           "the controller does not understand this agent's request for a certificate: report it",
	enrol.BadKeyType:       "the controller does not take this agent's kind of key: report it",
	enrol.BadTPM:           "what the TPM said does not hold: clear it in the firmware, or keep the key in a file with --tpm off",
	enrol.AgentTooOld:      "this agent is too old for the controller: version %s is the least",
	enrol.Revoked:          "this box was revoked: it can never come back under its name",
}
