// SPDX-License-Identifier: Apache-2.0

// Package ledgerproc runs a ledger for the machines of a test: keys, a trust
// root, a voucher, and zos ledger serve as a process of its own on loopback,
// which machines of the rig see at Gateway. All of it is made and used by the
// operator's tool, built from this source.
package ledgerproc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/sign"
)

// Gateway is this machine, as one with QEMU's user network sees it.
const Gateway = "10.0.2.2"

// Label is what the voucher gives its nodes.
const Label = "site=rig"

// readyLimit is how long the process may take until it serves.
const readyLimit = 5 * time.Minute

// Ledger is one that serves until the test ends.
type Ledger struct {
	Tool    string // the program zos
	Root    string // file of the trust root
	Voucher string // file of a voucher
	URL     string // on this machine

	t   *testing.T
	dir string
}

// roles of a ledger; each has one key, in a file of that name.
var roles = []string{"root", "author", "operator", "release"}

// Start makes a ledger whose voucher is good for so many enrolments. The keys
// root, author, operator and release are the files of these names (File), their
// public halves end in .pub.
func Start(t *testing.T, origin string, uses int) *Ledger {
	t.Helper()
	l := &Ledger{t: t, dir: t.TempDir()}
	l.Tool = l.File("zos")
	if out, err := exec.Command("go", "build", "-o", l.Tool, "github.com/zos-node/zos/cmd/zos").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	args := []string{"ledger", "init", l.File("ledger"), "--origin", origin, "--root-key", l.File("root"), "--require", "deployment=author", "--require", "stop=author"}
	for _, r := range roles {
		s, secret, err := sign.GenerateSigner()
		if err != nil {
			t.Fatal(err)
		}
		l.Write(r, secret)
		l.Write(r+".pub", []byte(s.PublicKey()+"\n"))
		args = append(args, "--role", r+"="+l.File(r+".pub")+":1")
	}
	l.Zos(args...)
	l.Root, l.Voucher = filepath.Join(l.File("ledger"), "root.json"), l.File("voucher.json")
	l.Zos("ledger", "voucher", "--key", l.File("operator"), "--root", l.Root, "--uses", strconv.Itoa(uses), "--label", Label, "-o", l.Voucher)
	l.URL = Serve(t, l.Tool, l.File("ledger"))
	return l
}

// File is the path of one of the ledger's, or of a test's own beside them.
func (l *Ledger) File(name string) string { return filepath.Join(l.dir, name) }

// Write makes a file for nobody else to read.
func (l *Ledger) Write(name string, content []byte) {
	l.t.Helper()
	if err := os.WriteFile(l.File(name), content, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

// Zos runs the tool, wants success, and returns what it printed.
func (l *Ledger) Zos(args ...string) []byte {
	l.t.Helper()
	out, err := exec.Command(l.Tool, args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		l.t.Fatalf("zos %v: %v", args, err)
	}
	return out
}

// Inside is the ledger's address as machines see it.
func (l *Ledger) Inside() string { return strings.Replace(l.URL, "127.0.0.1", Gateway, 1) }

// Seed makes a node's seed with the ledger's voucher. more are further flags of
// zos node seed.
func (l *Ledger) Seed(name string, more ...string) []byte {
	l.t.Helper()
	out := l.File(name + ".seed")
	l.Zos(append([]string{"node", "seed", "--name", name, "--ledger", l.Inside(), "--voucher", l.Voucher, "-o", out, "--replace"}, more...)...)
	b, err := os.ReadFile(out)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// RootEnvelope is the trust root, as images carry it.
func (l *Ledger) RootEnvelope() []byte {
	l.t.Helper()
	b, err := os.ReadFile(l.Root)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

var listening = regexp.MustCompile(`(http://127\.0\.0\.1:\d+)`)

// Serve runs zos ledger serve on a folder, on a free port of loopback, and ends
// it in order with the test. What it complains of is told when it fails.
func Serve(t *testing.T, tool, dir string) (url string) {
	t.Helper()
	cmd := exec.Command(tool, "ledger", "serve", dir, "--listen", "127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	log, err := os.Create(filepath.Join(t.TempDir(), "ledger.log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	said := make(chan string, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(said)
		told := false
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if m := listening.FindString(scan.Text()); m != "" && !told {
				told = true
				said <- m
			}
		}
	}()
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("end the ledger: %v", err)
		}
		<-read // Wait closes what is read from
		if err := errors.Join(cmd.Wait(), log.Close()); err != nil {
			t.Errorf("the ledger ended: %v\n%s", err, complaints(log.Name()))
		}
	})
	select {
	case url = <-said:
	case <-time.After(readyLimit):
	}
	if url == "" {
		t.Fatalf("the ledger does not serve\n%s", complaints(log.Name()))
	}
	return url
}

func complaints(file string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	return string(b)
}
