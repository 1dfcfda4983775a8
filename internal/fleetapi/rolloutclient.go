package fleetapi

import (
	"context"
	"net/http"
	"net/url"
)

// Rollouts returns one page of rollouts, newest first.
func (c *Client) Rollouts(ctx context.Context, pageToken string) (RolloutList, error) {
	v := url.Values{"page_size": {"200"}}
	set(v, "page_token", pageToken)
	return call[RolloutList](ctx, c, http.MethodGet, "/rollouts?"+v.Encode(), nil)
}

// AllRollouts returns all rollouts, page after page.
func (c *Client) AllRollouts(ctx context.Context) (RolloutList, error) {
	all := RolloutList{Items: []Rollout{}}
	for token := ""; ; {
		page, err := c.Rollouts(ctx, token)
		if err != nil {
			return RolloutList{}, err
		}
		all.Items, all.TotalSize = append(all.Items, page.Items...), page.TotalSize
		if token = page.NextPageToken; token == "" {
			return all, nil
		}
	}
}

// ActOn does what a person wants of a rollout.
func (c *Client) ActOn(ctx context.Context, id string, a RolloutAction) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/rollouts/"+url.PathEscape(id)+"/actions", a)
}

// RolloutEvents tells what was decided in a rollout, oldest first.
func (c *Client) RolloutEvents(ctx context.Context, id string) (RolloutEventList, error) {
	return call[RolloutEventList](ctx, c, http.MethodGet, "/rollouts/"+url.PathEscape(id)+"/events", nil)
}

// Replay asks what another policy would have done.
func (c *Client) Replay(ctx context.Context, id string, r ReplayRequest) (Replay, error) {
	return call[Replay](ctx, c, http.MethodPost, "/rollouts/"+url.PathEscape(id)+"/replay", r)
}

// Restores tells what a controller that came back from a backup does not know.
func (c *Client) Restores(ctx context.Context) (RestoreState, error) {
	return call[RestoreState](ctx, c, http.MethodGet, "/restores", nil)
}

// ChooseRestore settles boxes that are in conflict.
func (c *Client) ChooseRestore(ctx context.Context, r RestoreChoice) (RestoreState, error) {
	return call[RestoreState](ctx, c, http.MethodPost, "/restores", r)
}

// RolloutLocks lists the locks that have not ended.
func (c *Client) RolloutLocks(ctx context.Context) (LockList, error) {
	return call[LockList](ctx, c, http.MethodGet, "/rollout-locks", nil)
}

// AddRolloutLock keeps boxes from being offered anything for a time.
func (c *Client) AddRolloutLock(ctx context.Context, l NewLock) (Lock, error) {
	return call[Lock](ctx, c, http.MethodPost, "/rollout-locks", l)
}

// DropRolloutLock ends a lock.
func (c *Client) DropRolloutLock(ctx context.Context, id string) (LockList, error) {
	return call[LockList](ctx, c, http.MethodDelete, "/rollout-locks/"+url.PathEscape(id), nil)
}
