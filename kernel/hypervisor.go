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
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"github.com/zos-node/zos/kernel/debian"
)

// The release of Cloud Hypervisor that the product is for.
const (
	CloudHypervisorVersion = "v53.0"
	// CloudHypervisorSHA256 is the static x86_64 binary of the project's release.
	CloudHypervisorSHA256 = "448af3d4e59b22c2987f7df94c213ad40fb53a10d437e42b5ee6c4fce7c29ecc"
	// CloudHypervisorSHA256ARM64 is the static aarch64 one.
	CloudHypervisorSHA256ARM64 = "f192b510eea1c710cbc439d716bb0573c223fc463dbe3e6523788a2b7ef62850"
	// CloudHypervisorURL is where the project publishes it. The digest vouches, not the place.
	CloudHypervisorURL = "https://github.com/cloud-hypervisor/cloud-hypervisor/releases/download/v53.0/cloud-hypervisor-static"
	// HypervisorPath is where the node's initramfs says what it carries.
	HypervisorPath = "/etc/zos/hypervisor.json"
	// HypervisorArchive is where the initramfs has the hypervisor's files, as a
	// compressed archive of its own (cpio, zstd): nobody needs them before the
	// node follows the ledger, so nobody waits until they are unpacked.
	HypervisorArchive = "/etc/zos/hypervisor.cpio.zst"
	// versionTimeout is how long a program may take to say its version.
	versionTimeout = 10 * time.Second
)

// ErrDigest says that a downloaded file is not the release. It is never used.
var ErrDigest = errors.New("digest mismatch")

// Hypervisor is what the node starts guests with; its JSON form stands in
// the initramfs at HypervisorPath.
type Hypervisor struct {
	Name    string `json:"name"` // "cloud-hypervisor" or "qemu"
	Version string `json:"version"`
	Digest  string `json:"digest"` // "sha256:<hex>" of the program
	Source  string `json:"source"` // "release", "local" or "debian"
	Path    string `json:"path"`   // in the node
	Files   []File `json:"-"`
}

// File is a file or link for the initramfs.
type File struct {
	Path string
	Mode uint64
	Data []byte
	Link string // target, instead of Data
	// Package is where Debian has it; empty for what is not Debian's.
	Package debian.Package
}

// NoCloudHypervisor as CLOUD_HYPERVISOR asks for the second driver, whatever is
// in the cache or could be downloaded.
const NoCloudHypervisor = "none"

// Variable is the environment's that names a program for an architecture: a
// build for several boards needs one for each.
func Variable(arch string) string {
	if arch == "arm64" {
		return "CLOUD_HYPERVISOR_ARM64"
	}
	return "CLOUD_HYPERVISOR"
}

// HypervisorOptions say where to look, in this order: Local, Cache, URL.
type HypervisorOptions struct {
	Local   string        // what Variable names; "" when not given, or NoCloudHypervisor
	Cache   string        // file in the user's cache
	URL     string        // "" takes the project's, for the source's architecture
	SHA256  string        // "" takes the release's, for the source's architecture
	Connect time.Duration // how long an offline machine waits; 0 takes 5 s
}

// CacheFile is the usual HypervisorOptions.Cache, of a machine like this.
func CacheFile() (string, error) { return CacheFileFor("amd64") }

// CacheFileFor is that of an architecture, by Debian's name.
func CacheFileFor(arch string) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("user's cache: %w", err)
	}
	return filepath.Join(dir, "zos", "cloud-hypervisor-"+CloudHypervisorVersion+"-"+machineNames[arch]), nil
}

// machineNames are the architectures as uname -m, and so QEMU, names them.
var machineNames = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// CloudHypervisor finds the binary. The error is fs.ErrNotExist when there is
// none to be had and a fallback is right; every other error must stop the
// build: a file that was named is unusable, or a download is not what it claims.
func (s *Source) CloudHypervisor(ctx context.Context, o HypervisorOptions) (Hypervisor, error) {
	if o.URL == "" {
		o.URL = CloudHypervisorURL
		if s.opt.Arch == "arm64" {
			o.URL += "-aarch64"
		}
	}
	if o.SHA256 == "" {
		o.SHA256 = CloudHypervisorSHA256
		if s.opt.Arch == "arm64" {
			o.SHA256 = CloudHypervisorSHA256ARM64
		}
	}
	if o.Connect == 0 {
		o.Connect = 5 * time.Second
	}
	if o.Local == NoCloudHypervisor {
		return Hypervisor{}, fmt.Errorf("%s=%s: %w", Variable(s.opt.Arch), NoCloudHypervisor, fs.ErrNotExist)
	}
	if o.Local != "" {
		b, err := os.ReadFile(o.Local)
		if err != nil {
			// Not wrapped: a file that the user named and that is absent is no reason to fall back.
			return Hypervisor{}, fmt.Errorf("%s: %v", Variable(s.opt.Arch), err)
		}
		// Only what can be used is kept: the next build takes it from the cache.
		h, err := s.cloudHypervisor(ctx, b, o)
		if err != nil {
			return Hypervisor{}, err
		}
		return h, writeFile(o.Cache, b, 0o755)
	}
	b, err := os.ReadFile(o.Cache)
	if err == nil {
		h, err := s.cloudHypervisor(ctx, b, o)
		if err != nil {
			return Hypervisor{}, fmt.Errorf("%w; delete that file, and release %s is fetched anew, or name a program with %s=/path", err, CloudHypervisorVersion, Variable(s.opt.Arch))
		}
		return h, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Hypervisor{}, fmt.Errorf("hypervisor in the cache: %w", err)
	}
	b, err = s.download(ctx, o)
	if err != nil {
		return Hypervisor{}, err
	}
	h, err := s.cloudHypervisor(ctx, b, o)
	if err != nil {
		return Hypervisor{}, err
	}
	return h, writeFile(o.Cache, b, 0o755)
}

// cloudHypervisor describes a program that was read. The release's version is
// known by its digest; any other program is asked.
func (s *Source) cloudHypervisor(ctx context.Context, b []byte, o HypervisorOptions) (Hypervisor, error) {
	sum := sha256.Sum256(b)
	digest := hex.EncodeToString(sum[:])
	from := first(o.Local, o.Cache)
	if !static(b, s.opt.Arch) {
		return Hypervisor{}, fmt.Errorf("hypervisor %s: not a static program for %s, the node has no libraries for it", from, s.opt.Arch)
	}
	source, version := "release", CloudHypervisorVersion
	if digest != o.SHA256 {
		source = "local"
		var err error
		if version, err = askVersion(ctx, s.opt.Arch, from); err != nil {
			return Hypervisor{}, fmt.Errorf("hypervisor %s: %w", from, err)
		}
		s.opt.Log.Warn("THE HYPERVISOR IS NOT THE PROJECT'S RELEASE: recorded as a local file", "part", "kernel", "path", from, "version", version, "digest", "sha256:"+digest)
	}
	h := Hypervisor{
		Name: "cloud-hypervisor", Version: version, Digest: "sha256:" + digest, Source: source, Path: "/bin/cloud-hypervisor",
		Files: []File{{Path: "/bin/cloud-hypervisor", Mode: 0o755, Data: b}},
	}
	return h, nil
}

// askVersion asks a program which Cloud Hypervisor it is. One for another
// architecture answers in an emulator of its processor.
func askVersion(ctx context.Context, arch, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, versionTimeout)
	defer cancel()
	path, err := filepath.Abs(path) // a bare name would be looked up in PATH
	if err != nil {
		return "", fmt.Errorf("ask for its version: %w", err)
	}
	words := []string{path, "--version"}
	if arch != runtime.GOARCH {
		emulator, err := exec.LookPath("qemu-" + machineNames[arch])
		if err != nil {
			return "", fmt.Errorf("ask for its version: it is not the project's release for %s, and this machine runs no such programs: %w; install Debian's package qemu-user", arch, err)
		}
		words = append([]string{emulator}, words...)
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.WaitDelay = time.Second // a child may hold the output open
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("ask for its version by --version: %w", errors.Join(err, ctx.Err()))
	}
	said := regexp.MustCompile(`^cloud-hypervisor (v?[0-9][0-9A-Za-z._+-]{0,63})\s`).FindSubmatch(append(out, '\n'))
	if said == nil {
		return "", fmt.Errorf("it answers --version with %.80q, want \"cloud-hypervisor vNN\"", out)
	}
	return string(said[1]), nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// download fetches the release. Not to be reached, or not there, is
// fs.ErrNotExist; other bytes than the release's are ErrDigest.
func (s *Source) download(ctx context.Context, o HypervisorOptions) ([]byte, error) {
	s.opt.Log.Info("looking for Cloud Hypervisor's release", "part", "kernel", "version", CloudHypervisorVersion, "limit", o.Connect)
	// No retries and a short limit for each step before the body, so that an
	// offline machine goes on within seconds.
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		DialContext:           (&net.Dialer{Timeout: o.Connect}).DialContext,
		TLSHandshakeTimeout:   o.Connect,
		ResponseHeaderTimeout: o.Connect,
	}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, o.URL, nil)
	if err != nil {
		return nil, fmt.Errorf("hypervisor: %w", err)
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("hypervisor: %w", ctx.Err())
		}
		return nil, fmt.Errorf("%w: Cloud Hypervisor cannot be downloaded: %v", fs.ErrNotExist, err)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	err = errors.Join(err, resp.Body.Close())
	switch {
	case resp.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%w: Cloud Hypervisor cannot be downloaded: the server says %s", fs.ErrNotExist, resp.Status)
	case err != nil:
		return nil, fmt.Errorf("%w: Cloud Hypervisor's download broke off: %v", fs.ErrNotExist, err)
	}
	sum := sha256.Sum256(b)
	if got := hex.EncodeToString(sum[:]); got != o.SHA256 {
		return nil, fmt.Errorf("hypervisor: Cloud Hypervisor %s as downloaded: %w: sha256 %s, want %s; not used. Check what stands between this machine and the release, or give a file by %s=/path", CloudHypervisorVersion, ErrDigest, got, o.SHA256, Variable(s.opt.Arch))
	}
	return b, nil
}
