package fleetapi

import (
	"context"
	"net/http"
	"net/url"

	"github.com/edgeherd/edgeherd/internal/identity"
)

// Configs lists documents of settings, each in its newest version.
func (c *Client) Configs(ctx context.Context) (DocumentList, error) {
	return call[DocumentList](ctx, c, http.MethodGet, "/configs", nil)
}

// Config lists the versions of a document, newest first.
func (c *Client) Config(ctx context.Context, name string) (DocumentList, error) {
	return call[DocumentList](ctx, c, http.MethodGet, "/configs/"+url.PathEscape(name), nil)
}

// DiffConfigs tells what documents would change, on one box if it is named;
// nothing is stored.
func (c *Client) DiffConfigs(ctx context.Context, r ConfigRequest, box string) (ConfigChanges, error) {
	path := "/configs:diff"
	if box != "" {
		path += "?box=" + url.QueryEscape(box)
	}
	return call[ConfigChanges](ctx, c, http.MethodPost, path, r)
}

// ApplyConfigs stores new versions of documents.
func (c *Client) ApplyConfigs(ctx context.Context, r ConfigRequest) (ConfigChanges, error) {
	return call[ConfigChanges](ctx, c, http.MethodPost, "/configs", r)
}

// ExplainConfig tells every setting of a box with where it comes from.
func (c *Client) ExplainConfig(ctx context.Context, id identity.ID) (ConfigExplanation, error) {
	return call[ConfigExplanation](ctx, c, http.MethodGet, "/boxes/"+url.PathEscape(string(id))+"/config", nil)
}

// SetLabels sets labels of a box; an empty value takes one away.
func (c *Client) SetLabels(ctx context.Context, id identity.ID, l LabelChange) (Box, error) {
	return call[Box](ctx, c, http.MethodPost, "/boxes/"+url.PathEscape(string(id))+"/labels", l)
}
