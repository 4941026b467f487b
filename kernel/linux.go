// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"archive/tar"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/zos-node/zos/kernel/debian"
	"github.com/zos-node/zos/kernel/modules"
)

// Linux is one kernel package, opened.
type Linux struct {
	Package debian.Package
	Release string // uname -r
	Image   []byte // bzImage
	Config  []byte
	Tree    *modules.Tree
}

// Linux fetches a kernel by its metapackage, for example
// "linux-image-cloud-amd64".
func (s *Source) Linux(ctx context.Context, meta string) (*Linux, error) {
	p, file, err := s.Package(ctx, meta, func(ctx context.Context, a *debian.Archive) (string, error) {
		f, err := a.Show(ctx, meta)
		if err != nil {
			return "", err
		}
		for _, d := range Depends(f["Depends"]) {
			if strings.HasPrefix(d[0], "linux-image-") {
				return d[0], nil
			}
		}
		return "", fmt.Errorf("package %s: depends on no kernel: %q", meta, f["Depends"])
	})
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	k := &Linux{Package: p, Release: strings.TrimPrefix(p.Name, "linux-image-")}
	k.Tree = modules.NewTree(k.Release)
	prefix := "/lib/modules/" + k.Release + "/"
	err = debian.Walk(ctx, file, func(name string, hdr *tar.Header, r io.Reader) error {
		if hdr.Typeflag != tar.TypeReg {
			return nil
		}
		var to *[]byte
		below, isModule := strings.CutPrefix(strings.TrimPrefix(name, "/usr"), prefix)
		switch {
		case name == "/boot/vmlinuz-"+k.Release:
			to = &k.Image
		case name == "/boot/config-"+k.Release:
			to = &k.Config
		case isModule && (strings.Contains(path.Base(below), ".ko") || below == "modules.builtin"):
			b, err := io.ReadAll(r)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			k.Tree.Add(below, b)
			return nil
		default:
			return nil
		}
		b, err := io.ReadAll(r)
		*to = b
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	if len(k.Image) == 0 || len(k.Config) == 0 {
		return nil, fmt.Errorf("kernel %s: package has no image or no configuration", k.Release)
	}
	return k, k.check()
}

// check refuses a kernel that lacks what no module can add.
func (k *Linux) check() error {
	var missing []string
	for _, want := range []string{
		"CONFIG_SECURITY_LANDLOCK=y", "CONFIG_CGROUPS=y", "CONFIG_MEMCG=y", "CONFIG_CGROUP_PIDS=y", "CONFIG_DEVTMPFS=y",
		"CONFIG_RD_ZSTD=y", "CONFIG_EFI_STUB=y", "CONFIG_PACKET=[ym]", "CONFIG_SECCOMP_FILTER=y", "CONFIG_NF_TABLES_INET=y",
		"CONFIG_MODULE_DECOMPRESS=y", "CONFIG_MODULE_COMPRESS_XZ=y", // modules stay as packaged
	} {
		name, values, _ := strings.Cut(want, "=")
		ok := false
		for _, v := range strings.Trim(values, "[]") { // "[ym]": either will do
			ok = ok || strings.Contains("\n"+string(k.Config), "\n"+name+"="+string(v)+"\n")
		}
		if !ok {
			missing = append(missing, want)
		}
	}
	if lsm := configValue(k.Config, "CONFIG_LSM"); !strings.Contains(lsm, "landlock") {
		missing = append(missing, "landlock in CONFIG_LSM")
	}
	if len(missing) > 0 {
		return fmt.Errorf("kernel %s: configuration lacks %s", k.Release, strings.Join(missing, ", "))
	}
	return nil
}

func configValue(config []byte, name string) string {
	for line := range strings.Lines(string(config)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), name+"="); ok {
			return v
		}
	}
	return ""
}

// Depends parses a Depends field: groups of alternatives, names only.
func Depends(field string) [][]string {
	var all [][]string
	for _, group := range strings.Split(field, ",") {
		var names []string
		for _, alt := range strings.Split(group, "|") {
			name, _, _ := strings.Cut(strings.TrimSpace(alt), " ")
			name, _, _ = strings.Cut(name, ":")
			if name != "" {
				names = append(names, name)
			}
		}
		if len(names) > 0 {
			all = append(all, names)
		}
	}
	return all
}
