// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/sign"
)

const (
	repo = "../.."
	// limit of one wait: an emulated machine is slow, a hung one is found out.
	limit = 6 * time.Minute
	// armLimit is for arm64's firmware, which is emulated, and for which a
	// processor that others use as well takes minutes.
	armLimit = 20 * time.Minute
)

// all says whether the whole table is wanted.
func all() bool { return os.Getenv("ZOS_BOOT") == "all" }

// built keeps what a board's image is made of; tests of a run share it.
var built struct {
	sync.Mutex
	dir map[string]string
	res map[string]image.Result
}

// images builds a board's media and returns their folder.
func images(t *testing.T, board string) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if d, ok := built.dir[board]; ok {
		return d
	}
	out, err := filepath.Abs(filepath.Join(repo, "build/test/media", board))
	if err != nil {
		t.Fatal(err)
	}
	res, err := image.Build(context.Background(), request(t, board, out))
	if err != nil {
		t.Fatal(err)
	}
	if built.dir == nil {
		built.dir, built.res = map[string]string{}, map[string]image.Result{}
	}
	built.dir[board], built.res[board] = out, res
	return out
}

func request(t *testing.T, board, out string) image.Request {
	t.Helper()
	b, err := boards.Load(board)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	parts, err := kernel.Open(kernel.Options{
		Cache: filepath.Join(repo, "build/cache/debian"), Lock: filepath.Join(repo, "kernel/debian.lock"),
		WorkLock: filepath.Join(repo, "build/debian.lock"), Arch: b.Arch, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return image.Request{
		Board: b, Source: repo, Parts: parts, Root: ledgertest.New(t).RootEnv, Seed: seedBytes(t),
		Out: out, Guest: filepath.Join(out, "guest"), Log: log,
		// These tests start no guests: without a hypervisor nothing has to be fetched.
		Hypervisor: func(context.Context, *kernel.Source) (kernel.Hypervisor, error) {
			return kernel.Hypervisor{Name: "cloud-hypervisor", Version: "none", Source: "local"}, nil
		},
	}
}

// seedOnce: every image of a run has the same seed.
var seedOnce = sync.OnceValues(func() ([]byte, error) {
	signer, secret, err := sign.GenerateSigner()
	if err != nil {
		return nil, err
	}
	env := sign.Envelope{PayloadType: "application/vnd.zos.voucher.v1+json", Payload: []byte("{}"), Signatures: []sign.Signature{}}
	if err := env.Add(signer); err != nil {
		return nil, err
	}
	s := seed.Seed{
		APIVersion: seed.Version, Kind: "Seed", Name: "boot", Ledger: []string{"http://10.0.2.2:9"}, Mirrors: []string{},
		Voucher: env, VoucherKey: string(secret), Networks: []seed.Network{seed.Automatic()}, Recovery: []string{},
	}
	return s.Encode()
})

func seedBytes(t *testing.T) []byte {
	t.Helper()
	b, err := seedOnce()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func smbios(t *testing.T) []string {
	return []string{seed.SMBIOSPrefix + base64.StdEncoding.EncodeToString(seedBytes(t))}
}

// serve hands a folder out by HTTP on loopback, which the machine sees at
// 10.0.2.2, and tells which paths were asked for.
func serve(t *testing.T, dir string) (port int, asked func(path string) int) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	count := map[string]int{}
	files := http.FileServer(http.Dir(dir))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet {
			mu.Lock()
			count[r.URL.Path]++
			mu.Unlock()
		}
		files.ServeHTTP(w, r)
	})}
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return l.Addr().(*net.TCPAddr).Port, func(path string) int {
		mu.Lock()
		defer mu.Unlock()
		return count[path]
	}
}

// limitOf is the limit of one wait for a machine.
func limitOf(arch string) time.Duration {
	if arch == "arm64" {
		return armLimit
	}
	return limit
}

// start boots a machine and ends it with the test.
func start(t *testing.T, o qemu.Options) *qemu.Machine {
	t.Helper()
	if o.Arch == "arm64" {
		o.Accel = qemu.ArmTCG
	} else if o.Accel.Name == "" {
		o.Accel = qemu.Probe(context.Background(), qemu.Binary)
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 1024
	}
	o.Log = consoleLog(t)
	m, err := qemu.Start(o)
	if err != nil {
		if errors.Is(err, qemu.ErrFirmware) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, exec.ErrNotFound) {
			t.Skipf("SKIP %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("end of the console:\n%s", m.Console.Tail(60))
		}
	})
	return m
}

// consoleLog is a file that outlives the test.
func consoleLog(t *testing.T) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '-'
		}
		return r
	}, t.Name())
	p := filepath.Join(repo, "build/test/media", name+".log")
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	return p
}

// says waits for a line.
func says(t *testing.T, m *qemu.Machine, pattern string) []string {
	t.Helper()
	return saysWithin(t, m, limit, pattern)
}

// saysWithin is says with another limit.
func saysWithin(t *testing.T, m *qemu.Machine, limit time.Duration, pattern string) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	_, groups, _, err := m.Console.Expect(ctx, 0, regexp.MustCompile(pattern))
	if err != nil {
		t.Fatal(err)
	}
	return groups
}

// seedFrom is the agent's line about its seed.
func seedFrom(where string) string { return fmt.Sprintf(`msg=seed .*from="?%s`, where) }
