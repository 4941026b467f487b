// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// connectLimit is how long an offline machine waits.
	connectLimit = 5 * time.Second
	fetchLimit   = 5 * time.Minute
	maxRelease   = 64 << 20
)

// Checked is what came of asking for a release's file.
type Checked struct {
	Release
	Was string `json:"was"` // version that the lock had before
	// Unreached says why the file could not be had, "" where it could: its line in
	// the lock then stands as it stood, unchecked.
	Unreached string `json:"unreached"`
}

// CheckReleases fetches the file of every release and holds it against its
// digest. Other bytes are ErrDigest: a release that changes under its version is
// not taken. With version, the lock goes to that one instead: each file is at the
// same place under its version, and all of them have to be there.
func CheckReleases(ctx context.Context, all []Release, version string) ([]Checked, error) {
	var out []Checked
	for _, r := range all {
		c := Checked{Release: r, Was: r.Version}
		anew := version != "" && version != r.Version
		if anew {
			c.URL, c.Version, c.SHA256 = strings.ReplaceAll(r.URL, r.Version, version), version, ""
		}
		b, err := c.fetch(ctx, connectLimit)
		switch {
		case err == nil && !static(b, r.Arch):
			return nil, fmt.Errorf("%s %s: not a static program for %s", r.Name, c.Version, r.Arch)
		case err == nil && anew:
			sum := sha256.Sum256(b)
			c.SHA256 = hex.EncodeToString(sum[:])
		case errors.Is(err, fs.ErrNotExist) && !anew:
			c.Unreached = strings.TrimPrefix(err.Error(), fs.ErrNotExist.Error()+": ")
		case err != nil:
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// Releases are the lines for the lock.
func Releases(checked []Checked) []Release {
	var all []Release
	for _, c := range checked {
		all = append(all, c.Release)
	}
	return slices.Clip(all)
}

// fetch gets the file. Not to be reached, or not there, is fs.ErrNotExist; other
// bytes than the digest's, where there is one, are ErrDigest.
func (r Release) fetch(ctx context.Context, connect time.Duration) ([]byte, error) {
	// No retries and a short limit for each step before the body, so that an
	// offline machine goes on within seconds.
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: connect}).DialContext,
		TLSHandshakeTimeout:   connect,
		ResponseHeaderTimeout: connect,
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, fetchLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", r.Name, r.Version, err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Name, r.Version, ctx.Err())
		}
		return nil, fmt.Errorf("%w: %s %s cannot be downloaded: %v", fs.ErrNotExist, r.Name, r.Version, err)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxRelease))
	err = errors.Join(err, resp.Body.Close())
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: %s %s cannot be downloaded: the server says %s to %s", fs.ErrNotExist, r.Name, r.Version, resp.Status, r.URL)
	case err != nil && ctx.Err() != nil:
		return nil, fmt.Errorf("%s %s: %w", r.Name, r.Version, ctx.Err())
	case err != nil:
		return nil, fmt.Errorf("%w: the download of %s %s broke off: %v", fs.ErrNotExist, r.Name, r.Version, err)
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); r.SHA256 != "" && got != r.SHA256 {
		return nil, fmt.Errorf("%s %s as downloaded: %w: sha256 %s, want %s; not used. Check what stands between this machine and %s", r.Name, r.Version, ErrDigest, got, r.SHA256, r.URL)
	}
	return b, nil
}
