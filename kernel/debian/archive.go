// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

var (
	// ErrGone says that the archive no longer has a locked version.
	ErrGone = errors.New("no longer in the archive")
	// ErrMismatch says that bytes are not the locked ones. They are never used.
	ErrMismatch = errors.New("digest mismatch")
)

// Archive is one release of Debian as this machine's sources give it.
type Archive struct {
	dir, suite, arch string
	log              *slog.Logger
	updated          bool
	newest           map[string]string // package → index entry
}

// Open prepares nothing yet: the network is first used when something is
// asked for that the cache does not have. dir is private to this archive.
func Open(dir, suite, arch string, log *slog.Logger) (*Archive, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("private apt root: %w", err)
	}
	return &Archive{dir: abs, suite: suite, arch: arch, log: log}, nil
}

// Suite is the release's name.
func (a *Archive) Suite() string { return a.suite }

// codename reads the machine's release.
func codename() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", fmt.Errorf("which Debian is this: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"`), nil
		}
	}
	return "", errors.New("which Debian is this: /etc/os-release has no VERSION_CODENAME")
}

// MachineSources are this machine's own sources of Debian's archive, for the
// release suite, in deb822 form.
func MachineSources(suite string) ([]byte, error) {
	own, err := codename()
	if err != nil {
		return nil, err
	}
	return Sources("/etc/apt", own, suite)
}

// apt runs an apt program on the private root.
func (a *Archive) apt(ctx context.Context, dir, program string, args ...string) ([]byte, error) {
	// Two builds may share the folder; apt itself gives up on a lock at once.
	lock, err := os.OpenFile(filepath.Join(a.dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("private apt root: %w", err)
	}
	defer lock.Close() // which also unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lock private apt root: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "APT_CONFIG="+filepath.Join(a.dir, "first.conf"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("%s %s: %w", program, args[0], ctx.Err())
		}
		return nil, fmt.Errorf("%s %s: %w\n%s%s", program, args[0], err, tail(errs.String()+out.String(), 12), hint(errs.String()))
	}
	return out.Bytes(), nil
}

// hint adds what to do about the commonest failures.
func hint(text string) string {
	switch {
	case strings.Contains(text, "NO_PUBKEY"), strings.Contains(text, "Missing key"):
		return "\nthe machine's keyring does not know this release yet: apt-get install --only-upgrade debian-archive-keyring"
	case strings.Contains(text, "Could not resolve"), strings.Contains(text, "Failed to fetch"):
		return "\nthe archive could not be reached: check the network, or /etc/apt"
	}
	return ""
}

func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// setup writes the private root and fetches the signed indexes, once.
func (a *Archive) setup(ctx context.Context) error {
	if a.updated {
		return nil
	}
	sources, err := MachineSources(a.suite)
	if err != nil {
		return err
	}
	for _, d := range []string{"etc/sources.list.d", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.dir, d), 0o755); err != nil {
			return fmt.Errorf("private apt root: %w", err)
		}
	}
	// The hooks of the machine's own configuration are for its own apt: main.conf,
	// read after the machine's fragments, clears them.
	first := fmt.Sprintf(`Dir::Etc::main "%[1]s/main.conf";
Dir::Etc::sourcelist "/dev/null";
Dir::Etc::sourceparts "%[1]s/etc/sources.list.d";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
Dir::State "%[1]s/state";
Dir::State::status "%[1]s/status";
Dir::Cache "%[1]s/cache";
`, a.dir)
	main := fmt.Sprintf(`#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
APT::Architecture "%[1]s";
APT::Architectures { "%[1]s"; };
APT::Sandbox::User "root";
APT::Default-Release "";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons::DefaultEnabled "false";
Acquire::IndexTargets::deb::DEP-11-icons-small::DefaultEnabled "false";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
Acquire::Retries "2";
`, a.arch)
	for name, text := range map[string]string{
		"first.conf": first, "main.conf": main, "status": "", "etc/sources.list.d/archive.sources": string(sources),
	} {
		if err := os.WriteFile(filepath.Join(a.dir, name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("private apt root: %w", err)
		}
	}
	a.log.Info("reading the signed package lists", "part", "kernel", "release", a.suite)
	if _, err := a.apt(ctx, a.dir, "apt-get", "update", "-q"); err != nil {
		return err
	}
	a.updated = true
	return nil
}

// Show returns the index entry of a package's newest version.
func (a *Archive) Show(ctx context.Context, name string) (map[string]string, error) {
	if err := a.setup(ctx); err != nil {
		return nil, err
	}
	if a.newest == nil {
		// All at once: starting apt for each of fifty packages takes longer.
		out, err := a.apt(ctx, a.dir, "apt-cache", "dumpavail")
		if err != nil {
			return nil, err
		}
		a.newest = map[string]string{}
		for _, stanza := range splitStanzas(string(out)) {
			first, _, _ := strings.Cut(stanza, "\n")
			if n, ok := strings.CutPrefix(first, "Package: "); ok {
				a.newest[n] = stanza
			}
		}
	}
	stanza, ok := a.newest[name]
	if !ok {
		return nil, fmt.Errorf("package %s: not in Debian %s", name, a.suite)
	}
	fields := parseStanza(stanza)
	for k, v := range fields {
		fields[k] = strings.TrimSpace(v)
	}
	return fields, nil
}

// Resolve finds the newest version of a package.
func (a *Archive) Resolve(ctx context.Context, name string) (Package, error) {
	f, err := a.Show(ctx, name)
	if err != nil {
		return Package{}, err
	}
	size, err := strconv.ParseInt(f["Size"], 10, 64)
	if err != nil || len(f["SHA256"]) != 64 {
		return Package{}, fmt.Errorf("package %s: index entry without size or SHA-256", name)
	}
	return Package{Name: f["Package"], Version: f["Version"], SHA256: f["SHA256"], Size: size}, nil
}

// available says whether the archive still has exactly p's version.
func (a *Archive) available(ctx context.Context, p Package) (bool, error) {
	f, err := a.Show(ctx, p.Name)
	if err == nil && f["Version"] == p.Version {
		return true, nil
	}
	if a.newest == nil {
		return false, err // the index could not be read at all
	}
	known, err := a.apt(ctx, a.dir, "apt-cache", "madison", p.Name)
	return err == nil && hasVersion(string(known), p.Version), err
}

// Path is where the cache keeps a package, by its digest.
func (a *Archive) path(p Package) string {
	return filepath.Join(a.dir, "deb", p.SHA256[:16]+"-"+p.Name+".deb")
}

// Fetch returns the file of exactly p, from the cache or the archive.
func (a *Archive) Fetch(ctx context.Context, p Package) (string, error) {
	path := a.path(p)
	switch err := verify(path, p); {
	case err == nil:
		return path, nil
	case errors.Is(err, ErrMismatch):
		a.log.Warn("cached package is damaged, fetching it again", "part", "kernel", "package", p.Name, "err", err)
	case !errors.Is(err, fs.ErrNotExist):
		return "", err
	}
	if err := a.setup(ctx); err != nil {
		return "", err
	}
	ok, err := a.available(ctx, p)
	if err != nil {
		return "", err
	}
	if !ok {
		return "", fmt.Errorf("%s %s: %w", p.Name, p.Version, ErrGone)
	}
	return path, a.download(ctx, []Package{p})
}

// Prefetch brings those of the packages into the cache that are not there and
// that the archive still has, in one run of apt. What it leaves out, Fetch
// will name.
func (a *Archive) Prefetch(ctx context.Context, all []Package) error {
	var want []Package
	for _, p := range all {
		if _, err := os.Stat(a.path(p)); err == nil {
			continue
		}
		if err := a.setup(ctx); err != nil {
			return err
		}
		ok, err := a.available(ctx, p)
		if err != nil {
			return err
		}
		if ok {
			want = append(want, p)
		}
	}
	if len(want) == 0 {
		return nil
	}
	return a.download(ctx, want)
}

// download puts packages into the cache, each checked against its digest.
func (a *Archive) download(ctx context.Context, want []Package) error {
	if err := os.MkdirAll(filepath.Join(a.dir, "deb"), 0o755); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Join(a.dir, "deb"), "get-")
	if err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	defer func() {
		if err := os.RemoveAll(tmp); err != nil {
			a.log.Warn("temporary folder left behind", "part", "kernel", "path", tmp, "err", err)
		}
	}()
	args := []string{"download", "-q"}
	bytes := int64(0)
	for _, p := range want {
		args = append(args, p.Name+"="+p.Version)
		bytes += p.Size
	}
	a.log.Info("downloading", "part", "kernel", "packages", len(want), "first", args[2], "bytes", bytes)
	if _, err := a.apt(ctx, tmp, "apt-get", args...); err != nil {
		return err
	}
	for _, p := range want {
		found, err := filepath.Glob(filepath.Join(tmp, p.Name+"_*.deb"))
		if err != nil || len(found) != 1 {
			return fmt.Errorf("download %s: %d files arrived, want 1", p.Name, len(found))
		}
		if err := verify(found[0], p); err != nil {
			return err
		}
		if err := os.Rename(found[0], a.path(p)); err != nil {
			return fmt.Errorf("cache: %w", err)
		}
	}
	return nil
}

// hasVersion looks for a version in the output of apt-cache madison.
func hasVersion(madison, version string) bool {
	for line := range strings.Lines(madison) {
		if f := strings.Split(line, "|"); len(f) >= 2 && strings.TrimSpace(f[1]) == version {
			return true
		}
	}
	return false
}

// verify compares a file with its locked digest.
func verify(path string, p Package) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("package %s: %w", p.Name, err)
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != p.SHA256 {
		return fmt.Errorf("%s: %w: sha256 %s, want %s", path, ErrMismatch, got, p.SHA256)
	}
	return nil
}
