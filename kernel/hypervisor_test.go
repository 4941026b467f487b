// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// program is a static x86-64 program that writes a line and ends; what follows
// the line makes it another program with the same answer.
func program(line, tail string) []byte {
	const base, head = 0x400000, 64 + 56
	text := append([]byte(line), '\n')
	code := []byte{0xb8, 1, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe, 0, 0, 0, 0, 0xba, 0, 0, 0, 0, 0x0f, 0x05, // write(1, text, len)
		0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05} // exit(0)
	binary.LittleEndian.PutUint32(code[11:], uint32(base+head+len(code)))
	binary.LittleEndian.PutUint32(code[16:], uint32(len(text)))
	b := make([]byte, head)
	copy(b, "\x7fELF\x02\x01\x01")
	binary.LittleEndian.PutUint16(b[16:], 2)
	binary.LittleEndian.PutUint16(b[18:], 62)
	binary.LittleEndian.PutUint32(b[20:], 1)
	binary.LittleEndian.PutUint64(b[24:], base+head)
	binary.LittleEndian.PutUint64(b[32:], 64)
	binary.LittleEndian.PutUint16(b[52:], 64)
	binary.LittleEndian.PutUint16(b[54:], 56)
	binary.LittleEndian.PutUint16(b[56:], 1)
	size := uint64(head + len(code) + len(text) + len(tail))
	binary.LittleEndian.PutUint32(b[64:], 1) // PT_LOAD
	binary.LittleEndian.PutUint32(b[68:], 5) // read and execute
	binary.LittleEndian.PutUint64(b[80:], base)
	binary.LittleEndian.PutUint64(b[88:], base)
	binary.LittleEndian.PutUint64(b[96:], size)
	binary.LittleEndian.PutUint64(b[104:], size)
	binary.LittleEndian.PutUint64(b[112:], 0x1000)
	return append(append(append(b, code...), text...), tail...)
}

const answers = "cloud-hypervisor v99.1-test"

func hexSum(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

// source has a lock that pins a release.
func source(t *testing.T, r Release) *Source {
	t.Helper()
	dir := t.TempDir()
	lock := filepath.Join(dir, "lock")
	if err := writeFile(lock, Lockfile{Releases: []Release{r}}.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Options{Cache: dir, Lock: lock, WorkLock: filepath.Join(dir, "work"), Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCloudHypervisorSources(t *testing.T) {
	release := program("no version", "release")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v53.0/release":
			if _, err := w.Write(release); err != nil {
				t.Log(err)
			}
		case "/v53.0/other":
			if _, err := w.Write(program(answers, "something else")); err != nil {
				t.Log(err)
			}
		case "/v53.0/cut":
			w.Header().Set("Content-Length", "1000000")
			if _, err := w.Write(release); err != nil {
				t.Log(err)
			}
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := "http://" + dead.Addr().String() + "/v53.0/release"
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	local := filepath.Join(dir, "mine")
	if err := os.WriteFile(local, program(answers, "mine"), 0o755); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dir, "other")
	if err := os.WriteFile(other, program("qemu 9.2", ""), 0o755); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "dead")
	if err := os.WriteFile(broken, program(answers, "")[:120], 0o755); err != nil {
		t.Fatal(err)
	}
	dynamic := filepath.Join(dir, "text")
	if err := os.WriteFile(dynamic, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		local, url string
		cached     []byte
		source     string // "" when refused
		fallback   bool   // the error allows the second driver
		is         error
	}{
		"downloaded":              {url: server.URL + "/v53.0/release", source: "release"},
		"cached release, no net":  {url: gone, cached: release, source: "release"},
		"cached local build":      {url: gone, cached: program(answers, "built here"), source: "local"},
		"given":                   {local: local, url: gone, source: "local"},
		"given beats cache":       {local: local, cached: release, url: gone, source: "local"},
		"nobody answers":          {url: gone, fallback: true},
		"none is wished":          {local: NoCloudHypervisor, cached: release, url: server.URL + "/v53.0/release", fallback: true},
		"not there":               {url: server.URL + "/v53.0/none", fallback: true},
		"breaks off":              {url: server.URL + "/v53.0/cut", fallback: true},
		"other bytes":             {url: server.URL + "/v53.0/other", is: ErrDigest},
		"given, absent":           {local: filepath.Join(dir, "absent"), url: server.URL + "/v53.0/release"},
		"given, another program":  {local: other, url: server.URL + "/v53.0/release"},
		"given, does not run":     {local: broken, url: server.URL + "/v53.0/release"},
		"given, not a program":    {local: dynamic, url: server.URL + "/v53.0/release"},
		"cached, not a program":   {cached: []byte("junk"), url: server.URL + "/v53.0/release"},
		"proxy's page is refused": {url: server.URL + "/v53.0/other", is: ErrDigest},
	} {
		t.Run(name, func(t *testing.T) {
			cache := filepath.Join(t.TempDir(), "deep", "ch")
			if c.cached != nil {
				if err := writeFile(cache, c.cached, 0o755); err != nil {
					t.Fatal(err)
				}
			}
			pin := Release{releaseName, "amd64", "v53.0", hexSum(release), c.url}
			h, err := source(t, pin).CloudHypervisor(context.Background(), HypervisorOptions{Local: c.local, Cache: cache, Connect: 2 * time.Second})
			if c.source == "" {
				if err == nil || errors.Is(err, fs.ErrNotExist) != c.fallback || (c.is != nil && !errors.Is(err, c.is)) {
					t.Fatalf("error %v, want fallback %v", err, c.fallback)
				}
				if c.cached != nil && c.local == "" && !strings.Contains(err.Error(), cache+": not a static program for amd64, the node has no libraries for it; delete that file") {
					t.Errorf("no word of what to do: %v", err)
				}
				if _, serr := os.Stat(cache); c.cached == nil && !errors.Is(serr, fs.ErrNotExist) {
					t.Errorf("refused bytes stand in the cache: %v", serr)
				}
				return
			}
			if err != nil || h.Source != c.source || h.Name != "cloud-hypervisor" || len(h.Files) != 1 {
				t.Fatalf("%+v, %v", h, err)
			}
			if want := map[string]string{"release": "v53.0", "local": "v99.1-test"}[c.source]; h.Version != want {
				t.Errorf("version %q, want %q", h.Version, want)
			}
			kept, err := os.ReadFile(cache)
			if err != nil || "sha256:"+hexSum(kept) != h.Digest {
				t.Errorf("not kept for the next build: %v", err)
			}
		})
	}
}

// A program for another processor is asked in that processor's emulator, which
// a script stands in for here.
func TestCloudHypervisorOfAnotherArch(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	local := filepath.Join(dir, "mine")
	theirs := program(answers, "")
	binary.LittleEndian.PutUint16(theirs[18:], 183)
	if err := os.WriteFile(local, theirs, 0o755); err != nil {
		t.Fatal(err)
	}
	lock := filepath.Join(dir, "lock")
	open := func() *Source {
		s, err := Open(Options{Cache: dir, Lock: lock, WorkLock: filepath.Join(dir, "work"), Arch: "arm64", Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	other := Release{releaseName, "amd64", "v53.0", hexSum(theirs), "http://example.test/v53.0"}
	if err := writeFile(lock, Lockfile{Releases: []Release{other}}.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := open().CloudHypervisor(context.Background(), HypervisorOptions{Local: local}); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "no release of cloud-hypervisor for arm64") {
		t.Errorf("a lock without a release for it: %v", err)
	}
	pin := Release{releaseName, "arm64", "v53.0", hexSum(nil), "http://example.test/v53.0"}
	if err := writeFile(lock, Lockfile{Releases: []Release{pin}}.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	s := open()
	o := HypervisorOptions{Local: local, Cache: filepath.Join(dir, "cache")}
	if _, err := s.CloudHypervisor(context.Background(), o); err == nil || !strings.Contains(err.Error(), "qemu-user") {
		t.Errorf("without an emulator: %v", err)
	}
	script := "#!/bin/sh\n[ \"$1 $2\" = '" + local + " --version' ] && echo '" + answers + "'\n"
	if err := os.WriteFile(filepath.Join(dir, "qemu-aarch64"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	if h, err := s.CloudHypervisor(context.Background(), o); err != nil || h.Version != "v99.1-test" || h.Source != "local" {
		t.Errorf("%+v, %v", h, err)
	}
	o.Local = filepath.Join(dir, "absent")
	if _, err := s.CloudHypervisor(context.Background(), o); err == nil || !strings.Contains(err.Error(), "CLOUD_HYPERVISOR_ARM64") {
		t.Errorf("the error does not name the variable: %v", err)
	}
}

func TestDepends(t *testing.T) {
	got := Depends("libc6 (>= 2.38), zlib1g:amd64, a | b (= 1),  ")
	want := [][]string{{"libc6"}, {"zlib1g"}, {"a", "b"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestPlainNamesMeet(t *testing.T) {
	for lib, pkg := range map[string]string{
		"libglib-2.0.so.0": "libglib2.0-0t64", "libfdt.so.1": "libfdt1", "libpcre2-8.so.0": "libpcre2-8-0", "libgcc_s.so.1": "libgcc-s1", "libssl.so.3": "libssl3t64",
	} {
		if plain(strings.Replace(lib, ".so.", "", 1)) != plain(pkg) {
			t.Errorf("%s and %s do not meet", lib, pkg)
		}
	}
}

// TestConfigCheck: a kernel without what no module can add is refused by name.
func TestConfigCheck(t *testing.T) {
	good := "CONFIG_SECURITY_LANDLOCK=y\nCONFIG_CGROUPS=y\nCONFIG_MEMCG=y\nCONFIG_CGROUP_PIDS=y\nCONFIG_DEVTMPFS=y\nCONFIG_RD_ZSTD=y\nCONFIG_EFI_STUB=y\nCONFIG_PACKET=m\nCONFIG_SECCOMP_FILTER=y\nCONFIG_NF_TABLES_INET=y\nCONFIG_MODULE_DECOMPRESS=y\nCONFIG_MODULE_COMPRESS_XZ=y\nCONFIG_LSM=\"landlock,yama\"\n"
	if err := (&Linux{Config: []byte(good)}).check(); err != nil {
		t.Fatal(err)
	}
	for cut, want := range map[string]string{
		"CONFIG_SECURITY_LANDLOCK=y\n": "CONFIG_SECURITY_LANDLOCK", "landlock,": "CONFIG_LSM", "CONFIG_PACKET=m\n": "CONFIG_PACKET",
	} {
		err := (&Linux{Config: []byte(strings.Replace(good, cut, "", 1))}).check()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %q: %v", cut, err)
		}
	}
}
