// SPDX-License-Identifier: Apache-2.0

package image

import (
	"fmt"
	"path"
	"strings"

	"github.com/zos-node/zos/image/fat32"
)

const (
	mib      = int64(1) << 20
	espLabel = "ZOS"
	volumeID = 0x7a6f7300
	seedPath = "/zos/seed.json"
	confPath = "/loader/loader.conf"
	keysDir  = "/loader/keys/auto" // systemd-boot enrols what it finds here
)

// Boot is what a boot partition holds, on every medium the same: systemd-boot
// under the name that firmware looks for, and the UKI where systemd-boot
// looks. The loader is there for what firmware cannot do: it enrols keys, and
// it counts the tries of a new UKI.
type Boot struct {
	Arch    string // Debian's and Go's name
	Version string
	Loader  []byte // systemd-boot
	UKI     []byte
	Seed    []byte            // nil: none
	Keys    map[string][]byte // PK.auth, KEK.auth, db.auth; nil: nothing is enrolled
}

// efiArch is the architecture in names of EFI programs.
func efiArch(arch string) (string, error) {
	for _, a := range [][2]string{{"amd64", "x64"}, {"arm64", "aa64"}} {
		if a[0] == arch {
			return a[1], nil
		}
	}
	return "", fmt.Errorf("architecture %q: UEFI names of amd64 and arm64 are known", arch)
}

// UKIPath is where the UKI stands on the boot partition.
func (b Boot) UKIPath() string { return "/EFI/Linux/zos-" + b.Version + ".efi" }

// loaderConf: no menu, nothing to type. Where keys are given, they are
// enrolled while the firmware is in setup mode, and never otherwise.
func (b Boot) loaderConf() []byte {
	text := "timeout 0\neditor no\nauto-entries no\nauto-firmware no\n"
	if b.Keys != nil {
		text += "secure-boot-enroll force\n"
	}
	return []byte(text)
}

func (b Boot) files() ([]fat32.File, error) {
	arch, err := efiArch(b.Arch)
	if err != nil {
		return nil, err
	}
	files := []fat32.File{
		{Path: "/EFI/BOOT/BOOT" + strings.ToUpper(arch) + ".EFI", Content: b.Loader},
		{Path: b.UKIPath(), Content: b.UKI},
		{Path: confPath, Content: b.loaderConf()},
	}
	if b.Seed != nil {
		files = append(files, fat32.File{Path: seedPath, Content: b.Seed})
	}
	for name, content := range b.Keys {
		files = append(files, fat32.File{Path: path.Join(keysDir, name), Content: content})
	}
	return files, nil
}
