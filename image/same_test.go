// SPDX-License-Identifier: Apache-2.0

package image

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image/secureboot"
	"github.com/zos-node/zos/kernel"
)

// TestSameFromTwoPlaces builds every medium twice, from copies of the source
// in two folders, with two umasks, and with files of two dates: of one board
// here, of all with their hypervisor and firmware by make test-boot.
func TestSameFromTwoPlaces(t *testing.T) {
	if _, err := parts(t).EFI(context.Background()); err != nil {
		t.Skipf("SKIP build of whole images: %v", err)
	}
	stub := func(context.Context, *kernel.Source) (kernel.Hypervisor, error) {
		return kernel.Hypervisor{Name: "cloud-hypervisor", Source: "local"}, nil
	}
	if os.Getenv("ZOS_BOOT") != "all" {
		sameFromTwoPlaces(t, "qemu-x86_64", stub)
		return
	}
	all, err := boards.Names()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range all {
		t.Run(name, func(t *testing.T) {
			find := FindHypervisor
			if b, err := boards.Load(name); err != nil {
				t.Fatal(err)
			} else if _, err := FindHypervisor(context.Background(), partsOf(t, b.Arch)); err != nil {
				t.Logf("SKIP the hypervisor of %s, an empty one instead: %v", b.Arch, err)
				find = stub
			}
			sameFromTwoPlaces(t, name, find)
		})
	}
}

func sameFromTwoPlaces(t *testing.T, name string, hypervisor func(context.Context, *kernel.Source) (kernel.Hypervisor, error)) {
	board, err := boards.Load(name)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	keys, err := secureboot.Generate("test", at)
	if err != nil {
		t.Fatal(err)
	}
	auth, err := keys.Auth(at)
	if err != nil {
		t.Fatal(err)
	}
	var out string // of the last build
	build := func(umask int, date time.Time) Result {
		old := syscall.Umask(umask)
		defer syscall.Umask(old)
		dir := filepath.Join(t.TempDir(), fmt.Sprintf("source-%o", umask))
		copySource(t, dir, date)
		out = filepath.Join(dir, "out")
		res, err := Build(context.Background(), Request{
			Board: board, Source: dir, Parts: partsOf(t, board.Arch), Root: []byte("root"), Seed: []byte("seed"), Keys: &secureboot.Signer{DB: keys.DB, PCR: keys.PCR, Auth: auth},
			Out: out, Guest: filepath.Join(dir, "guest"), Log: slog.New(slog.DiscardHandler),
			Hypervisor: hypervisor,
		})
		if err != nil {
			t.Fatal(err)
		}
		res.TookMs = nil
		return res
	}
	one := build(0o022, at)
	two := build(0o077, at.AddDate(-9, 3, 2))
	for name, a := range one.Files {
		if b := two.Files[name]; a != b {
			t.Errorf("%s: %+v and %+v", name, a, b)
		}
	}
	if !reflect.DeepEqual(one, two) {
		t.Errorf("not the same twice:\n%+v\n%+v", one, two)
	}
	for _, medium := range []string{MediumUKI, MediumDisk, MediumDisk4K, MediumISO, filepath.Join(NetbootDir, NetbootUKI), filepath.Join(NetbootDir, "boot.ipxe")} {
		if one.Files[medium].Size == 0 {
			t.Errorf("no %s was built", medium)
		}
	}
	if one.Files[MediumUKI] != one.Files[filepath.Join(NetbootDir, NetbootUKI)] {
		t.Error("netboot hands out another UKI")
	}
	judgeBuilt(t, out, one.Version)
	judgeBudget(t, name, out)
}

// copySource copies what git knows of our module.
func copySource(t *testing.T, dir string, date time.Time) {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-co", "--exclude-standard")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("SKIP copy of the source: git ls-files: %v", err)
	}
	for _, name := range strings.Fields(string(out)) {
		b, err := os.ReadFile(filepath.Join("..", name))
		if err != nil {
			if os.IsNotExist(err) {
				continue // deleted, not yet committed
			}
			t.Fatal(err)
		}
		to := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, fs.FileMode(0o666)); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(to, date, date); err != nil {
			t.Fatal(err)
		}
	}
}
