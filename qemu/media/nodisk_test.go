// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
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
	dir := t.TempDir()
	tool := filepath.Join(dir, "zos")
	if out, err := exec.Command("go", "build", "-o", tool, "../../cmd/zos").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	zos := func(args ...string) []byte {
		t.Helper()
		out, err := exec.Command(tool, args...).Output()
		if err != nil {
			t.Fatalf("zos %v: %v", args, err)
		}
		return out
	}
	p := func(name string) string { return filepath.Join(dir, name) }
	for _, k := range []string{"root", "author", "operator"} {
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
	zos("ledger", "init", p("ledger"), "--origin", "zos.example/nodisk", "--role", "root="+p("root.pub")+":1", "--role", "author="+p("author.pub")+":1",
		"--role", "operator="+p("operator.pub")+":1", "--require", "root=root", "--require", "deployment=author", "--require", "stop=author",
		"--require", "voucher=operator", "--root-key", p("root"))
	root := filepath.Join(p("ledger"), "root.json")
	zos("ledger", "voucher", "--key", p("operator"), "--root", root, "--uses", "1", "-o", p("voucher.json"))
	url := serveLedger(t, tool, p("ledger"))
	port := regexp.MustCompile(`\d+$`).FindString(url)
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
