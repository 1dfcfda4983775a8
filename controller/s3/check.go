package s3

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Finding is one thing that was looked at. Way is "" when it is well.
type Finding struct {
	Check, Found, Way string
	// Final says that only a person can mend it; else it may pass.
	Final bool
}

// Check looks at the bucket as the controller and boxes use it.
func (b *Bucket) Check(ctx context.Context) (out []Finding) {
	ctx, cancel := context.WithTimeout(ctx, b.opts.Limit)
	defer cancel()
	skew, err := b.skew(ctx)
	switch {
	case err != nil:
		return []Finding{{Check: "s3 store", Found: fmt.Sprintf("%s does not answer: %v", b.opts.Endpoint, plain(err)), Way: "see that it runs, and s3.endpoint and s3.ca of server.yaml"}}
	case skew.Abs() > maxSkew:
		out = append(out, Finding{Check: "s3 clock", Found: fmt.Sprintf("its clock is %s from ours", skew.Round(time.Second)), Way: "set the clocks: a store refuses what is signed at another time", Final: true})
	default:
		out = append(out, Finding{Check: "s3 clock", Found: fmt.Sprintf("within %s of ours", maxSkew)})
	}
	ok, err := b.client.BucketExists(ctx, b.opts.Bucket)
	if err == nil && !ok {
		err = Fault{Code: "NoSuchBucket", Message: "there is none"}
	}
	if err != nil {
		return append(out, b.explain("s3 bucket "+b.opts.Bucket, err))
	}
	out = append(out, Finding{Check: "s3 bucket " + b.opts.Bucket, Found: "reachable"})
	b.probe(ctx, func(check string, err error) {
		if err != nil {
			out = append(out, b.explain("s3 "+check, err))
			return
		}
		out = append(out, Finding{Check: "s3 " + check, Found: "permitted"})
	})
	return out
}

// skew is how far the store's clock is ahead of ours.
func (b *Bucket) skew(ctx context.Context) (time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, b.opts.Endpoint, nil)
	if err != nil {
		return 0, err
	}
	resp, err := b.rt.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	resp.Body.Close()
	at, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, nil // it does not say; a request that is refused will
	}
	return at.Sub(b.opts.WallClock()), nil
}

// explain says what to do about an answer of the store.
func (b *Bucket) explain(check string, err error) Finding {
	err = plain(err)
	f := Finding{Check: check, Found: err.Error(), Way: "look at the settings s3 of server.yaml, and at the log of the store"}
	var s3 Fault
	if !errors.As(err, &s3) {
		if check == "s3 presigned" {
			f.Way = "boxes cannot read there and come to the controller instead: see s3.boxes of server.yaml"
		}
		return f
	}
	f.Final = true
	switch s3.Code {
	case "NoSuchBucket":
		f.Way = "make the bucket, or correct s3.bucket"
	case "AccessDenied", "AllAccessDisabled", "Forbidden":
		f.Way = "permit s3:ListBucket, GetObject, PutObject, DeleteObject and AbortMultipartUpload to the access key"
	case "InvalidAccessKeyId":
		f.Way = "correct s3.access_key: the store does not know it"
	case "SignatureDoesNotMatch":
		f.Way = "correct the secret in s3.secret_key_file, and s3.region"
	case "RequestTimeTooSkewed":
		f.Way = "set the clocks of the store and of this machine"
	case "AuthorizationHeaderMalformed", "InvalidRegion":
		f.Way = "correct s3.region"
	default:
		f.Final = false
	}
	return f
}
