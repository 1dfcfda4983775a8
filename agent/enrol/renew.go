package enrol

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/edgeherd/edgeherd/internal/durable"
	"github.com/edgeherd/edgeherd/internal/enrol"
	"github.com/edgeherd/edgeherd/internal/identity"
)

// ErrRetired ends a Renewer: the box was taken out of service and shall wipe
// itself.
var ErrRetired = errors.New("the box was retired")

// RenewOptions of a Renewer. All but Connected and WallClock are required.
type RenewOptions struct {
	Dir     string // of the identity
	Root    string // of sysfs
	Version string // of the agent
	Fence   uint64 // see CountStart
	Box     *identity.Identity
	// Dial opens a connection with identity.RenewTLS of the present identity.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Renewed is told of each new identity.
	Renewed func(*identity.Identity)
	// Connected says whether the broker lets the box in; nil means it does. A box
	// that is kept out asks why soon: it may have been retired.
	Connected func() bool
	// WallClock says when half of a certificate's life is over; nil means time.Now.
	WallClock func() time.Time
}

// Renewer keeps the certificate of a box good, and hears how the controller
// sees the box. Run it once.
type Renewer struct {
	opts RenewOptions
	log  *slog.Logger
	http *http.Client
	said enrol.Code // the last standing that was logged
}

const (
	// lookEvery is how often the time is looked at, and how often a box that the
	// broker keeps out asks how it stands.
	lookEvery = 5 * time.Minute
	// standEvery is how often one that is connected does.
	standEvery = 6 * time.Hour
)

// NewRenewer prepares a Renewer. It connects to nothing.
func NewRenewer(opts RenewOptions, log *slog.Logger) *Renewer {
	if opts.WallClock == nil {
		opts.WallClock = time.Now
	}
	if opts.Connected == nil {
		opts.Connected = func() bool { return true }
	}
	return &Renewer{opts: opts, log: log, http: &http.Client{
		Timeout:       time.Minute,
		Transport:     &http.Transport{DialTLSContext: opts.Dial, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Run works until ctx is done. It returns ErrRetired when the box was retired.
func (r *Renewer) Run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var asked time.Time
	for {
		if r.due() {
			if err := r.renew(ctx); errors.Is(err, ErrRetired) {
				return err
			} else if err != nil {
				r.log.Warn("certificate not renewed yet", "ends", r.opts.Box.Certificate.Leaf.NotAfter, "err", err)
			}
		}
		// Half a turn of grace: the answer to the last question came after its turn began.
		if asked.IsZero() || time.Since(asked) > r.patience()-lookEvery/2 {
			err := r.stand(ctx)
			switch {
			case errors.Is(err, ErrRetired):
				return err
			case err == nil:
				asked = time.Now()
			default:
				r.log.Debug("the controller did not say how the box stands", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Renewer) patience() time.Duration {
	if r.opts.Connected() {
		return standEvery
	}
	return lookEvery
}

// due is at half of the certificate's life, give or take a tenth of it: boxes
// that were enrolled in one day must not come back in one minute.
func (r *Renewer) due() bool {
	leaf := r.opts.Box.Certificate.Leaf
	h := fnv.New32a()
	h.Write([]byte(r.opts.Box.ID))
	share := 0.4 + 0.2*float64(h.Sum32()%1000)/1000
	return !r.opts.WallClock().Before(leaf.NotBefore.Add(time.Duration(share * float64(leaf.NotAfter.Sub(leaf.NotBefore)))))
}

// renew exchanges the certificate for the next one. A key in a file is made
// anew; one in a TPM stays.
func (r *Renewer) renew(ctx context.Context) error {
	opts := Options{Dir: r.opts.Dir, Root: r.opts.Root, TPM: "off", Version: r.opts.Version}
	present, err := openKey(r.opts.Dir)
	if err != nil {
		return fmt.Errorf("open box key: %w", err)
	}
	next := nextDir(r.opts.Dir)
	if present.chip != nil {
		if err := durable.MkdirAll(next, 0o700); err != nil {
			return err
		}
		if err := present.seal(next); err != nil {
			return err
		}
	}
	k, err := opts.makeKey(next)
	if err != nil {
		return err
	}
	if err := keepSealing(r.opts.Dir, next); err != nil {
		return fmt.Errorf("keep the present sealing key: %w", err)
	}
	csr, err := makeCSR(k, next)
	if err != nil {
		return err
	}
	answer, err := post(ctx, r.http, r.url(enrol.PathRenew), r.machine(csr))
	if err != nil {
		return err
	}
	if answer.Code != enrol.Issued {
		return refusal(answer)
	}
	have, err := Load(r.opts.Dir) // the agent may have written a root since the start
	if err != nil {
		return err
	}
	keepTrust(have.Box, &answer.Member.Box)
	if err := opts.adopt(k, *answer.Member); err != nil {
		return err
	}
	box, err := Load(r.opts.Dir)
	if err != nil {
		return err
	}
	r.opts.Box = box
	r.opts.Renewed(box)
	r.log.Info("certificate renewed", "ends", box.Certificate.Leaf.NotAfter)
	return r.stand(ctx) // the new one is in force from its first use
}

// machine is what the controller may know of where this identity runs.
func (r *Renewer) machine(csr []byte) enrol.Renewal {
	return enrol.Renewal{
		V: enrol.Version, CSR: csr, Hardware: readHardware(r.opts.Root), Fence: r.opts.Fence,
		Agent: enrol.Agent{Version: r.opts.Version, BootID: bootID()},
	}
}

// Standing asks once how the controller sees the box of an identity, as a
// Renewer does. The dial is that of RenewOptions.
func Standing(ctx context.Context, id *identity.Identity, root string, dial func(ctx context.Context, network, address string) (net.Conn, error)) (enrol.Answer, error) {
	r := NewRenewer(RenewOptions{Root: root, Box: id, Dial: dial}, nil)
	return post(ctx, r.http, r.url(enrol.PathState), r.machine(nil))
}

// keepTrust is whom the box trusts after a renewal: whom it trusted before. A
// controller that somebody broke into must not be able to change that; only a box
// in development, which trusts the controller for everything, learns of a root.
func keepTrust(have identity.Box, told *identity.Box) {
	if !have.Keyring.Development || len(have.TrustRoot) > 0 {
		told.Keyring, told.TrustRoot = have.Keyring, have.TrustRoot
	}
}

// stand asks how the controller sees the box.
func (r *Renewer) stand(ctx context.Context) error {
	answer, err := post(ctx, r.http, r.url(enrol.PathState), r.machine(nil))
	if err != nil {
		return err
	}
	if answer.Code != r.said {
		r.say(answer)
		r.said = answer.Code
	}
	if answer.Code == enrol.Retired {
		return ErrRetired
	}
	return nil
}

func (r *Renewer) say(a enrol.Answer) {
	switch a.Code {
	case enrol.Active:
		if r.said != "" {
			r.log.Info("the box is active again")
		}
	case enrol.Quarantined:
		r.log.Error("the box is in quarantine: its telemetry is kept, but it gets no models and no updates until ops decide", "detail", a.Detail)
	case enrol.Revoked:
		r.log.Error("the box was revoked: inference goes on, the controller takes nothing from it any more", "detail", a.Detail)
	case enrol.Retired:
		r.log.Warn("the box was retired: it wipes itself", "detail", a.Detail)
	default:
		r.log.Warn("the controller says what this agent does not know", "code", a.Code, "detail", a.Detail)
	}
}

func (r *Renewer) url(path string) string { return "https://" + r.opts.Box.HTTPS + path }

// CountStart counts a start of the agent on this disk and returns the number. A
// disk that was copied or put back repeats numbers, which the controller sees.
func CountStart(path string) (uint64, error) {
	journal := durable.Journal{Path: path, Version: 1}
	var starts uint64
	if _, err := journal.Load(&starts); err != nil {
		return 0, err
	}
	starts++
	return starts, journal.Save(starts)
}
