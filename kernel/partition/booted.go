// SPDX-License-Identifier: Apache-2.0

package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"
)

// EFIVars is where the kernel shows the firmware's variables.
const EFIVars = "/sys/firmware/efi/efivars"

// loaderPartition is the variable of the Boot Loader Interface with the GUID of
// the partition that the loader was started from. It names no partition after a
// boot from the network or from an optical medium: it is not there then.
const loaderPartition = "LoaderDevicePartUUID-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// attributes are the bytes before a variable's data.
const attributes = 4

// Booted tells the GUID, in lower case, of the partition that this machine was
// started from, "" when it was from none.
func Booted(efivars string) (string, error) {
	b, err := os.ReadFile(filepath.Join(efivars, loaderPartition))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("boot partition: %w", err)
	}
	if len(b) < attributes || len(b)%2 != 0 {
		return "", fmt.Errorf("boot partition: the loader's variable has %d bytes", len(b))
	}
	var text []uint16
	for b = b[attributes:]; len(b) > 0; b = b[2:] {
		if c := binary.LittleEndian.Uint16(b); c != 0 {
			text = append(text, c)
		}
	}
	return strings.ToLower(string(utf16.Decode(text))), nil
}

// BootLabel is the name of zos's boot partitions in their tables.
const BootLabel = "zos ESP"

// ErrTwins says that two disks were written with one image: a boot partition's
// GUID is a digest of it.
var ErrTwins = errors.New("two disks carry the same node image")

// Own finds the boot partition of ours that this machine was started from, as
// Booted tells. After a boot from the network or from a medium without one,
// guid is "". While no disk has the partition (yet), device, a path below dev,
// is "": a disk inside is not it when the firmware says that it started from a
// USB stick (Started), nor the other way round. Of two it chooses none, and
// returns ErrTwins.
func Own(efivars, sys, dev string) (device, guid string, err error) {
	guid, err = Booted(efivars)
	if err != nil || guid == "" {
		return "", "", err
	}
	all, err := Named(sys, dev, BootLabel)
	if err != nil {
		return "", guid, err
	}
	var own []string
	for _, p := range all {
		if p.GUID == guid {
			own = append(own, p.Device)
		}
	}
	switch len(own) {
	case 0:
		return "", guid, nil
	case 1:
	default:
		return "", guid, fmt.Errorf("%w: %s on %s: take one away", ErrTwins, guid, strings.Join(own, " and "))
	}
	switch fits, err := Started(efivars).fits(sys, own[0]); {
	case errors.Is(err, fs.ErrNotExist): // it went away
		return "", guid, nil
	case err != nil:
		return "", guid, fmt.Errorf("look at disk %s: %w", own[0], err)
	case !fits:
		return "", guid, nil
	}
	return filepath.Join(dev, own[0]), guid, nil
}
