// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/debian"
)

// Debian is one selection of packages.
type Debian struct {
	Name, About string
	Packages    []string
}

// Debians are the two that are measured. Debian's own cloud image cannot be
// had from a package archive; the second has what that has, as far as it counts
// for a boot. Both boot directly from kernel and initramfs, without the boot
// loader that the real one has.
var Debians = []Debian{
	{"debian-minimal", "Debian with systemd, udev, dbus and a getty, and nothing else", least},
	{"debian-cloud", "Debian with what its cloud images have: systemd, cloud-init (no data source here), sshd, netplan, unattended-upgrades; put together from packages, not the image that Debian publishes",
		append(strings.Fields("systemd-resolved systemd-timesyncd libpam-systemd netplan.io cloud-init openssh-server apparmor unattended-upgrades sudo cron iproute2"), least...)},
}

var least = strings.Fields("systemd-sysv udev dbus linux-image-cloud-amd64 initramfs-tools zstd e2fsprogs login kmod")

const (
	rootMiB  = 2048
	hostname = "peer"
)

// Make puts the root together in dir, with this machine's sources of Debian.
func (d Debian) Make(ctx context.Context, dir string) (System, error) {
	base := filepath.Join(dir, d.Name+"-"+key(append([]string{kernel.Suite}, d.Packages...)...))
	s := System{Name: d.Name, About: d.About, Kernel: base + ".vmlinuz", Initrd: base + ".initrd",
		// A busy emulator takes longer than the 90 s that systemd waits for ttyS0.
		Cmdline: "root=/dev/vda rw console=tty0 console=ttyS0,115200n8 quiet loglevel=4 systemd.default_device_timeout_sec=1200",
		Args:    []string{"-drive", "if=none,id=root,format=raw,snapshot=on,file=" + base + ".ext4", "-device", "virtio-blk-pci,drive=root"},
		Prompt:  hostname + ` login: $`, Login: "root", Shell: `# $`}
	if made(s.Kernel, s.Initrd, base+".ext4") {
		return s, nil
	}
	if os.Getuid() != 0 {
		return s, errors.New("mmdebstrap makes a root file system: run it as root")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return s, fmt.Errorf("install Debian's package mmdebstrap: %w", err)
	}
	sources, err := debian.MachineSources(kernel.Suite)
	if err != nil {
		return s, err
	}
	return s, scratch(dir, func(tmp string) error {
		list, root := filepath.Join(tmp, "debian.sources"), filepath.Join(tmp, "root")
		if err := os.WriteFile(list, sources, 0o644); err != nil {
			return err
		}
		_, err := run(ctx, tmp, nil, "mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--include="+strings.Join(d.Packages, ","),
			"--aptopt=APT::Install-Recommends \"false\"", "--customize-hook=echo "+hostname+" > \"$1/etc/hostname\"", "--customize-hook=chroot \"$1\" passwd -d root",
			kernel.Suite, root, list)
		if err != nil {
			return err
		}
		if _, err := run(ctx, tmp, nil, "mke2fs", "-q", "-t", "ext4", "-d", root, base+".part", fmt.Sprintf("%dM", rootMiB)); err != nil {
			return err
		}
		if err := os.Rename(base+".part", base+".ext4"); err != nil {
			return err
		}
		for pattern, to := range map[string]string{"vmlinuz-*": s.Kernel, "initrd.img-*": s.Initrd} {
			found, err := filepath.Glob(filepath.Join(root, "boot", pattern))
			if err != nil || len(found) != 1 {
				return fmt.Errorf("%d files are boot/%s: %w", len(found), pattern, err)
			}
			b, err := os.ReadFile(found[0])
			if err == nil {
				err = os.WriteFile(to, b, 0o644)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}
