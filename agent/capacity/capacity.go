// SPDX-License-Identifier: Apache-2.0

// Package capacity measures what a node can give to guests.
//
// Everything lives in memory here: the guests, and the tmpfs with images and
// volumes. What is there when the node is up and empty is divided once: a
// reserve for the node, a part for storage, the rest for guests. The division
// is kept, so that an agent that starts while guests run offers the same.
package capacity

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

const (
	mib = 1 << 20
	// reserveMiB stays with the node: agent, init and kernel at work.
	reserveMiB = 128
	// storagePart of what is left is for images and volumes.
	storagePart = 3
	// vmmPart of the guests' memory is for their hypervisors' own need.
	vmmPart = 8
	kvmPath = "/dev/kvm"
)

// Division is how the node's memory is used.
type Division struct {
	MemoryMiB  int64 `json:"memoryMiB"`
	StorageMiB int64 `json:"storageMiB"`
}

// Divide divides what is available on an empty node; tmpfs is what the file
// system for storage can hold at most.
func Divide(availableMiB, tmpfsMiB int64) Division {
	usable := max(availableMiB-reserveMiB, 0)
	storage := min(usable/storagePart, tmpfsMiB)
	guests := usable - storage
	return Division{MemoryMiB: guests - guests/vmmPart, StorageMiB: storage}
}

// Load gives the division of this boot: the one at path, or one measured now.
func Load(path, tmpfs string) (Division, error) {
	var d Division
	b, err := os.ReadFile(path)
	if err == nil {
		if err := json.Unmarshal(b, &d); err != nil {
			return d, fmt.Errorf("capacity: %w", err)
		}
		return d, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return d, fmt.Errorf("capacity: %w", err)
	}
	available, err := AvailableMiB()
	if err != nil {
		return d, err
	}
	var st unix.Statfs_t
	if err := unix.Statfs(tmpfs, &st); err != nil {
		return d, fmt.Errorf("capacity: size of %s: %w", tmpfs, err)
	}
	d = Divide(available, int64(st.Blocks)*st.Bsize/mib)
	if b, err = json.Marshal(d); err == nil {
		err = renameio.WriteFile(path, b, 0o600)
	}
	if err != nil {
		return d, fmt.Errorf("capacity: %w", err)
	}
	return d, nil
}

// AvailableMiB is what the kernel says could be used without swapping.
func AvailableMiB() (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("memory: %w", err)
	}
	kib, err := field(f, "MemAvailable:")
	if err := errors.Join(err, f.Close()); err != nil {
		return 0, fmt.Errorf("memory: %w", err)
	}
	return kib / 1024, nil
}

func field(r io.Reader, name string) (int64, error) {
	for scan := bufio.NewScanner(r); scan.Scan(); {
		if f := strings.Fields(scan.Text()); len(f) == 3 && f[0] == name && f[2] == "kB" {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s", name)
}

// Free tells how much of the division's storage, in MiB, is left in a tmpfs.
// volumes is the folder of the volumes there: what they may still grow to is
// taken, although the tmpfs does not know it yet.
func (d Division) Free(tmpfs, volumes string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(tmpfs, &st); err != nil {
		return 0, fmt.Errorf("storage: %s: %w", tmpfs, err)
	}
	grow, err := holes(volumes)
	if err != nil {
		return 0, err
	}
	used := (int64(st.Blocks-st.Bfree)*st.Bsize + grow) / mib
	return max(d.StorageMiB-used, 0), nil
}

// holes is how many bytes the files below a folder do not take up yet.
func holes(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // there is none yet, or it is gone by now
		}
		if err != nil || e.IsDir() {
			return err
		}
		const block = 512
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); errors.Is(err, fs.ErrNotExist) {
			return nil
		} else if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		sum += max(st.Size-st.Blocks*block, 0)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("volumes: %w", err)
	}
	return sum, nil
}

// KVM says why guests cannot run here, nil when they can.
func KVM() error {
	f, err := os.OpenFile(kvmPath, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("no hardware virtualisation: %w", err)
	}
	return f.Close()
}

// Arch is the machine's, as specs name it.
func Arch() string { return runtime.GOARCH }

// vcpusPerCPU is how many virtual processors share one of the machine's:
// guests are rarely all busy. Memory is never given away twice.
const vcpusPerCPU = 2

// VCPUs is how many virtual processors the node offers.
func VCPUs() int64 { return vcpusPerCPU * int64(runtime.NumCPU()) }
