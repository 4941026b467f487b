// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/sign"
)

// TestNoDisk: a machine without any disk boots by HTTP, enrols with the seed
// from its SMBIOS, and offers what it has on a real ledger: a full node, from
// memory alone.
func TestNoDisk(t *testing.T) {
	if !all() {
		t.Skip("SKIP here, part of make test-boot")
	}
	l := newOnline(t, "1")
	zos, p, root, url, port := l.zos, l.file, l.root, l.url, l.port
	zos("node", "seed", "--name", "ram", "--ledger", "http://10.0.2.2:"+port, "--voucher", p("voucher.json"), "-o", p("seed.json"))
	text, err := os.ReadFile(p("seed.json"))
	if err != nil {
		t.Fatal(err)
	}

	r := request(t, "vm-x86_64", p("image"))
	r.Seed, r.Hypervisor = nil, image.FindHypervisor
	if r.Root, err = os.ReadFile(root); err != nil {
		t.Fatal(err)
	}
	if _, err := image.Build(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	http, _ := serve(t, filepath.Join(r.Out, image.NetbootDir))
	m := start(t, qemu.Options{
		SMBIOS: []string{seed.SMBIOSPrefix + base64.StdEncoding.EncodeToString(text)},
		UEFI: &qemu.UEFI{Net: &qemu.NetBoot{}, Vars: func() (qemu.Vars, error) {
			return qemu.BootURL(fmt.Sprintf("http://10.0.2.2:%d/%s", http, image.NetbootUKI)), nil
		}},
	})
	says(t, m, `msg="following the ledger"`)
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Second) {
		var nodes []struct {
			Name     string
			Capacity *struct{ MemoryMiB int64 }
		}
		out := zos("node", "capacity", "--ledger", url, "--root", root, "--json")
		if err := json.Unmarshal(out, &nodes); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if len(nodes) == 1 && nodes[0].Name == "ram" && nodes[0].Capacity != nil {
			t.Logf("a node without a disk boots by HTTP, enrols, and offers %d MiB", nodes[0].Capacity.MemoryMiB)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the ledger knows %s", out)
		}
	}
}

// online is a ledger in a process of its own, with keys and a voucher.
type online struct {
	t                    *testing.T
	dir, tool, root, url string
	port                 string // of url: the machine reaches it at 10.0.2.2
}

func (l *online) file(name string) string { return filepath.Join(l.dir, name) }

// zos runs the tool and wants success.
func (l *online) zos(args ...string) []byte {
	l.t.Helper()
	out, err := exec.Command(l.tool, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		l.t.Fatalf("zos %v: %v", args, err)
	}
	return out
}

// newOnline starts one whose voucher is good for so many enrolments.
func newOnline(t *testing.T, uses string) *online {
	t.Helper()
	l := &online{t: t, dir: t.TempDir()}
	l.tool = l.file("zos")
	if out, err := exec.Command("go", "build", "-o", l.tool, "../../cmd/zos").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	p := l.file
	for _, k := range []string{"root", "author", "operator", "release"} {
		s, secret, err := sign.GenerateSigner()
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{k: secret, k + ".pub": []byte(s.PublicKey() + "\n")} {
			if err := os.WriteFile(p(name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	l.zos("ledger", "init", p("ledger"), "--origin", "zos.example/rig", "--role", "root="+p("root.pub")+":1", "--role", "author="+p("author.pub")+":1",
		"--role", "operator="+p("operator.pub")+":1", "--role", "release="+p("release.pub")+":1", "--require", "deployment=author", "--require", "stop=author", "--root-key", p("root"))
	l.root = filepath.Join(p("ledger"), "root.json")
	l.zos("ledger", "voucher", "--key", p("operator"), "--root", l.root, "--uses", uses, "-o", p("voucher.json"))
	l.url = serveLedger(t, l.tool, p("ledger"))
	l.port = regexp.MustCompile(`\d+$`).FindString(l.url)
	return l
}

var listening = regexp.MustCompile(`(http://127\.0\.0\.1:\d+)`)

// serveLedger runs a ledger in its own process.
func serveLedger(t *testing.T, tool, dir string) string {
	t.Helper()
	cmd := exec.Command(tool, "ledger", "serve", dir, "--listen", "127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("end the ledger: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the ledger ended: %v", err)
		}
	})
	url := make(chan string, 1)
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if m := listening.FindStringSubmatch(scan.Text()); m != nil {
				select {
				case url <- m[1]:
				default:
				}
			}
		}
	}()
	select {
	case u := <-url:
		return u
	case <-time.After(2 * time.Minute):
		t.Fatal("the ledger is not ready")
		return ""
	}
}
