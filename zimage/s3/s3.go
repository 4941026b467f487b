// SPDX-License-Identifier: Apache-2.0

// Package s3 puts files into a bucket of a server that speaks S3. It is tested
// against gofakes3 (rclone's), and by `make test-s3` against versitygw.
//
// It knows three requests, HEAD, GET and PUT of an object, with the bucket in the
// path, signed with AWS Signature Version 4. A bucket whose objects anybody
// may read is a mirror as it is: nodes need neither a key nor this package.
package s3

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/publish"
)

// ErrRefused means that the server knows who asks, or does not, and says no.
var ErrRefused = errors.New("the S3 server refuses")

// Bucket is a bucket, or what is below a prefix in it.
type Bucket struct {
	endpoint *url.URL
	base     string // "/bucket" or "/bucket/prefix"
	region   string
	keys     aws.Credentials
	signer   *v4.Signer
	http     *http.Client
}

const (
	emptySum       = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	requestTimeout = 10 * time.Minute // of the largest file
	maxError       = 8 << 10
)

// Open takes s3://BUCKET[/PREFIX], and the rest from the environment
// variables that AWS's own tools read: AWS_ENDPOINT_URL (a server other than
// Amazon's), AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and
// AWS_SESSION_TOKEN. Nothing is contacted yet.
func Open(ref string, env func(string) string) (*Bucket, error) {
	path, ok := strings.CutPrefix(ref, "s3://")
	bucket, prefix, _ := strings.Cut(path, "/")
	if !ok || bucket == "" || strings.ContainsAny(path, "?#%\\ ") {
		return nil, fmt.Errorf("S3: %q: want s3://BUCKET or s3://BUCKET/PREFIX", ref)
	}
	b := &Bucket{
		base: "/" + bucket, region: env("AWS_REGION"), signer: v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }),
		keys: aws.Credentials{AccessKeyID: env("AWS_ACCESS_KEY_ID"), SecretAccessKey: env("AWS_SECRET_ACCESS_KEY"), SessionToken: env("AWS_SESSION_TOKEN")},
		http: &http.Client{Timeout: requestTimeout},
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		b.base += "/" + prefix
	}
	if b.region == "" {
		b.region = "us-east-1"
	}
	if b.keys.AccessKeyID == "" || b.keys.SecretAccessKey == "" {
		return nil, errors.New("S3: no key: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	endpoint := env("AWS_ENDPOINT_URL")
	if endpoint == "" {
		endpoint = "https://s3." + b.region + ".amazonaws.com"
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" {
		return nil, fmt.Errorf("S3: AWS_ENDPOINT_URL %q: want https://HOST[:PORT]", endpoint)
	}
	b.endpoint = u
	return b, nil
}

// Size implements publish.Bucket.
func (b *Bucket) Size(ctx context.Context, name string) (int64, error) {
	resp, err := b.do(ctx, http.MethodHead, name, nil, emptySum)
	if err != nil {
		return 0, err
	}
	return resp.ContentLength, resp.Body.Close()
}

// Get implements publish.Bucket.
func (b *Bucket) Get(ctx context.Context, name string) (io.ReadCloser, error) {
	resp, err := b.do(ctx, http.MethodGet, name, nil, emptySum)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// Put implements publish.Bucket. The content's hash is signed, and stands in
// a checksum too, for servers that look at one of them only: none keeps bytes
// that were altered on the way.
func (b *Bucket) Put(ctx context.Context, o zimage.Object) error {
	resp, err := b.do(ctx, http.MethodPut, o.Name, &o, hex.EncodeToString(o.Sum[:]))
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxError))
	return errors.Join(err, resp.Body.Close())
}

// do sends a signed request and gives an answer that is good.
func (b *Bucket) do(ctx context.Context, method, name string, o *zimage.Object, sum string) (*http.Response, error) {
	u := *b.endpoint
	u.Path = strings.TrimSuffix(u.Path, "/") + b.base + "/" + name
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("S3: %w", err)
	}
	if o != nil {
		req.Body, req.ContentLength = io.NopCloser(o.Body), o.Size
		req.Header.Set("Content-Type", o.Kind)
		req.Header.Set("X-Amz-Checksum-Sha256", base64.StdEncoding.EncodeToString(o.Sum[:]))
		req.Header.Set("Cache-Control", "public, max-age=31536000, immutable")
		if strings.HasPrefix(o.Name, "by-oci/") {
			req.Header.Set("Cache-Control", "no-cache")
		}
	}
	req.Header.Set("X-Amz-Content-Sha256", sum)
	if err := b.signer.SignHTTP(ctx, b.keys, req, sum, "s3", b.region, time.Now()); err != nil {
		return nil, fmt.Errorf("S3: sign: %w", err)
	}
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("S3: %w: %w", publish.ErrTemporary, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	return nil, errors.Join(b.refusal(resp, method), resp.Body.Close())
}

// refusal turns an answer into an error.
func (b *Bucket) refusal(resp *http.Response, method string) error {
	var said struct {
		Code    string
		Message string
	}
	// What cannot be read adds nothing; HEAD has no body at all.
	_ = xml.NewDecoder(io.LimitReader(resp.Body, maxError)).Decode(&said)
	text := resp.Status
	if said.Code != "" {
		text += fmt.Sprintf(" (%.80q: %.300q)", said.Code, said.Message)
	}
	switch code := resp.StatusCode; {
	// Of a GET the server says which: the object, or the bucket.
	case code == http.StatusNotFound && (method == http.MethodHead || said.Code == "NoSuchKey"):
		return fmt.Errorf("S3: %s: %w", text, fs.ErrNotExist)
	case code == http.StatusTooManyRequests || code >= 500:
		return fmt.Errorf("S3: %w: it answers %s", publish.ErrTemporary, text)
	case code == http.StatusForbidden || code == http.StatusUnauthorized:
		return fmt.Errorf("S3: %w: %s; it wants a key that may read, list and write %s", ErrRefused, text, strings.TrimPrefix(b.base, "/"))
	}
	return fmt.Errorf("S3: %w: it answers %s", ErrRefused, text)
}
