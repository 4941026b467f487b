// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"
)

// realServer is the environment variable with the program of versitygw. With it
// the tests ask that, and without it a server inside of them.
const realServer = "ZOS_S3_SERVER"

const testKey, testSecret = "key", "secret"

// server is an S3 server that checks signatures, and has a bucket "images" whose
// objects anybody may read.
type server struct {
	url, public string

	mu       sync.Mutex
	requests map[string]int
	busy     int // answers 503 so many times
}

func start(t *testing.T) *server {
	t.Helper()
	s := &server{requests: map[string]int{}}
	signed, open := fake(t)
	if program := os.Getenv(realServer); program != "" {
		signed = versitygw(t, program)
		open = signed
	}
	private := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests[r.Method]++
		busy := s.busy > 0
		s.busy--
		s.mu.Unlock()
		if busy {
			http.Error(w, "<Error><Code>SlowDown</Code></Error>", http.StatusServiceUnavailable)
			return
		}
		signed.ServeHTTP(w, r)
	}))
	public := httptest.NewServer(open)
	t.Cleanup(private.Close)
	t.Cleanup(public.Close)
	s.url, s.public = private.URL, public.URL
	return s
}

// fake is the S3 server of `rclone serve s3`, which checks signatures, and the
// same objects for anybody to read.
func fake(t *testing.T) (signed, open http.Handler) {
	t.Helper()
	objects := s3mem.New()
	if err := objects.CreateBucket(context.Background(), "images"); err != nil {
		t.Fatal(err)
	}
	return gofakes3.New(objects, gofakes3.WithV4Auth(map[string]string{testKey: testSecret}), gofakes3.WithIntegrityCheck(true)).Server(),
		gofakes3.New(objects).Server()
}

// versitygw is that program over a folder, on a socket in it.
func versitygw(t *testing.T, program string) http.Handler {
	t.Helper()
	// A socket's path may have 107 bytes, which that of a test's folder may exceed.
	dir, err := os.MkdirTemp("", "s3-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	data, meta, socket := filepath.Join(dir, "data"), filepath.Join(dir, "meta"), filepath.Join(dir, "s3.sock")
	for _, d := range []string{data, meta} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var said bytes.Buffer
	cmd := exec.Command(program, "--port", socket, "--access", testKey, "--secret", testSecret, "--quiet", "posix", "--sidecar", meta, data)
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill() // it may have ended
		<-ended
		if t.Failed() {
			t.Logf("%s said: %s", program, said.Bytes())
		}
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := dial(t.Context(), "", "")
		if err == nil {
			c.Close() // only asked whether somebody is there
			break
		}
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("it ended: %v", err)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("it does not listen: %v", err)
		}
	}
	proxy := &httputil.ReverseProxy{
		Transport: &http.Transport{DialContext: dial},
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = "http", r.In.Host // which is signed
		},
	}
	set := httptest.NewServer(proxy)
	defer set.Close()
	put(t, set.URL+"/images", "")
	put(t, set.URL+"/images?policy=", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"s3:GetObject","Resource":"arn:aws:s3:::images/*"}]}`)
	return proxy
}

// put sends a request that a bucket's owner makes once, and package s3 does not
// know.
func put(t *testing.T, url, body string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, url, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte(body))
	req.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
	keys := aws.Credentials{AccessKeyID: testKey, SecretAccessKey: testSecret}
	if err := v4.NewSigner().SignHTTP(t.Context(), keys, req, hex.EncodeToString(sum[:]), "s3", "us-east-1", time.Now()); err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	said, err := io.ReadAll(resp.Body)
	resp.Body.Close() // was read
	if err != nil || resp.StatusCode >= 300 {
		t.Fatalf("PUT %s: %s %s %v", url, resp.Status, said, err)
	}
}
