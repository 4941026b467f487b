// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestCommittedLock: everything that builds and tests download is in one file, and
// the file is as the command writes it.
func TestCommittedLock(t *testing.T) {
	b, err := os.ReadFile("debian.lock")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ParseLock(b)
	if err != nil {
		t.Fatal(err)
	}
	if again := l.Bytes(); string(again) != string(b) {
		t.Errorf("zos node lock would write it in another way:\n%s", again)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		if _, err := l.release(releaseName, arch, "debian.lock"); err != nil {
			t.Error(err)
		}
	}
	if _, ok := l.Packages["systemd-ukify"]; !ok {
		t.Error("ukify, which tests download, is not pinned")
	}
}

func TestParseLock(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	good := "release ch amd64 v1.0 " + sum + " https://example.test/v1.0/ch\n"
	l, err := ParseLock([]byte("a a 1 " + sum + " 1\n" + good))
	if err != nil || len(l.Packages) != 1 || !slices.Equal(l.Releases, []Release{{"ch", "amd64", "v1.0", sum, "https://example.test/v1.0/ch"}}) {
		t.Fatalf("%+v, %v", l, err)
	}
	for name, bad := range map[string]string{
		"few words":            "release ch amd64 v1.0 " + sum,
		"short digest":         "release ch amd64 v1.0 abab https://example.test/v1.0/ch",
		"upper case":           "release ch amd64 v1.0 " + strings.ToUpper(sum) + " https://example.test/v1.0/ch",
		"no address":           "release ch amd64 v1.0 " + sum + " v1.0/ch",
		"address of another":   "release ch amd64 v1.0 " + sum + " https://example.test/v1.1/ch",
		"version with a slash": "release ch amd64 ../x " + sum + " https://example.test/../x",
		"twice":                good[:len(good)-1],
		"a package's line":     "a b c",
	} {
		if _, err := ParseLock([]byte(good + bad + "\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParseLockfile(f *testing.F) {
	sum := strings.Repeat("ab", 32)
	f.Add([]byte("a b c " + sum + " 1\nrelease n a v " + sum + " http://h/v\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := ParseLock(b)
		if err != nil {
			return
		}
		again, err := ParseLock(l.Bytes())
		if err != nil || len(again.Packages) != len(l.Packages) || len(again.Releases) != len(l.Releases) {
			t.Errorf("%v does not survive: %v", l, err)
		}
	})
}

// TestCheckReleases: what can be reached is held against its pin, or pinned anew
// for a version that was asked for; what cannot is said.
func TestCheckReleases(t *testing.T) {
	arm := program("x", "arm")
	binary.LittleEndian.PutUint16(arm[18:], 183)
	files := map[string][]byte{
		"/v1.0/amd": program("x", "1.0"), "/v1.0/arm": arm, "/v2.0/amd": program("x", "2.0"), "/v2.0/arm": append(slices.Clone(arm), '2'),
		"/v3.0/amd": program("x", "3.0"), "/v4.0/amd": []byte("<html>"), "/v4.0/arm": arm,
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := files[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
		} else if _, err := w.Write(b); err != nil {
			t.Log(err)
		}
	}))
	defer server.Close()
	pins := []Release{
		{"ch", "amd64", "v1.0", hexSum(files["/v1.0/amd"]), server.URL + "/v1.0/amd"},
		{"ch", "arm64", "v1.0", hexSum(files["/v1.0/arm"]), server.URL + "/v1.0/arm"},
	}
	ctx := t.Context()
	if got, err := CheckReleases(ctx, pins, ""); err != nil || !slices.Equal(Releases(got), pins) || got[0].Unreached+got[1].Unreached != "" {
		t.Errorf("as pinned: %+v, %v", got, err)
	}
	changed := slices.Clone(pins)
	changed[1].SHA256 = hexSum(nil)
	if got, err := CheckReleases(ctx, changed, ""); !errors.Is(err, ErrDigest) {
		t.Errorf("other bytes under the same version: %+v, %v", got, err)
	}
	away := slices.Clone(pins)
	away[1].URL = server.URL + "/v1.0/gone"
	if got, err := CheckReleases(ctx, away, ""); err != nil || !slices.Equal(Releases(got), away) || got[0].Unreached != "" || !strings.Contains(got[1].Unreached, "404") {
		t.Errorf("one is not there: %+v, %v", got, err)
	}
	want := []Release{
		{"ch", "amd64", "v2.0", hexSum(files["/v2.0/amd"]), server.URL + "/v2.0/amd"},
		{"ch", "arm64", "v2.0", hexSum(files["/v2.0/arm"]), server.URL + "/v2.0/arm"},
	}
	if got, err := CheckReleases(ctx, pins, "v2.0"); err != nil || !slices.Equal(Releases(got), want) || got[0].Was != "v1.0" {
		t.Errorf("another version: %+v, %v", got, err)
	}
	if got, err := CheckReleases(ctx, pins, "v3.0"); err == nil || !strings.Contains(err.Error(), "/v3.0/arm") {
		t.Errorf("a version for half of the architectures: %+v, %v", got, err)
	}
	if got, err := CheckReleases(ctx, pins, "v4.0"); err == nil || !strings.Contains(err.Error(), "not a static program") {
		t.Errorf("a page in place of a program: %+v, %v", got, err)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := CheckReleases(over, pins, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestRelockReleases: the command's file has them beside the packages.
func TestRelockReleases(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	pin := Release{"ch", "amd64", "v1.0", hexSum(nil), "https://example.test/v1.0"}
	if err := os.WriteFile(lock, Lockfile{Releases: []Release{pin}}.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	pin.Version, pin.URL = "v2.0", "https://example.test/v2.0"
	if _, err := Relock(t.Context(), t.TempDir(), lock, nil, []Release{pin}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	got, err := ReadLock(lock)
	if err != nil || !slices.Equal(got.Releases, []Release{pin}) {
		t.Errorf("%+v, %v", got, err)
	}
	if left, err := filepath.Glob(lock + ".*"); err != nil || left != nil {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
