package remotewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/edgeherd/edgeherd/controller/export"
	"github.com/edgeherd/edgeherd/controller/export/exporttest"
	"github.com/edgeherd/edgeherd/controller/metrics"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// point is one sample of one series, as a receiver sees it.
type point = exporttest.Point

// receiver is a Prometheus in memory: what it confirmed it has, unless it dies.
type receiver struct {
	mu       sync.Mutex // guards the fields below
	have     map[point]float64
	requests []time.Time
	newConn  bool // the next request needs a connection
	// answer decides about a request; nil takes all.
	answer func(points map[point]float64) *http.Response
	header http.Header
	faults []string
}

func newReceiver() *receiver { return &receiver{have: map[point]float64{}, newConn: true} }

func respond(code int, headers ...string) *http.Response {
	r := &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("because"))}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func (r *receiver) RoundTrip(req *http.Request) (*http.Response, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.requests = append(r.requests, time.Now())
	if trace := httptrace.ContextClientTrace(req.Context()); trace != nil {
		trace.GotConn(httptrace.GotConnInfo{Reused: !r.newConn})
	}
	r.newConn, r.header = false, req.Header
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	points, err := decode(body)
	if err != nil {
		r.faults = append(r.faults, err.Error())
	}
	if r.answer != nil {
		if resp := r.answer(points); resp == nil {
			r.newConn = true
			return nil, errors.New("connection reset")
		} else if resp.StatusCode != http.StatusNoContent {
			return resp, nil
		} else if resp.Close {
			r.newConn = true
			maps.Copy(r.have, points)
			return resp, nil
		}
	}
	maps.Copy(r.have, points)
	return respond(http.StatusNoContent), nil
}

// decode reads a request and checks its form: labels sorted and unique, samples
// in the order of time, no series twice.
func decode(body []byte) (map[point]float64, error) {
	raw, err := snappy.Decode(nil, body)
	if err != nil {
		return nil, err
	}
	out, seen := map[point]float64{}, map[string]bool{}
	err = fields(raw, func(_ protowire.Number, ts []byte, _ uint64) error {
		var labels []string
		last := int64(math.MinInt64)
		return fields(ts, func(n protowire.Number, b []byte, _ uint64) error {
			if n == 1 {
				var pair []string
				err := fields(b, func(_ protowire.Number, s []byte, _ uint64) error { pair = append(pair, string(s)); return nil })
				labels = append(labels, strings.Join(pair, "="))
				return err
			}
			name := strings.Join(labels, ",")
			if last == math.MinInt64 && seen[name] || !slices.IsSorted(labels) {
				return fmt.Errorf("series %s comes twice or is not sorted", name)
			}
			seen[name] = true
			var value float64
			var ms int64
			err := fields(b, func(n protowire.Number, _ []byte, v uint64) error {
				if n == 1 {
					value = math.Float64frombits(v)
				} else {
					ms = int64(v)
				}
				return nil
			})
			if ms <= last {
				return fmt.Errorf("series %s: %d after %d", name, ms, last)
			}
			last = ms
			out[point{Series: name, Ms: ms}] = value
			return err
		})
	})
	return out, err
}

func fields(b []byte, each func(n protowire.Number, data []byte, v uint64) error) error {
	for len(b) > 0 {
		n, typ, k := protowire.ConsumeTag(b)
		if k < 0 {
			return protowire.ParseError(k)
		}
		b = b[k:]
		var data []byte
		var v uint64
		switch typ {
		case protowire.BytesType:
			data, k = protowire.ConsumeBytes(b)
		case protowire.VarintType:
			v, k = protowire.ConsumeVarint(b)
		case protowire.Fixed64Type:
			v, k = protowire.ConsumeFixed64(b)
		default:
			return fmt.Errorf("field %d has type %d", n, typ)
		}
		if k < 0 {
			return protowire.ParseError(k)
		}
		b = b[k:]
		if err := each(n, data, v); err != nil {
			return err
		}
	}
	return nil
}

// want is what a receiver must have of the rows.
func want(rows []export.Tailed, o *Options) map[point]float64 {
	out := map[point]float64{}
	for _, t := range rows {
		for m, metric := range t.Samples.Schema.Metrics {
			if !o.Series.Match(metric.Name) {
				continue
			}
			name, sensor := export.SplitMetric(metric.Name)
			labels := []string{"__name__=edgeherd_" + name, "box=" + string(t.Box)}
			if sensor != "" {
				labels = append(labels, "sensor="+sensor)
			}
			for row, rel := range t.Samples.TimesMs {
				if v := t.Samples.Values[m][row]; !math.IsNaN(v) {
					out[point{Series: strings.Join(labels, ","), Ms: t.StartMs + rel}] = v
				}
			}
		}
	}
	return out
}

func (r *receiver) check(t *testing.T, want map[point]float64) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	missing := 0
	for p, v := range want {
		if got, ok := r.have[p]; !ok || got != v {
			missing++
		}
	}
	if missing > 0 || len(r.have) != len(want) {
		t.Errorf("%d of %d samples are missing or differ, receiver has %d", missing, len(want), len(r.have))
	}
	for _, f := range r.faults {
		t.Error(f)
	}
}

func start(t *testing.T, r *receiver, store *exporttest.Store, change func(*Options)) (*Exporter, func()) {
	t.Helper()
	return startLogging(t, t.Output(), r, store, change)
}

func startLogging(t *testing.T, log io.Writer, r *receiver, store *exporttest.Store, change func(*Options)) (*Exporter, func()) {
	t.Helper()
	opts := Options{URL: "http://127.0.0.1/api/v1/write", Source: store, Cursors: store, Version: "1"}
	if change != nil {
		change(&opts)
	}
	e, err := New(opts, slog.New(slog.NewTextHandler(log, nil)))
	must(t, err)
	e.sender.client.Transport = r
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return e, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func fill(s *exporttest.Store, boxes, blocks int) {
	for nth := range blocks {
		for box := range boxes {
			s.Commit(exporttest.Rows(box, nth, 1_700_000_000_000))
		}
	}
}

func TestChosenSeriesArriveWithTheirLabels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newReceiver(), exporttest.New()
		fill(store, 3, 40)
		odd := exporttest.Rows(7, 0, 1_700_000_000_000)
		odd.Samples.Schema.Metrics[0].Name = "temp-µ{a}"
		store.Commit(odd)
		e, stop := start(t, r, store, func(o *Options) {
			o.Series = export.Series{"temp*", "load1"}
			o.Labels = map[string]string{"fleet": "north"}
			o.Boxes = func(context.Context) ([]export.Box, error) {
				return []export.Box{{ID: exporttest.Box(7), Name: "till-7", Site: "berlin"}}, nil
			}
			o.MaxSamples = 100
		})
		store.Commit(exporttest.Rows(1, 41, 1_700_000_000_000)) // while it runs
		synctest.Wait()
		stop()
		seen := map[string]int{}
		for p := range r.have {
			seen[p.Series]++
		}
		for series, n := range map[string]int{
			"__name__=edgeherd_load1,box=d-0000000000001,fleet=north":                            41 * 6,
			"__name__=edgeherd_temp_die_celsius,box=d-0000000000001,fleet=north":                 41 * 6,
			"__name__=edgeherd_temp__,box=d-0000000000007,fleet=north,metric=temp-µ,sensor=a":    5,
			"__name__=edgeherd_box_info,box=d-0000000000007,fleet=north,name=till-7,site=berlin": 1,
		} {
			if seen[series] != n {
				t.Errorf("%s: %d samples, want %d", series, seen[series], n)
			}
		}
		if len(seen) != 10 {
			t.Errorf("%d series: %v", len(seen), seen)
		}
		for name, value := range map[string]string{"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", "X-Prometheus-Remote-Write-Version": "0.1.0", "User-Agent": "edgeherd/1"} {
			if got := r.header.Get(name); got != value {
				t.Errorf("header %s: %q", name, got)
			}
		}
		if len(r.faults) > 0 || e.opts.MaxSamples != 100 {
			t.Error(r.faults)
		}
	})
}

// TestReceiverThatDiesLosesNothing: a receiver confirms, and is killed before
// it has written to disk; so is the exporter, now and then.
func TestReceiverThatDiesLosesNothing(t *testing.T) {
	for _, settle := range []time.Duration{0, -1} {
		t.Run(fmt.Sprint("settle ", settle), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store := newReceiver(), exporttest.New()
				disk, synced := map[point]float64{}, time.Now()
				r.answer = func(map[point]float64) *http.Response {
					if time.Since(synced) > 20*time.Second { // it writes to disk now and then
						maps.Copy(disk, r.have)
						synced = time.Now()
					}
					return respond(http.StatusNoContent)
				}
				_, stop := start(t, r, store, func(o *Options) { o.Settle = settle })
				for minute := range 60 {
					for box := range 3 {
						store.Commit(exporttest.Rows(box, minute, 1_700_000_000_000))
					}
					time.Sleep(7 * time.Second)
					if minute%9 == 5 {
						r.mu.Lock()
						r.have, r.newConn = maps.Clone(disk), true
						r.mu.Unlock()
					}
					if minute%13 == 7 {
						stop()
						_, stop = start(t, r, store, func(o *Options) { o.Settle = settle })
					}
				}
				time.Sleep(time.Minute)
				store.Commit(exporttest.Rows(0, 61, 1_700_000_000_000)) // it notices at its next request
				time.Sleep(time.Minute)
				stop()
				if settle < 0 {
					if len(r.have) >= len(want(store.All(), &Options{})) {
						t.Error("without Settle nothing is lost: the test proves nothing")
					}
					return
				}
				r.check(t, want(store.All(), &Options{}))
			})
		})
	}
}

func TestAnswersDecideWhetherARequestComesAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		code  int
		retry string
		again bool
		wait  time.Duration // at least, before the second request
	}{
		{"server error", 500, "", true, minWait / 2},
		{"away, with seconds", 503, "120", true, 2 * time.Minute},
		{"too many, with a date", 429, "Sat, 01 Jan 2000 00:03:00 GMT", true, 2 * time.Minute},
		{"asks for a year", 429, "31536000", true, maxRetryAfter},
		{"redirect", 302, "", true, minWait / 2},
		{"token has ended", 401, "", true, minWait / 2},
		{"wrong path", 404, "", true, minWait / 2},
		{"not acceptable", 400, "", false, 0},
		{"too large", 413, "", false, 0},
		{"conflict", 409, "60", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, store := newReceiver(), exporttest.New()
				store.Commit(exporttest.Rows(1, 0, 1_700_000_000_000))
				first := true
				r.answer = func(map[point]float64) *http.Response {
					if !first {
						return respond(http.StatusNoContent)
					}
					first = false
					return respond(c.code, "Retry-After", c.retry)
				}
				set := metrics.New(metrics.Options{}, slog.New(slog.DiscardHandler))
				_, stop := start(t, r, store, func(o *Options) { o.Metrics = set.RemoteWrite })
				time.Sleep(20 * time.Minute)
				stop()
				if len(r.requests) < 2 {
					t.Fatalf("%d requests", len(r.requests))
				}
				if gap := r.requests[1].Sub(r.requests[0]); c.again != (gap >= minWait/2) || gap < c.wait {
					t.Errorf("the next request comes after %s", gap)
				}
				r.check(t, want(store.All(), &Options{})) // what is refused is halved, then taken here
			})
		})
	}
}

// TestRefusedSamplesGoAlone: a receiver refuses requests with a sample that is
// too old. All others arrive, and the loss is counted to the sample.
func TestRefusedSamplesGoAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newReceiver(), exporttest.New()
		fill(store, 5, 4)
		old := exporttest.Rows(3, 0, 1_600_000_000_000)
		store.Commit(old)
		bad := want([]export.Tailed{old}, &Options{})
		r.answer = func(points map[point]float64) *http.Response {
			for p := range points {
				if _, is := bad[p]; is {
					return respond(http.StatusBadRequest)
				}
			}
			return respond(http.StatusNoContent)
		}
		var log bytes.Buffer
		set := metrics.New(metrics.Options{}, slog.New(slog.DiscardHandler))
		_, stop := startLogging(t, &log, r, store, func(o *Options) { o.Metrics = set.RemoteWrite })
		time.Sleep(time.Minute)
		stop()
		all := want(store.All(), &Options{})
		for p := range bad {
			delete(all, p)
		}
		r.check(t, all)
		if n := strings.Count(log.String(), "samples dropped"); n != 1 {
			t.Errorf("said %d times:\n%s", n, log.String())
		}
		if got := counter(t, set, `edgeherd_export_dropped_samples_total`, "refused"); got != float64(len(bad)) {
			t.Errorf("%v samples counted as dropped, want %d", got, len(bad))
		}
	})
}

func counter(t *testing.T, set *metrics.Set, name, label string) float64 {
	t.Helper()
	all, err := set.Gatherer().Gather()
	must(t, err)
	for _, f := range all {
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				if f.GetName() == name && l.GetValue() == label {
					return m.GetCounter().GetValue()
				}
			}
		}
	}
	t.Fatalf("no %s %s", name, label)
	return 0
}

// TestConnectionsThatEndDoNotHoldItUp: a proxy that closes after each answer
// looks like a receiver that restarts; the cursor must move all the same.
func TestConnectionsThatEndDoNotHoldItUp(t *testing.T) {
	for _, announced := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r, store := newReceiver(), exporttest.New()
			r.answer = func(map[point]float64) *http.Response {
				resp := respond(http.StatusNoContent)
				resp.Close = announced
				r.newConn = true
				return resp
			}
			_, stop := start(t, r, store, nil)
			for n := range 200 {
				store.Commit(exporttest.Rows(1, n, 1_700_000_000_000))
				time.Sleep(2 * time.Second)
			}
			stop()
			r.check(t, want(store.All(), &Options{}))
			most := 201
			if !announced {
				most = 3 * 201
			}
			if len(r.requests) > most {
				t.Errorf("%d requests, want at most %d", len(r.requests), most)
			}
			if at := store.All()[150].LSN; mustCursor(t, store) < at {
				t.Errorf("cursor stays at %d", mustCursor(t, store))
			}
		})
	}
}

func mustCursor(t *testing.T, s *exporttest.Store) uint64 {
	t.Helper()
	at, err := s.Cursor(t.Context(), "remote_write http://127.0.0.1/api/v1/write")
	must(t, err)
	return at
}

func TestOnlyTheLeaderSends(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newReceiver(), exporttest.New()
		fill(store, 2, 2)
		var mu sync.Mutex
		leads := false
		_, stop := start(t, r, store, func(o *Options) {
			o.Leader = func() bool { mu.Lock(); defer mu.Unlock(); return leads }
		})
		time.Sleep(time.Minute)
		if len(r.requests) > 0 {
			t.Error("another controller leads")
		}
		mu.Lock()
		leads = true
		mu.Unlock()
		time.Sleep(time.Minute)
		stop()
		r.check(t, want(store.All(), &Options{}))
	})
}

func TestOldSamplesAreLeftOutAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, store := newReceiver(), exporttest.New()
		now := time.Now().UnixMilli()
		old, fresh := exporttest.Rows(1, 0, now-3*3600_000), exporttest.Rows(1, 0, now-1800_000)
		store.Commit(old)
		store.Commit(fresh)
		set := metrics.New(metrics.Options{}, slog.New(slog.DiscardHandler))
		_, stop := start(t, r, store, func(o *Options) { o.MaxAge, o.Metrics = time.Hour, set.RemoteWrite })
		time.Sleep(time.Minute)
		stop()
		r.check(t, want([]export.Tailed{fresh}, &Options{}))
		if got := counter(t, set, "edgeherd_export_dropped_samples_total", "old"); got != 11 {
			t.Errorf("%v samples counted as old", got)
		}
	})
}

func TestOptionsThatCannotWorkAreNamed(t *testing.T) {
	for _, c := range []struct {
		key    string
		change func(*Options)
	}{
		{"", func(*Options) {}},
		{"url", func(o *Options) { o.URL = "metrics.example.com/write" }},
		{"url", func(o *Options) { o.URL = "https://a:b@metrics.example.com/write" }},
		{"url", func(o *Options) { o.URL, o.TokenFile = "http://metrics.example.com/write", "/t" }},
		{"series", func(o *Options) { o.Series = export.Series{"temp_["} }},
		{"labels", func(o *Options) { o.Labels = map[string]string{"__name__": "x"} }},
		{"labels", func(o *Options) { o.Labels = map[string]string{"box": "x"} }},
		{"token_file", func(o *Options) { o.TokenFile, o.User, o.PasswordFile = "a", "b", "c" }},
		{"user", func(o *Options) { o.User = "b" }},
		{"user", func(o *Options) { o.PasswordFile = "b" }},
		{"ca_file", func(o *Options) { o.URL, o.CAFile = "http://127.0.0.1/write", "x" }},
		{"max_age", func(o *Options) { o.MaxAge = -1 }},
	} {
		o := Options{URL: "https://metrics.example.com/write"}
		c.change(&o)
		err := o.Check()
		var field *export.FieldError
		if c.key == "" && err != nil || c.key != "" && (!errors.As(err, &field) || field.Key != c.key) {
			t.Errorf("want %q: %v", c.key, err)
		}
	}
}
