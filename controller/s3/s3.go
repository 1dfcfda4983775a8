// Package s3 keeps blobs in a bucket of an S3 store, whoever runs it, and lets boxes
// read them there without a key of it.
//
//	BUCKET/PREFIX/sha256/<hex>   verified content
//	BUCKET/PREFIX/probe-<random> written and removed by Check
//
// Vocabulary: a presigned URL reads one object for a short time; it is as good as
// a password for that object, and appears in no log and no error of ours.
//
// The one rule a caller can break: nothing that comes from here is believed. Its
// readers check digests, as they do for a disk.
package s3

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/edgeherd/edgeherd/internal/blob"
)

// Options of a Bucket. Endpoint and Bucket are required.
type Options struct {
	// Endpoint is https://host:port of the store; http:// for one on this machine.
	Endpoint string
	Bucket   string
	// Prefix is put before the names of objects; default none.
	Prefix string
	// Region; default what the store says.
	Region string
	// AccessKey and SecretFile sign requests; the file has the secret on its first
	// line. Default: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, else the role of
	// the machine.
	AccessKey, SecretFile string
	// CA is a file of certificates that vouch for the store; default the system's.
	CA string
	// Boxes is the endpoint under which boxes reach the store; default Endpoint.
	Boxes string
	// Life is how long a presigned URL is good; default 15 minutes.
	Life time.Duration
	// Limit bounds one request but the copying of contents; default 30 s.
	Limit time.Duration
	// WallClock is compared with the store's; nil means time.Now.
	WallClock func() time.Time
}

// maxSkew is how far clocks may be apart: S3 refuses from 15 minutes on.
const maxSkew = 5 * time.Minute

// Bucket implements blob.Remote. Safe for concurrent use.
type Bucket struct {
	opts   Options
	client *minio.Client
	signer *minio.Client // for the endpoint of boxes
	rt     http.RoundTripper
}

// New checks the settings. It connects at the first request.
func New(o Options) (*Bucket, error) {
	if o.Limit <= 0 {
		o.Limit = 30 * time.Second
	}
	if o.Life <= 0 {
		o.Life = 15 * time.Minute
	}
	if o.WallClock == nil {
		o.WallClock = time.Now
	}
	if o.Boxes == "" {
		o.Boxes = o.Endpoint
	}
	creds, err := o.credentials()
	if err != nil {
		return nil, err
	}
	transport, err := minio.DefaultTransport(true)
	if err != nil {
		return nil, fmt.Errorf("s3: %w", err)
	}
	if o.CA != "" {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, fmt.Errorf("s3.ca: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("s3.ca: %s has no certificate", o.CA)
		}
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: pool}
	}
	b := &Bucket{opts: o, rt: transport}
	for _, c := range []struct {
		into          **minio.Client
		endpoint, key string
	}{{&b.client, o.Endpoint, "s3.endpoint"}, {&b.signer, o.Boxes, "s3.boxes"}} {
		u, err := url.Parse(c.endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("%s: %q is not https://host or https://host:port", c.key, c.endpoint)
		}
		region := o.Region
		if region == "" && c.into == &b.signer {
			region = "us-east-1" // to sign must not ask the network, from here the boxes' address may not be reached
		}
		*c.into, err = minio.New(u.Host, &minio.Options{Creds: creds, Secure: u.Scheme == "https", Region: region, Transport: transport, BucketLookup: minio.BucketLookupAuto})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.key, err)
		}
	}
	if o.Bucket == "" {
		return nil, errors.New("s3.bucket: name the bucket")
	}
	return b, nil
}

func (o Options) credentials() (*credentials.Credentials, error) {
	if o.AccessKey == "" && o.SecretFile == "" {
		return credentials.NewChainCredentials([]credentials.Provider{&credentials.EnvAWS{}, &credentials.IAM{}}), nil
	}
	if o.AccessKey == "" || o.SecretFile == "" {
		return nil, errors.New("s3: access_key and secret_key_file belong together")
	}
	text, err := os.ReadFile(o.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("s3.secret_key_file: %w", err)
	}
	secret, _, _ := strings.Cut(string(text), "\n")
	if secret = strings.TrimSpace(secret); secret == "" {
		return nil, fmt.Errorf("s3.secret_key_file: %s has no secret on its first line", o.SecretFile)
	}
	return credentials.NewStaticV4(o.AccessKey, secret, ""), nil
}

func (b *Bucket) key(d blob.Digest) string { return path.Join(b.opts.Prefix, "sha256", d.Hex()) }

// limited is the context of a request that is not bounded by a caller's.
func (b *Bucket) limited() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), b.opts.Limit)
}

// Put copies a file, in parts if it is long, and makes sure that it arrived whole.
func (b *Bucket) Put(path string, d blob.Digest) error {
	if info, err := os.Stat(path); err != nil {
		return err
	} else if n, err := b.Size(d); err == nil && n == info.Size() {
		return nil // named by its content
	}
	// An upload may take hours; the transport ends one that stalls.
	info, err := b.client.FPutObject(context.Background(), b.opts.Bucket, b.key(d), path, minio.PutObjectOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return fmt.Errorf("copy %s to the bucket: %w", d.Short(), plain(err))
	}
	if n, err := b.Size(d); err != nil || n != info.Size {
		return fmt.Errorf("copy %s to the bucket: it has %d of %d bytes there: %w", d.Short(), n, info.Size, err)
	}
	return nil
}

// Open reads an object at any place.
func (b *Bucket) Open(d blob.Digest) (io.ReadSeekCloser, error) {
	if _, err := b.Size(d); err != nil {
		return nil, err
	}
	o, err := b.client.GetObject(context.Background(), b.opts.Bucket, b.key(d), minio.GetObjectOptions{})
	if err != nil {
		return nil, fmt.Errorf("read %s from the bucket: %w", d.Short(), plain(err))
	}
	return o, nil
}

// Size is the length of an object.
func (b *Bucket) Size(d blob.Digest) (int64, error) {
	ctx, cancel := b.limited()
	defer cancel()
	info, err := b.client.StatObject(ctx, b.opts.Bucket, b.key(d), minio.StatObjectOptions{})
	if err != nil {
		return 0, fmt.Errorf("look for %s in the bucket: %w", d.Short(), plain(err))
	}
	return info.Size, nil
}

// Delete removes an object.
func (b *Bucket) Delete(d blob.Digest) error {
	ctx, cancel := b.limited()
	defer cancel()
	if err := b.client.RemoveObject(ctx, b.opts.Bucket, b.key(d), minio.RemoveObjectOptions{}); err != nil {
		return fmt.Errorf("remove %s from the bucket: %w", d.Short(), plain(err))
	}
	return nil
}

// URL lets its holder read a blob for a while, at the address of boxes.
func (b *Bucket) URL(ctx context.Context, d blob.Digest) (string, time.Duration, error) {
	u, err := b.signer.PresignedGetObject(ctx, b.opts.Bucket, b.key(d), b.opts.Life, nil)
	if err != nil {
		return "", 0, fmt.Errorf("sign an address of %s: %w", d.Short(), plain(err))
	}
	return u.String(), b.opts.Life, nil
}

// plain says what is wrong without an address: it may be a presigned one.
func plain(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	r := minio.ToErrorResponse(err)
	switch r.Code {
	case "":
		return err
	case minio.NoSuchKey:
		return fs.ErrNotExist
	}
	return Fault{Code: r.Code, Message: r.Message}
}

// Fault is what the store answered.
type Fault struct{ Code, Message string }

func (f Fault) Error() string { return f.Code + ": " + f.Message }

// probe writes, reads and removes an object.
func (b *Bucket) probe(ctx context.Context, say func(check string, err error)) {
	name := path.Join(b.opts.Prefix, "probe-"+rand.Text())
	_, err := b.client.PutObject(ctx, b.opts.Bucket, name, strings.NewReader("edgeherd"), 8, minio.PutObjectOptions{})
	say("write", err)
	if err != nil {
		return
	}
	o, err := b.client.GetObject(ctx, b.opts.Bucket, name, minio.GetObjectOptions{})
	if err == nil {
		_, err = io.ReadAll(o)
		o.Close()
	}
	say("read", err)
	say("presigned", b.readSigned(ctx, name))
	say("delete", b.client.RemoveObject(ctx, b.opts.Bucket, name, minio.RemoveObjectOptions{}))
}

// readSigned reads as a box does.
func (b *Bucket) readSigned(ctx context.Context, name string) error {
	u, err := b.signer.PresignedGetObject(ctx, b.opts.Bucket, name, time.Minute, nil)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return errors.New("the address cannot be asked")
	}
	resp, err := (&http.Client{Transport: b.rt}).Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the store answers %s", resp.Status)
	}
	return nil
}
