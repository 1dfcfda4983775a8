package fleetapi

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
)

// Users lists all people.
func (c *Client) Users(ctx context.Context) (UserList, error) {
	return call[UserList](ctx, c, http.MethodGet, "/users", nil)
}

// AddUser invites a person.
func (c *Client) AddUser(ctx context.Context, n NewUser) (UserChanged, error) {
	return c.absolute(call[UserChanged](ctx, c, http.MethodPost, "/users", n))
}

// ActOnUser does something with a person.
func (c *Client) ActOnUser(ctx context.Context, name string, a UserAction) (UserChanged, error) {
	return c.absolute(call[UserChanged](ctx, c, http.MethodPost, "/users/"+url.PathEscape(name)+"/actions", a))
}

// absolute makes the path of an invitation an address.
func (c *Client) absolute(u UserChanged, err error) (UserChanged, error) {
	if u.Invitation != nil {
		u.Invitation.Path = c.base + u.Invitation.Path
	}
	return u, err
}

// Tokens lists the tokens of programs.
func (c *Client) Tokens(ctx context.Context) (APITokenList, error) {
	return call[APITokenList](ctx, c, http.MethodGet, "/tokens", nil)
}

// RevokeToken ends a token of a program.
func (c *Client) RevokeToken(ctx context.Context, id string) error {
	_, err := call[APITokenList](ctx, c, http.MethodDelete, "/tokens/"+url.PathEscape(id), nil)
	return err
}

// Audit returns a page of the audit log, newest first; before 0 begins with the
// newest.
func (c *Client) Audit(ctx context.Context, before int64, limit int) (AuditList, error) {
	v := url.Values{}
	if before > 0 {
		v.Set("before", strconv.FormatInt(before, 10))
	}
	if limit > 0 {
		v.Set("limit", strconv.Itoa(limit))
	}
	return call[AuditList](ctx, c, http.MethodGet, "/audit?"+v.Encode(), nil)
}

// AuditState has the controller walk through its whole log.
func (c *Client) AuditState(ctx context.Context) (AuditState, error) {
	return call[AuditState](ctx, c, http.MethodGet, "/audit:verify", nil)
}

// auditPage is how many lines are asked for at once.
const auditPage = 5000

// ExportAudit calls f for every line of the log, oldest first.
func (c *Client) ExportAudit(ctx context.Context, f func(line []byte) error) error {
	for after := 0; ; after += auditPage {
		v := url.Values{"after": {strconv.Itoa(after)}, "limit": {strconv.Itoa(auditPage)}}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/api/v1/audit:export?"+v.Encode(), nil)
		if err != nil {
			return fmt.Errorf("ask %s: %w", c.base, err)
		}
		data, err := c.doAs(req, "application/x-ndjson")
		if err != nil {
			return err
		}
		n := 0
		for line := range bytes.Lines(data) {
			n++
			if err := f(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
				return err
			}
		}
		if n < auditPage {
			return nil
		}
	}
}
