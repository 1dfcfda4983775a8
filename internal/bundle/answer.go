package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"strings"

	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
)

// RoundTrip answers a request of a box as the controller would, so that a fetcher
// and a guard take from a stick what they take from the network. It implements
// http.RoundTripper.
func (b *Bundle) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Body != nil {
		req.Body.Close()
	}
	if err := req.Context().Err(); err != nil {
		return nil, context.Cause(req.Context())
	}
	path, ok := strings.CutPrefix(req.URL.Path, "/device/v1/")
	if !ok || req.Method != http.MethodGet {
		return reply(req, http.StatusNotFound, nil, 0), nil
	}
	if name, ok := strings.CutPrefix(path, "trust/"); ok {
		return b.document(req, name)
	}
	hex, ways := strings.CutSuffix(strings.TrimPrefix(path, "blobs/"), "/ways")
	d, err := blob.ParseDigest("sha256:" + hex)
	if err != nil {
		return reply(req, http.StatusNotFound, nil, 0), nil
	}
	if ways {
		return b.ways(req, d)
	}
	return b.content(req, d)
}

func (b *Bundle) document(req *http.Request, name string) (*http.Response, error) {
	data, err := b.Document(name)
	if errors.Is(err, fs.ErrNotExist) {
		return reply(req, http.StatusNotFound, nil, 0), nil
	}
	if err != nil {
		return nil, err
	}
	return reply(req, http.StatusOK, bytes.NewReader(data), int64(len(data))), nil
}

// ways are the packs inside. Where the file itself is inside nobody needs them.
func (b *Bundle) ways(req *http.Request, d blob.Digest) (*http.Response, error) {
	out := deviceapi.Ways{Packs: []deviceapi.Pack{}}
	for _, p := range b.Packs {
		if p.Target == d && !b.has(d) {
			out.Packs = append(out.Packs, p.Pack)
		}
	}
	data, err := json.Marshal(out)
	if err != nil {
		return nil, err
	}
	return reply(req, http.StatusOK, bytes.NewReader(data), int64(len(data))), nil
}

// content is a blob, or a range of it.
func (b *Bundle) content(req *http.Request, d blob.Digest) (*http.Response, error) {
	e, err := b.Blob(d)
	if err != nil {
		return reply(req, http.StatusNotFound, nil, 0), nil
	}
	from, to, ranged := int64(0), e.Size(), false
	if text, ok := strings.CutPrefix(req.Header.Get("Range"), "bytes="); ok {
		first, last, _ := strings.Cut(text, "-")
		if from, err = strconv.ParseInt(first, 10, 64); err != nil || from < 0 || from >= e.Size() {
			return reply(req, http.StatusRequestedRangeNotSatisfiable, nil, 0), nil
		}
		if n, err := strconv.ParseInt(last, 10, 64); err == nil {
			to = min(to, n+1)
		}
		ranged = true
	}
	resp := reply(req, http.StatusOK, io.NewSectionReader(e, from, to-from), to-from)
	resp.Header.Set("ETag", `"`+d.String()+`"`)
	if ranged {
		resp.StatusCode, resp.Status = http.StatusPartialContent, "206 Partial Content"
		resp.Header.Set("Content-Range", "bytes "+strconv.FormatInt(from, 10)+"-"+strconv.FormatInt(to-1, 10)+"/"+strconv.FormatInt(e.Size(), 10))
	}
	return resp, nil
}

func reply(req *http.Request, status int, body io.Reader, n int64) *http.Response {
	if body == nil {
		body = http.NoBody
	}
	return &http.Response{
		Status: strconv.Itoa(status) + " " + http.StatusText(status), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: io.NopCloser(body), ContentLength: n, Request: req,
	}
}
