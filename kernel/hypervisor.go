// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"time"

	"github.com/zos-node/zos/kernel/debian"
)

const (
	// releaseName is the project's in the lock, which pins the release that the
	// product is for.
	releaseName = "cloud-hypervisor"
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

// HypervisorOptions say where to look, in this order: Local, Cache, the release.
type HypervisorOptions struct {
	Local   string        // what Variable names; "" when not given, or NoCloudHypervisor
	Cache   string        // file in the user's cache
	Connect time.Duration // how long an offline machine waits; 0 takes 5 s
}

// CacheFile is the usual HypervisorOptions.Cache for an architecture, by Debian's
// name, under a lock file.
func CacheFile(lock, arch string) (string, error) {
	l, err := ReadLock(lock)
	if err != nil {
		return "", err
	}
	r, err := l.release(releaseName, arch, lock)
	if err != nil {
		return "", err
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("user's cache: %w", err)
	}
	return filepath.Join(dir, "zos", "cloud-hypervisor-"+r.Version+"-"+machineNames[arch]), nil
}

// CacheFile is that of the source's architecture and lock.
func (s *Source) CacheFile() (string, error) { return CacheFile(s.opt.Lock, s.opt.Arch) }

// machineNames are the architectures as uname -m, and so QEMU, names them.
var machineNames = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

// CloudHypervisor finds the binary. The error is fs.ErrNotExist when there is
// none to be had and a fallback is right; every other error must stop the
// build: a file that was named is unusable, or a download is not what it claims.
func (s *Source) CloudHypervisor(ctx context.Context, o HypervisorOptions) (Hypervisor, error) {
	if o.Connect == 0 {
		o.Connect = connectLimit
	}
	if o.Local == NoCloudHypervisor {
		return Hypervisor{}, fmt.Errorf("%s=%s: %w", Variable(s.opt.Arch), NoCloudHypervisor, fs.ErrNotExist)
	}
	r, err := Lockfile{Releases: s.releases}.release(releaseName, s.opt.Arch, s.opt.Lock)
	if err != nil {
		return Hypervisor{}, err
	}
	if o.Local != "" {
		b, err := os.ReadFile(o.Local)
		if err != nil {
			// Not wrapped: a file that the user named and that is absent is no reason to fall back.
			return Hypervisor{}, fmt.Errorf("%s: %v", Variable(s.opt.Arch), err)
		}
		// Only what can be used is kept: the next build takes it from the cache.
		h, err := s.cloudHypervisor(ctx, b, o, r)
		if err != nil {
			return Hypervisor{}, err
		}
		return h, writeFile(o.Cache, b, 0o755)
	}
	b, err := os.ReadFile(o.Cache)
	if err == nil {
		h, err := s.cloudHypervisor(ctx, b, o, r)
		if err != nil {
			return Hypervisor{}, fmt.Errorf("%w; delete that file, and release %s is fetched anew, or name a program with %s=/path", err, r.Version, Variable(s.opt.Arch))
		}
		return h, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return Hypervisor{}, fmt.Errorf("hypervisor in the cache: %w", err)
	}
	s.opt.Log.Info("looking for Cloud Hypervisor's release", "part", "kernel", "version", r.Version, "limit", o.Connect)
	b, err = r.fetch(ctx, o.Connect)
	if err != nil {
		if errors.Is(err, ErrDigest) {
			err = fmt.Errorf("hypervisor: %w, or give a file by %s=/path", err, Variable(s.opt.Arch))
		}
		return Hypervisor{}, err
	}
	h, err := s.cloudHypervisor(ctx, b, o, r)
	if err != nil {
		return Hypervisor{}, err
	}
	return h, writeFile(o.Cache, b, 0o755)
}

// cloudHypervisor describes a program that was read. The release's version is
// known by its digest; any other program is asked.
func (s *Source) cloudHypervisor(ctx context.Context, b []byte, o HypervisorOptions, r Release) (Hypervisor, error) {
	sum := sha256.Sum256(b)
	digest := hex.EncodeToString(sum[:])
	from := first(o.Local, o.Cache)
	if !static(b, s.opt.Arch) {
		return Hypervisor{}, fmt.Errorf("hypervisor %s: not a static program for %s, the node has no libraries for it", from, s.opt.Arch)
	}
	source, version := "release", r.Version
	if digest != r.SHA256 {
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
