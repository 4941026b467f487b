// SPDX-License-Identifier: Apache-2.0

// Package packaging is the Debian package of those who run a ledger: the tool,
// the units of validators and mirrors, the runbook and the dashboard. `make deb`
// builds it.
package packaging

import (
	"embed"
	"fmt"
	"strings"
	"time"

	"github.com/zos-node/zos/packaging/deb"
)

//go:embed systemd grafana debian
var files embed.FS

// contents says where what stands below this folder is installed.
var contents = []struct {
	from, to string
	mode     int64
	zip      bool
	conf     bool
}{
	{"systemd/zos-ledger.service", "/usr/lib/systemd/system/zos-ledger.service", 0o644, false, false},
	{"systemd/zos-mirror.service", "/usr/lib/systemd/system/zos-mirror.service", 0o644, false, false},
	{"debian/sysusers.conf", "/usr/lib/sysusers.d/zos-ledger.conf", 0o644, false, false},
	{"debian/zos-ledger.default", "/etc/default/zos-ledger", 0o644, false, true},
	{"debian/zos-mirror.default", "/etc/default/zos-mirror", 0o644, false, true},
	{"debian/zos.1", "/usr/share/man/man1/zos.1.gz", 0o644, true, false},
	{"debian/copyright", "/usr/share/doc/zos-ledger/copyright", 0o644, false, false},
	{"debian/lintian", "/usr/share/lintian/overrides/zos-ledger", 0o644, false, false},
	{"grafana/ledger.json", "/usr/share/doc/zos-ledger/examples/ledger.json", 0o644, false, false},
}

// Ledger is the package of an architecture (Debian's name of it) and version.
// program is cmd/zos for it, runbook docs/ledger.md.
func Ledger(arch, version string, program, runbook []byte, when time.Time) (deb.Package, error) {
	p := deb.Package{
		Name: "zos-ledger", Version: version, Arch: arch, Section: "net", Time: when,
		Maintainer: "zos <zos@example.invalid>", Homepage: "https://github.com/zos-node/zos",
		Depends: "systemd", Recommends: "ca-certificates, chrony | time-daemon",
		Summary: "validators and mirrors of a zos ledger",
		Description: `The ledger of zos is the ordered list of signed deployments that nodes follow.
This package has the zos tool and systemd units to run one of its validators,
or a mirror that checks everything and serves static files.

Neither unit is started by the installation, nor restarted by an upgrade: a
ledger is made with zos ledger init or join first, and its validators are
upgraded one at a time. See /usr/share/doc/zos-ledger/ledger.md.gz.`,
		Scripts: map[string][]byte{},
	}
	for _, c := range contents {
		b, err := files.ReadFile(c.from)
		if err != nil {
			return p, fmt.Errorf("package: %w", err)
		}
		if c.zip {
			if b, err = deb.Gzip(b); err != nil {
				return p, err
			}
		}
		p.Files = append(p.Files, deb.File{Path: c.to, Mode: c.mode, Data: b, Conf: c.conf})
	}
	for _, name := range []string{"postinst", "prerm", "postrm"} {
		b, err := files.ReadFile("debian/" + name)
		if err != nil {
			return p, fmt.Errorf("package: %w", err)
		}
		p.Scripts[name] = b
	}
	change := strings.Join([]string{"zos-ledger (" + version + ") unstable; urgency=medium", "", "  * Built from this version of the source; see its history.", "",
		" -- " + p.Maintainer + "  " + when.UTC().Format(time.RFC1123Z), ""}, "\n")
	for path, text := range map[string][]byte{"/usr/share/doc/zos-ledger/changelog.gz": []byte(change), "/usr/share/doc/zos-ledger/ledger.md.gz": runbook} {
		b, err := deb.Gzip(text)
		if err != nil {
			return p, err
		}
		p.Files = append(p.Files, deb.File{Path: path, Mode: 0o644, Data: b})
	}
	p.Files = append(p.Files, deb.File{Path: "/usr/bin/zos", Mode: 0o755, Data: program})
	return p, nil
}
