package fleetapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// callTimeout bounds a call, but not uploads, streams, and what has the controller
// hash files.
const callTimeout = time.Minute

// maxReplyBytes bounds what a reply may be; a page of 1000 boxes is some MB.
const maxReplyBytes = 64 << 20

// maxProblemBytes bounds an answer that tells of a problem.
const maxProblemBytes = 1 << 20

// Client speaks to one controller. Safe for concurrent use. Problems that the
// controller tells of are of type *Error.
type Client struct {
	base, token string
	http        *http.Client
}

// New returns a client for the controller at baseURL. rt is the transport; nil
// means the default one.
func New(baseURL, token string, rt http.RoundTripper) *Client {
	return &Client{base: strings.TrimSuffix(baseURL, "/"), token: token, http: &http.Client{
		Transport: rt,
		// A redirect would carry the token to another place.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// URL is the address of the controller.
func (c *Client) URL() string { return c.base }

// ListQuery asks for a page of a list, such as of boxes or of tickets.
type ListQuery struct {
	Filter, OrderBy string
	PageSize        int // 0: the controller's default
	PageToken       string
}

func (q ListQuery) encode() string {
	v := url.Values{}
	set(v, "filter", q.Filter)
	set(v, "order_by", q.OrderBy)
	set(v, "page_token", q.PageToken)
	if q.PageSize > 0 {
		v.Set("page_size", strconv.Itoa(q.PageSize))
	}
	return v.Encode()
}

// SeriesQuery asks for metrics of a box. Zero times and points are the
// controller's defaults.
type SeriesQuery struct {
	Metrics  []string
	From, To time.Time
	Points   int
}

// Session tells who the token is.
func (c *Client) Session(ctx context.Context) (Session, error) {
	return call[Session](ctx, c, http.MethodGet, "/session", nil)
}

// LoginURL makes a URL that logs its first visitor in.
func (c *Client) LoginURL(ctx context.Context) (string, error) {
	l, err := call[LoginURL](ctx, c, http.MethodPost, "/sessions/login-url", nil)
	return c.base + l.Path, err
}

// NewToken makes a token for a command line.
func (c *Client) NewToken(ctx context.Context, t NewToken) (Token, error) {
	return call[Token](ctx, c, http.MethodPost, "/tokens", t)
}

// Summary returns the fleet in numbers.
func (c *Client) Summary(ctx context.Context) (Summary, error) {
	return call[Summary](ctx, c, http.MethodGet, "/summary", nil)
}

// Boxes returns one page of boxes.
func (c *Client) Boxes(ctx context.Context, q ListQuery) (BoxList, error) {
	return call[BoxList](ctx, c, http.MethodGet, "/boxes?"+q.encode(), nil)
}

// AllBoxes returns all boxes that match, page after page.
func (c *Client) AllBoxes(ctx context.Context, filter, orderBy string) (BoxList, error) {
	all := BoxList{Items: []Box{}}
	q := ListQuery{Filter: filter, OrderBy: orderBy, PageSize: 1000}
	for {
		page, err := c.Boxes(ctx, q)
		if err != nil {
			return BoxList{}, err
		}
		all.Items, all.TotalSize = append(all.Items, page.Items...), page.TotalSize
		if page.NextPageToken == "" {
			return all, nil
		}
		q.PageToken = page.NextPageToken
	}
}

// Box returns one box.
func (c *Client) Box(ctx context.Context, id identity.ID) (Box, error) {
	return call[Box](ctx, c, http.MethodGet, "/boxes/"+url.PathEscape(string(id)), nil)
}

// Series returns metrics of a box over time.
func (c *Client) Series(ctx context.Context, id identity.ID, q SeriesQuery) (SeriesReply, error) {
	v := url.Values{"metrics": {strings.Join(q.Metrics, ",")}}
	if !q.From.IsZero() {
		v.Set("from", q.From.Format(time.RFC3339Nano))
	}
	if !q.To.IsZero() {
		v.Set("to", q.To.Format(time.RFC3339Nano))
	}
	if q.Points > 0 {
		v.Set("points", strconv.Itoa(q.Points))
	}
	return call[SeriesReply](ctx, c, http.MethodGet, "/boxes/"+url.PathEscape(string(id))+"/series?"+v.Encode(), nil)
}

// Events returns the newest events of a box.
func (c *Client) Events(ctx context.Context, id identity.ID, limit int) (EventList, error) {
	return call[EventList](ctx, c, http.MethodGet, fmt.Sprintf("/boxes/%s/events?limit=%d", url.PathEscape(string(id)), limit), nil)
}

// Results returns the newest results of a box.
func (c *Client) Results(ctx context.Context, id identity.ID, limit int) (ResultList, error) {
	return call[ResultList](ctx, c, http.MethodGet, fmt.Sprintf("/boxes/%s/results?limit=%d", url.PathEscape(string(id)), limit), nil)
}

// BoxFaults returns what goes wrong with the messages of a box.
func (c *Client) BoxFaults(ctx context.Context, id identity.ID) (BoxFaultList, error) {
	return call[BoxFaultList](ctx, c, http.MethodGet, fmt.Sprintf("/boxes/%s/faults", url.PathEscape(string(id))), nil)
}

// Models lists models with their versions.
func (c *Client) Models(ctx context.Context) (ModelList, error) {
	return call[ModelList](ctx, c, http.MethodGet, "/models", nil)
}

// Model returns one model with its versions.
func (c *Client) Model(ctx context.Context, name string) (Model, error) {
	return call[Model](ctx, c, http.MethodGet, "/models/"+url.PathEscape(name), nil)
}

// ModelDiff compares two versions of a model, file by file.
func (c *Client) ModelDiff(ctx context.Context, name, from, to string) (ModelDiff, error) {
	return call[ModelDiff](ctx, c, http.MethodGet, "/models/"+url.PathEscape(name)+"/diff?"+url.Values{"from": {from}, "to": {to}}.Encode(), nil)
}

// PushModel registers a signed manifest whose files have been uploaded.
func (c *Client) PushModel(ctx context.Context, envelope []byte) (ModelVersion, error) {
	return patiently[ModelVersion](ctx, c, http.MethodPost, "/models", PushModel{Envelope: envelope})
}

// Releases lists agent releases.
func (c *Client) Releases(ctx context.Context) (ReleaseList, error) {
	return call[ReleaseList](ctx, c, http.MethodGet, "/releases", nil)
}

// PushRelease registers a signed release whose files have been uploaded.
func (c *Client) PushRelease(ctx context.Context, envelope []byte) (Release, error) {
	return patiently[Release](ctx, c, http.MethodPost, "/releases", PushRelease{Envelope: envelope})
}

// Missing returns which of the digests the controller lacks.
func (c *Client) Missing(ctx context.Context, digests []blob.Digest) ([]blob.Digest, error) {
	m, err := call[MissingBlobs](ctx, c, http.MethodPost, "/blobs:missing", MissingBlobs{Digests: digests})
	return m.Digests, err
}

// Rollout returns one rollout.
func (c *Client) Rollout(ctx context.Context, id string) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodGet, "/rollouts/"+url.PathEscape(id), nil)
}

// Plan plans a rollout and stores the plan as a draft.
func (c *Client) Plan(ctx context.Context, p PlanRequest) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/rollouts", p)
}

// DryPlan plans a rollout and forgets it.
func (c *Client) DryPlan(ctx context.Context, p PlanRequest) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/rollouts?dry_run=true", p)
}

// Act starts, pauses, resumes or cancels a rollout.
func (c *Client) Act(ctx context.Context, id, action string) (Rollout, error) {
	return call[Rollout](ctx, c, http.MethodPost, "/rollouts/"+url.PathEscape(id)+"/actions", RolloutAction{Action: action})
}

// Sites lists sites with their settings, and the defaults.
func (c *Client) Sites(ctx context.Context) (SiteList, error) {
	return call[SiteList](ctx, c, http.MethodGet, "/sites", nil)
}

// Site returns one site.
func (c *Client) Site(ctx context.Context, name string) (Site, error) {
	return call[Site](ctx, c, http.MethodGet, "/sites/"+url.PathEscape(name), nil)
}

// ChangeSite sets and unsets settings of a site.
func (c *Client) ChangeSite(ctx context.Context, name string, change SiteChange) (Site, error) {
	return call[Site](ctx, c, http.MethodPost, "/sites/"+url.PathEscape(name)+"/settings", change)
}

// ChangeSiteDefaults sets and unsets settings of all sites.
func (c *Client) ChangeSiteDefaults(ctx context.Context, change SiteChange) (SiteDefaults, error) {
	return call[SiteDefaults](ctx, c, http.MethodPost, "/site-defaults", change)
}

// Upload sends a file of size bytes. progress, if not nil, hears how many bytes
// have gone.
func (c *Client) Upload(ctx context.Context, d blob.Digest, r io.Reader, size int64, progress func(sent int64)) error {
	if progress != nil {
		r = &counter{r: r, tell: progress}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.base+"/api/v1/blobs/"+d.Hex(), io.NopCloser(r))
	if err != nil {
		return fmt.Errorf("upload %s: %w", d.Short(), err)
	}
	req.ContentLength = size
	if size == 0 {
		req.Body = http.NoBody
	}
	askFirst(req)
	_, err = c.do(req)
	if err != nil {
		return fmt.Errorf("upload %s: %w", d.Short(), err)
	}
	return nil
}

// askFirst has a long upload wait for the controller's word: a refusal is heard then,
// and not lost with a connection that ended under the bytes.
func askFirst(req *http.Request) {
	req.Header.Set("Content-Type", "application/octet-stream")
	if req.ContentLength > 1<<20 {
		req.Header.Set("Expect", "100-continue")
	}
}

// Download writes a file to w and checks that it is the right one: what w has
// is good only when that returns nil. progress, if not nil, hears how many bytes
// have come.
func (c *Client) Download(ctx context.Context, d blob.Digest, w io.Writer, progress func(done int64)) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/api/v1/blobs/"+d.Hex(), nil)
	if err != nil {
		return fmt.Errorf("download %s: %w", d.Short(), err)
	}
	body, err := c.stream(req, "application/octet-stream")
	if err != nil {
		return fmt.Errorf("download %s: %w", d.Short(), err)
	}
	defer body.Close()
	var from io.Reader = body
	if progress != nil {
		from = &counter{r: from, tell: progress}
	}
	got, _, err := blob.SumReader(io.TeeReader(from, w))
	if err == nil && got != d {
		err = fmt.Errorf("%s sent other bytes, whose digest is %s", c.base, got)
	}
	if err != nil {
		return fmt.Errorf("download %s: %w", d.Short(), err)
	}
	return nil
}

type counter struct {
	r    io.Reader
	n    int64
	tell func(int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if n > 0 {
		c.n += int64(n)
		c.tell(c.n)
	}
	return n, err
}

func set(v url.Values, key, value string) {
	if value != "" {
		v.Set(key, value)
	}
}

// call sends in as JSON, or nothing if it is nil, and reads a T.
func call[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return patiently[T](ctx, c, method, path, in)
}

// patiently is call without a bound: some GB take minutes to hash.
func patiently[T any](ctx context.Context, c *Client, method, path string, in any) (T, error) {
	var out T
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return out, fmt.Errorf("encode request: %w", err)
		}
		body = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+"/api/v1"+path, body)
	if err != nil {
		return out, fmt.Errorf("ask %s: %w", c.base, err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	data, err := c.do(req)
	if err != nil {
		return out, err
	}
	if err := json.Unmarshal(data, &out); err != nil {
		return out, fmt.Errorf("read the answer of %s to %s: %w", c.base, path, err)
	}
	return out, nil
}

// do sends a request and returns the JSON of a success.
func (c *Client) do(req *http.Request) ([]byte, error) { return c.doAs(req, "application/json") }

// doAs sends a request and returns the body of a success, in one form.
func (c *Client) doAs(req *http.Request, form string) ([]byte, error) {
	body, err := c.stream(req, form)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxReplyBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	if len(data) > maxReplyBytes {
		return nil, fmt.Errorf("the answer of %s is longer than %d bytes", c.base, maxReplyBytes)
	}
	return data, nil
}

// stream sends a request and returns the body of a success, to be closed.
func (c *Client) stream(req *http.Request, form string) (io.ReadCloser, error) {
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	req.Header.Set("Accept", form)
	res, err := c.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the address is in our own words
		}
		return nil, fmt.Errorf("reach the controller at %s: %w", c.base, err)
	}
	if res.StatusCode >= 200 && res.StatusCode < 300 {
		return res.Body, nil
	}
	defer res.Body.Close()
	data, err := io.ReadAll(io.LimitReader(res.Body, maxProblemBytes))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", c.base, err)
	}
	p := &Error{}
	if json.Unmarshal(data, p) != nil || p.Title == "" {
		p = Problem(res.StatusCode, fmt.Sprintf("%s answered %s", c.base, res.Status), "Is this the address of an edgeherd controller?")
	}
	p.Status = res.StatusCode
	return nil, p
}
