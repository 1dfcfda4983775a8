package fleetapi_test

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/edgeherd/edgeherd/internal/fleetapi"
)

// hashing is a controller that has to read some GB before it answers.
type hashing struct{ takes time.Duration }

func (h hashing) RoundTrip(r *http.Request) (*http.Response, error) {
	timer := time.NewTimer(h.takes)
	defer timer.Stop()
	select {
	case <-timer.C:
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}")), Request: r}, nil
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
}

// TestAPushWaitsWhileTheControllerHashes: pushed again it would begin anew, for ever.
func TestAPushWaitsWhileTheControllerHashes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := fleetapi.New("http://ctl", "", hashing{20 * time.Minute})
		for name, ask := range map[string]func(context.Context) error{
			"model":   func(ctx context.Context) error { _, err := c.PushModel(ctx, []byte("{}")); return err },
			"release": func(ctx context.Context) error { _, err := c.PushRelease(ctx, []byte("{}")); return err },
			"verify":  func(ctx context.Context) error { _, err := c.VerifyModel(ctx, "m", fleetapi.VerifyModel{}); return err },
		} {
			if err := ask(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, err := c.Summary(t.Context()); err == nil {
			t.Error("what is not to hash anything is waited for as long")
		}
	})
}
