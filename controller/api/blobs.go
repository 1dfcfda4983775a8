package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/edgeherd/edgeherd/controller/deliver"
	"github.com/edgeherd/edgeherd/internal/acceptance"
	"github.com/edgeherd/edgeherd/internal/blob"
	"github.com/edgeherd/edgeherd/internal/deviceapi"
	"github.com/edgeherd/edgeherd/internal/fleetapi"
	"github.com/edgeherd/edgeherd/internal/identity"
	"github.com/edgeherd/edgeherd/models"
	"github.com/edgeherd/edgeherd/models/wdelta"
)

// maxBlobBytes bounds one uploaded file: as much as boxes take.
const maxBlobBytes = blob.MaxFramedBytes

// uploadPause is how long an upload may deliver nothing.
const uploadPause = time.Minute

// maxMissing bounds one question; a model has at most 1000 files.
const maxMissing = 1000

type missingInput struct{ Body fleetapi.MissingBlobs }

// missing tells which of the digests are not here.
func (a *API) missing(_ context.Context, in *missingInput) (fleetapi.MissingBlobs, error) {
	if n := len(in.Body.Digests); n > maxMissing {
		return fleetapi.MissingBlobs{}, badRequest("Ask in parts.", "%d digests, at most %d are answered at once", n, maxMissing)
	}
	out := fleetapi.MissingBlobs{Digests: []blob.Digest{}}
	for _, d := range in.Body.Digests {
		if !a.opts.Blobs.Has(d) {
			out.Digests = append(out.Digests, d)
		}
	}
	return out, nil
}

// putBlob takes an upload straight to disk.
func (a *API) putBlob(w http.ResponseWriter, r *http.Request) {
	d, err := blob.ParseDigest("sha256:" + r.PathValue("hex"))
	if err != nil {
		a.fail(w, r, badRequest("", "%s", err))
		return
	}
	switch {
	case r.ContentLength < 0:
		a.fail(w, r, fleetapi.Problem(http.StatusLengthRequired, "the upload does not say its length", "Send Content-Length."))
		return
	case r.ContentLength > maxBlobBytes:
		a.fail(w, r, fleetapi.Problem(http.StatusRequestEntityTooLarge, fmt.Sprintf("%d bytes; a file may have %d", r.ContentLength, int64(maxBlobBytes)), ""))
		return
	}
	body := &patient{r, http.NewResponseController(w)}
	if r.URL.Query().Has("packed") {
		err = a.putPacked(r, body, d)
	} else {
		err = a.putPlain(body, r.ContentLength, d)
	}
	if err != nil {
		a.fail(w, r, uploadProblem(r, err))
		return
	}
	writeJSON(w, http.StatusCreated, fleetapi.Blob{Digest: d, SizeBytes: r.ContentLength})
}

func (a *API) putPlain(body io.Reader, size int64, d blob.Digest) error {
	give, err := a.room.take(a.opts.Blobs.Dir(), a.opts.FreeBytes, size)
	if err != nil {
		return err
	}
	defer give()
	return a.opts.Blobs.Put(body, d)
}

// damagedHint: what another version has is not taken away without a word.
const damagedHint = "edgeherd model verify NAME:VERSION --drop, for a version that has the same file, removes it. Then push again."

// keepFrames makes the list of a file's frames, which boxes fetch by its digest,
// and checks that the manifest names it.
func (a *API) keepFrames(f models.File) error {
	if f.SizeBytes <= blob.FrameBytes {
		return nil
	}
	file, err := a.opts.Blobs.Get(f.Digest)
	if err != nil {
		return err
	}
	defer file.Close()
	frames, whole, err := blob.FramesOf(file)
	if err != nil {
		return fmt.Errorf("hash the frames of %s: %w", f.Path, err)
	}
	if whole != f.Digest { // packing again would send nothing: the file is here by its name
		return refuse(damagedHint, "the file %s (%s) is damaged where the controller stores it", f.Path, f.Digest)
	}
	list := frames.Encode()
	if got := blob.Sum(list); got != f.Frames {
		return refuse("Pack it again: edgeherd model push DIR.", "the manifest says that the list of frames of %s is %q, it is %s", f.Path, f.Frames, got)
	}
	return a.opts.Blobs.Put(bytes.NewReader(list), f.Frames)
}

func uploadProblem(r *http.Request, err error) error {
	switch {
	case errors.Is(err, blob.ErrMismatch):
		return refuse("Send it again; if that fails too, the file has changed since it was hashed.", "the %d bytes received are not %s", r.ContentLength, "sha256:"+r.PathValue("hex"))
	case errors.Is(err, errUpload):
		return badRequest("Send it again.", "the upload broke off: %s", err)
	}
	for _, bad := range []error{wdelta.ErrCorrupt, wdelta.ErrTruncated, wdelta.ErrFormat, wdelta.ErrBase} {
		if errors.Is(err, bad) {
			return refuse("Export the bundle again.", "the pack of sha256:%s: %s", r.PathValue("hex"), err)
		}
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fleetapi.Problem(http.StatusInsufficientStorage, "the controller's disk is full", "Make room, then push again: it sends what is missing.")
	}
	return err
}

// errUpload says that the fault is the sender's or the network's, not the disk's.
var errUpload = errors.New("reading the request")

// patient reads a body that may take long, as long as it goes on.
type patient struct {
	r  *http.Request
	rc *http.ResponseController
}

func (p *patient) Read(buf []byte) (int, error) {
	// Not every connection knows deadlines; without one a read may wait longer.
	_ = p.rc.SetReadDeadline(time.Now().Add(uploadPause))
	n, err := p.r.Body.Read(buf)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fmt.Errorf("%w: %w", errUpload, err)
	}
	return n, err
}

// boxKey is the key of the asking box in a request's context.
type boxKey struct{}

// WithBox returns a context for requests of a box; for tests that have no TLS.
func WithBox(ctx context.Context, id identity.ID) context.Context {
	return context.WithValue(ctx, boxKey{}, id)
}

// Device serves the blobs that boxes download. Their TLS has proved that they
// are boxes of this controller.
func (a *API) Device() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /device/v1/blobs/{hex}", a.ofBox(a.deviceBlob))
	mux.HandleFunc("GET /device/v1/blobs/{hex}/url", a.ofBox(a.deviceURL))
	mux.HandleFunc("GET /device/v1/blobs/{hex}/ways", a.ofBox(a.deviceWays))
	mux.HandleFunc("POST /device/v1/blobs/{hex}/lease", a.ofBox(a.deviceLease))
	mux.HandleFunc("GET /device/v1/trust/{name}", a.deviceTrust)
	mux.HandleFunc("POST "+acceptance.PathReport, a.takeAcceptance)
	mux.HandleFunc("GET "+acceptance.PathProbe, a.probeGet)
	mux.HandleFunc("POST "+acceptance.PathProbe, a.probePost)
	return mux
}

// ofBox answers boxes alone, about one blob.
func (a *API) ofBox(answer func(http.ResponseWriter, *http.Request, blob.Digest)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, err := deviceID(r)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		r = r.WithContext(WithBox(r.Context(), id))
		d, err := blob.ParseDigest("sha256:" + r.PathValue("hex"))
		if err != nil {
			a.fail(w, r, badRequest("", "%s", err))
			return
		}
		answer(w, r, d)
	}
}

// getBlob gives a file to who may push: what a new version is made from.
func (a *API) getBlob(w http.ResponseWriter, r *http.Request) {
	d, err := blob.ParseDigest("sha256:" + r.PathValue("hex"))
	if err != nil {
		a.fail(w, r, badRequest("", "%s", err))
		return
	}
	a.deviceBlob(w, r, d)
}

func (a *API) deviceBlob(w http.ResponseWriter, r *http.Request, d blob.Digest) {
	f, err := a.opts.Blobs.Stream(d)
	if errors.Is(err, fs.ErrNotExist) {
		err = fleetapi.Problem(http.StatusNotFound, "there is no blob "+d.String(), "")
	}
	if err != nil {
		a.fail(w, r, err)
		return
	}
	defer f.Close()
	body := io.ReadSeeker(f)
	if a.opts.Gate != nil {
		pass, err := a.admit(w, r, d)
		if err != nil {
			a.fail(w, r, err)
			return
		}
		if pass == nil {
			body = a.opts.Gate.Paced(r.Context(), f)
		} else {
			defer pass.Leave()
			// A write that waits for the reader ends, and with it the request.
			body = pass.Body(r.Context(), f, func() { _ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) })
		}
	}
	h := w.Header()
	h.Set("ETag", `"`+d.String()+`"`)
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "private, max-age=31536000, immutable")
	http.ServeContent(w, r, "", time.Time{}, body)
}

// admit asks whether the box may download now, or tells it when to come again.
// Lists of frames and manifests are always given: so few bytes matter to no line.
func (a *API) admit(w http.ResponseWriter, r *http.Request, d blob.Digest) (pass *deliver.Pass, err error) {
	size, err := a.opts.Blobs.Size(d)
	if err != nil || size <= blob.FrameBytes {
		return nil, err
	}
	id, ok := r.Context().Value(boxKey{}).(identity.ID)
	if !ok {
		return nil, nil // a person who makes a version from it
	}
	site, err := a.opts.Store.SiteOf(r.Context(), id)
	if err != nil {
		return nil, err
	}
	pass, wait := a.opts.Gate.Enter(site, string(id), time.Now())
	if wait > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(wait.Seconds())))
		return nil, fleetapi.Problem(http.StatusTooManyRequests, "the uplink is busy with other sites", "Ask again later.")
	}
	return pass, nil
}

// deviceURL tells a box where it reads a blob without us.
func (a *API) deviceURL(w http.ResponseWriter, r *http.Request, d blob.Digest) {
	if a.opts.URL == nil || !a.opts.Blobs.Has(d) {
		a.fail(w, r, fleetapi.Problem(http.StatusNotFound, "there is no other place of blob "+d.String(), ""))
		return
	}
	u, life, err := a.opts.URL(r.Context(), d)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, deviceapi.Place{URL: u, ForMs: life.Milliseconds()})
}
