// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func TestSources(t *testing.T) {
	const deb822 = `# a comment
Types: deb deb-src
URIs: http://mirror.test/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.test/off
Suites: bookworm
Components: main
Enabled: no

Types: deb
URIs: http://vendor.test/
Suites: nodistro
Components: main

Types: deb
URIs: http://security.test/
Suites: bookworm-security
Components: main
Trusted: yes
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
`
	const list = `deb [arch=amd64 signed-by=/k.gpg trusted=yes] http://one.test/debian bookworm main # note
deb-src http://one.test/debian bookworm main
deb http://docker.test/linux bookworm stable
deb http://old.test/security stable/updates main
`
	for name, c := range map[string]struct {
		file, text string
		want, not  []string
	}{
		"deb822": {"sources.list.d/a.sources", deb822,
			[]string{"URIs: http://mirror.test/debian\nSuites: trixie trixie-updates\nComponents: main non-free-firmware\nSigned-By: /usr/share", "Suites: trixie-security", "\n -----BEGIN PGP"},
			[]string{"backports", "off", "vendor", "Trusted", "deb-src"}},
		"one line": {"sources.list", list,
			[]string{"URIs: http://one.test/debian\nSuites: trixie\nComponents: main non-free-firmware\nSigned-By: /k.gpg\n", "Suites: trixie/updates"},
			[]string{"docker", "rusted", "deb-src", "note"}},
	} {
		t.Run(name, func(t *testing.T) {
			etc := t.TempDir()
			path := filepath.Join(etc, c.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := Sources(etc, "bookworm", "trixie")
			if err != nil {
				t.Fatal(err)
			}
			for _, w := range c.want {
				if !strings.Contains(string(got), w) {
					t.Errorf("lacks %q in:\n%s", w, got)
				}
			}
			for _, n := range c.not {
				if strings.Contains(string(got), n) {
					t.Errorf("has %q in:\n%s", n, got)
				}
			}
			// What came out goes in again unchanged: the same machine on the same release.
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.MkdirAll(filepath.Join(etc, "sources.list.d"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(etc, "sources.list.d", "x.sources"), got, 0o644); err != nil {
				t.Fatal(err)
			}
			again, err := Sources(etc, "trixie", "trixie")
			if err != nil || string(again) != string(got) {
				t.Errorf("second pass: %v\n%s\nwas\n%s", err, again, got)
			}
		})
	}
	if _, err := Sources(t.TempDir(), "bookworm", "trixie"); !errors.Is(err, ErrNoSources) {
		t.Errorf("no sources: %v", err)
	}
}

func TestLock(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	l := Lock{"meta": {"real-1.2", "1:1.2-3", sum, 42}, "zlib1g": {"zlib1g", "1.3", sum, 7}}
	text := l.Bytes("trixie")
	if !strings.HasPrefix(string(text), "# SPDX-License-Identifier: Apache-2.0\n") {
		t.Errorf("no licence line: %s", text)
	}
	got, err := ParseLock(text)
	if err != nil || len(got) != 2 || got["meta"] != l["meta"] {
		t.Fatalf("%v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"few words": "a b c\n", "no digest": "a b c d 1\n", "short digest": "a b c abcd 1\n", "size": "a b c " + sum + " x\n", "size 0": "a b c " + sum + " 0\n",
		"twice": "a b c " + sum + " 1\na b c " + sum + " 1\n",
	} {
		if _, err := ParseLock([]byte(bad)); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if l, err := ReadLock(filepath.Join(t.TempDir(), "none")); err != nil || len(l) != 0 {
		t.Errorf("no file: %v, %v", l, err)
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte("a b c " + strings.Repeat("ab", 32) + " 1\n"))
	f.Add([]byte("# x\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLock(b)
		if err != nil {
			return
		}
		again, err := ParseLock(l.Bytes("trixie"))
		if err != nil || len(again) != len(l) {
			t.Errorf("%v does not survive: %v", l, err)
		}
	})
}

// makeDeb builds a small real package.
func makeDeb(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Skip("SKIP package reading: no dpkg-deb on this machine")
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"DEBIAN/control": "Package: demo\nVersion: 1\nArchitecture: all\nMaintainer: nobody <n@example.test>\nDepends: libc6 (>= 2), a | b\nDescription: demo\n more\n",
		"usr/share/demo": "content",
	} {
		p := filepath.Join(dir, "root", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	deb := filepath.Join(dir, "demo.deb")
	if out, err := exec.Command("dpkg-deb", "--root-owner-group", "-b", filepath.Join(dir, "root"), deb).CombinedOutput(); err != nil {
		t.Fatalf("dpkg-deb: %v\n%s", err, out)
	}
	return deb
}

func TestWalkAndControl(t *testing.T) {
	deb := makeDeb(t)
	got := ""
	err := Walk(context.Background(), deb, func(name string, hdr *tar.Header, r io.Reader) error {
		if name == "/usr/share/demo" {
			b, err := io.ReadAll(r)
			got = string(b)
			return err
		}
		return nil
	})
	if err != nil || got != "content" {
		t.Errorf("%q, %v", got, err)
	}
	stop := errors.New("stop")
	if err := Walk(context.Background(), deb, func(string, *tar.Header, io.Reader) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("visitor's error: %v", err)
	}
	if err := Walk(context.Background(), filepath.Join(t.TempDir(), "none.deb"), func(string, *tar.Header, io.Reader) error { return nil }); err == nil {
		t.Error("absent package: no error")
	}
	f, err := Control(context.Background(), deb)
	if err != nil || f["Package"] != "demo" || f["Depends"] != "libc6 (>= 2), a | b" {
		t.Errorf("%v, %v", f, err)
	}
}

// TestFetchFromCache needs no network; a damaged file in the cache is not used.
func TestFetchFromCache(t *testing.T) {
	a, err := Open(t.TempDir(), "trixie", "amd64", quiet())
	if err != nil {
		t.Fatal(err)
	}
	content := []byte("a package")
	sum := sha256.Sum256(content)
	p := Package{"demo", "1", hex.EncodeToString(sum[:]), int64(len(content))}
	if err := os.MkdirAll(filepath.Dir(a.path(p)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.path(p), content, 0o644); err != nil {
		t.Fatal(err)
	}
	path, err := a.Fetch(context.Background(), p)
	if err != nil || path != a.path(p) {
		t.Fatalf("%s, %v", path, err)
	}
	if err := os.WriteFile(path, []byte("b package"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := verify(path, p); !errors.Is(err, ErrMismatch) {
		t.Errorf("damaged file: %v", err)
	}
	done, cancel := context.WithCancel(context.Background())
	cancel() // no network: the damaged file must not come back
	if _, err := a.Fetch(done, p); err == nil {
		t.Error("damaged file was handed out")
	}
}

func TestHasVersion(t *testing.T) {
	const m = " demo | 1:2-3 | http://mirror.test trixie/main amd64 Packages\n"
	if !hasVersion(m, "1:2-3") || hasVersion(m, "1:2") || hasVersion("", "1") {
		t.Error("madison misread")
	}
}
