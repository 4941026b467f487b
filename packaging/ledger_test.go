// SPDX-License-Identifier: Apache-2.0

package packaging

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/packaging/deb"
)

func build(t *testing.T) ([]byte, deb.Package) {
	t.Helper()
	p, err := Ledger("amd64", "0~1.abc", []byte("#!/bin/sh\necho zos\n"), []byte("the runbook\n"), time.Unix(1_800_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), p
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// What dpkg-deb reads in it is what was put in, and twice the same bytes.
func TestPackage(t *testing.T) {
	b, p := build(t)
	if again, _ := build(t); !bytes.Equal(again, b) {
		t.Error("two packages of the same contents differ")
	}
	path := filepath.Join(t.TempDir(), "p.deb")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{"Package": "zos-ledger", "Version": "0~1.abc", "Architecture": "amd64", "Depends": "systemd"} {
		if got := strings.TrimSpace(tool(t, "dpkg-deb", "--field", path, field)); got != want {
			t.Errorf("%s is %q, want %q", field, got, want)
		}
	}
	list := tool(t, "dpkg-deb", "--contents", path)
	to := t.TempDir()
	tool(t, "dpkg-deb", "--extract", path, to)
	for _, f := range p.Files {
		info, err := os.Stat(filepath.Join(to, f.Path))
		if err != nil {
			t.Error(err)
			continue
		}
		got, err := os.ReadFile(filepath.Join(to, f.Path))
		if err != nil || !bytes.Equal(got, f.Data) || int64(info.Mode().Perm()) != f.Mode {
			t.Errorf("%s: %v, mode %o", f.Path, err, info.Mode().Perm())
		}
		if !strings.Contains(list, " ."+f.Path+"\n") {
			t.Errorf("%s is not listed", f.Path)
		}
	}
	if n := strings.Count(list, "root/root"); n != strings.Count(list, "\n") {
		t.Errorf("%d of %d members belong to root:\n%s", n, strings.Count(list, "\n"), list)
	}
	control := t.TempDir()
	tool(t, "dpkg-deb", "--control", path, control)
	sums, err := os.ReadFile(filepath.Join(control, "md5sums"))
	if err != nil {
		t.Fatal(err)
	}
	check := exec.Command("md5sum", "--strict", "-c", "-")
	check.Dir, check.Stdin = to, bytes.NewReader(sums)
	if out, err := check.CombinedOutput(); err != nil {
		t.Errorf("md5sums: %v\n%s", err, out)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		tool(t, "sh", "-n", filepath.Join(control, script))
	}
}

// dpkg installs it into an empty root, keeps a changed configuration file over
// an upgrade, and removes it without the validator's folder.
func TestInstall(t *testing.T) {
	if _, err := exec.LookPath("systemd-sysusers"); err != nil {
		t.Skip("SKIP the installation needs systemd-sysusers, which is not here")
	}
	root := t.TempDir()
	for _, d := range []string{"var/lib/dpkg/updates", "var/lib/dpkg/info", "var/lib/dpkg/triggers", "etc", "var/lib/zos-ledger/keys"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg := func(args ...string) string {
		return tool(t, "dpkg", append([]string{"--root=" + root, "--log=" + filepath.Join(root, "log"), "--force-depends", "--force-not-root", "--force-script-chrootless", "--force-confold", "--force-bad-path"}, args...)...)
	}
	write := func(version string) string {
		_, p := build(t)
		p.Version = version
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), version+".deb")
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	dpkg("--install", write("0~1"))
	passwd, err := os.ReadFile(filepath.Join(root, "etc/passwd"))
	if err != nil || !strings.Contains(string(passwd), "zos-ledger:") || !strings.Contains(string(passwd), "zos-mirror:") {
		t.Errorf("users: %s, %v", passwd, err)
	}
	settings := filepath.Join(root, "etc/default/zos-ledger")
	if err := os.WriteFile(settings, []byte("QUOTA=1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	dpkg("--install", write("0~2"))
	if b, err := os.ReadFile(settings); err != nil || string(b) != "QUOTA=1\n" {
		t.Errorf("the upgrade changed the settings: %q, %v", b, err)
	}
	if got := dpkg("--status", "zos-ledger"); !strings.Contains(got, "Status: install ok installed\n") || !strings.Contains(got, "Version: 0~2\n") {
		t.Errorf("status: %s", got)
	}
	dpkg("--purge", "zos-ledger")
	for path, want := range map[string]bool{"usr/bin/zos": false, "etc/default/zos-ledger": false, "usr/lib/systemd/system/zos-ledger.service": false, "var/lib/zos-ledger/keys": true} {
		if _, err := os.Stat(filepath.Join(root, path)); (err == nil) != want {
			t.Errorf("after the purge: %s: %v", path, err)
		}
	}
}

// TestSettings: what a unit takes from its environment has a value there and a
// line in /etc/default, and the other way round.
func TestSettings(t *testing.T) {
	for _, name := range []string{"zos-ledger", "zos-mirror"} {
		unit, err := files.ReadFile("systemd/" + name + ".service")
		if err != nil {
			t.Fatal(err)
		}
		settings, err := files.ReadFile("debian/" + name + ".default")
		if err != nil {
			t.Fatal(err)
		}
		var used, lines []string
		for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)\}`).FindAllStringSubmatch(string(unit), -1) {
			used = append(used, m[1])
		}
		for _, m := range regexp.MustCompile(`(?m)^([A-Z_]+)=`).FindAllStringSubmatch(string(settings), -1) {
			lines = append(lines, m[1])
		}
		slices.Sort(used)
		slices.Sort(lines)
		if !slices.Equal(used, lines) || len(used) < 4 {
			t.Errorf("%s: the unit uses %v, /etc/default/%s has %v", name, used, name, lines)
		}
		for _, u := range used {
			if name == "zos-ledger" && !strings.Contains(string(unit), " "+u+"=") && !strings.Contains(string(unit), "="+u+"=") {
				t.Errorf("%s: %s has no value without /etc/default", name, u)
			}
		}
	}
	for _, flag := range []string{"--listen", "--metrics", "--quota", "--keep", "--archive", "--reserve", "--tls-cert", "--tls-key"} {
		if unit, err := files.ReadFile("systemd/zos-ledger.service"); err != nil || !strings.Contains(string(unit), " "+flag+" ${") {
			t.Errorf("the unit has no %s (%v)", flag, err)
		}
	}
}

// Units that systemd does not understand would be found by the operator.
func TestUnits(t *testing.T) {
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIP the units are judged by systemd-analyze, which is not here")
	}
	dir := t.TempDir()
	for _, name := range []string{"zos-ledger.service", "zos-mirror.service"} {
		b, err := files.ReadFile("systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		// The program is not installed here.
		b = bytes.ReplaceAll(b, []byte("/usr/bin/zos "), []byte("/bin/true "))
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, b, 0o644); err != nil {
			t.Fatal(err)
		}
		out := tool(t, "systemd-analyze", "verify", "--man=no", path)
		for line := range strings.Lines(out) {
			if strings.Contains(line, name) {
				t.Error(fmt.Sprint(line))
			}
		}
	}
}
