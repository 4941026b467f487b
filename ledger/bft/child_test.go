// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec/strict"
)

// TestMain is also the server that tests kill: a process of its own, or
// kill -9 would prove nothing.
func TestMain(m *testing.M) {
	if dir := os.Getenv("ZOS_TEST_FILES"); dir != "" {
		fmt.Fprintln(os.Stderr, files(dir, os.Getenv("ZOS_TEST_LISTEN")))
		os.Exit(1)
	}
	if dir := os.Getenv("ZOS_TEST_LEDGER"); dir != "" {
		if kind, ok := strings.CutPrefix(os.Getenv("ZOS_TEST_POWER"), "on "); ok {
			if err := holdDisk(dir, kind); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			return
		}
		if size := os.Getenv("ZOS_TEST_DISK"); size != "" {
			fmt.Fprintln(os.Stderr, supervise(dir, size))
			os.Exit(1)
		}
		if err := child(dir, os.Getenv("ZOS_TEST_CRASH"), os.Getenv("ZOS_TEST_BAD")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child serves until it is killed, or kills itself the n-th time it gets to a
// step ("checkpoint:3"). bad makes it a dishonest or a sick one: "mute" keeps
// its cosignatures for itself, "liar" tells the others rubbish and signatures
// of trees that are not, "clock:DURATION" has a clock that is off. "quota:RATE"
// is honest and gives each key so many entries a second, and twice that at once.
func child(dir, crash, bad string) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	step, times, _ := strings.Cut(crash, ":")
	left, err := strconv.Atoi(times)
	if err != nil && crash != "" {
		return err
	}
	o := Options{Log: log, step: func(s string) {
		if s != step {
			return
		}
		if left--; left == 0 {
			if err := syscall.Kill(os.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {}
		}
	}}
	if off, ok := strings.CutPrefix(bad, "clock:"); ok {
		d, err := time.ParseDuration(off)
		if err != nil {
			return err
		}
		o.now = func() time.Time { return time.Now().Add(d) }
	}
	o.mute = bad == "mute"
	if rate, ok := strings.CutPrefix(bad, "quota:"); ok {
		if o.Quota.Rate, err = strconv.ParseFloat(rate, 64); err != nil {
			return err
		}
		o.Quota.Burst = 2 * o.Quota.Rate
	}
	if size := os.Getenv("ZOS_TEST_RESERVE"); size != "" {
		if o.Reserve, err = strconv.ParseInt(size, 10, 64); err != nil {
			return err
		}
	}
	o.Reserve = cmp.Or(o.Reserve, -1)
	e, err := Open(context.Background(), dir, o)
	if err != nil {
		return err
	}
	if bad == "liar" {
		go lie(e)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	log.Info("runs", "version", os.Getenv("ZOS_TEST_VERSION"))
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	go func() {
		select {
		case <-e.Failed():
			fmt.Fprintln(os.Stderr, e.Health())
			os.Exit(1)
		case <-stop:
			if err := e.Close(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		}
	}()
	fmt.Println("http://" + l.Addr().String())
	return ledger.NewServer(ledger.Handler(LogDir(dir), e, log)).Serve(l)
}

// files serves a log's files and takes nothing, as a mirror does.
func files(dir, listen string) error {
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return err
	}
	return ledger.NewServer(ledger.Handler(tiles.Dir(dir), nil, slog.New(slog.DiscardHandler))).Serve(l)
}

// lie tells the others what is not so, often.
func lie(e *Engine) {
	for n := int64(0); ; n++ {
		time.Sleep(20 * time.Millisecond)
		e.mesh.broadcast(func() []byte { return []byte("no statement") })
		own, ok := e.app.cosign.own()
		if !ok {
			continue
		}
		t := tlog.Tree{N: own.Size + n%3, Hash: tlog.RecordHash([]byte(strconv.FormatInt(n, 10)))}
		lines, err := e.app.cosign.signers.Lines(e.app.cosign.origin, t)
		if err != nil {
			panic(err)
		}
		// Its signature of one tree as if it were of another, and of a tree
		// that is not.
		for _, tree := range []string{own.Root, hex.EncodeToString(t.Hash[:])} {
			b, err := strict.Encode(statement{own.Size, tree, lines, lines})
			if err != nil {
				panic(err)
			}
			e.mesh.broadcast(func() []byte { return b })
		}
	}
}

// server is a running child.
type server struct {
	url string
	cmd *exec.Cmd
	out io.ReadCloser
	err *strings.Builder
	odd bool // it kills itself, is dishonest or is sick
}

// start runs a child on a ledger folder.
func start(t testing.TB, dir, crash string) *server { return startBad(t, dir, crash, "") }

func startBad(t testing.TB, dir, crash, bad string) *server {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return startExe(t, exe, dir, crash, bad, "1.0.0")
}

func startExe(t testing.TB, exe, dir, crash, bad, version string) *server {
	t.Helper()
	s := &server{cmd: exec.Command(exe), err: &strings.Builder{}, odd: crash != "" || bad != ""}
	s.cmd.Env = append(os.Environ(), "ZOS_TEST_LEDGER="+dir, "ZOS_TEST_CRASH="+crash, "ZOS_TEST_BAD="+bad, "ZOS_TEST_VERSION="+version)
	s.cmd.Stderr = s.err
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	if s.out, err = s.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.kill(t)
		if said := s.err.String(); t.Failed() {
			t.Logf("the server on %s said at last: %s", dir, said[max(0, len(said)-4000):])
		}
	})
	line, err := bufio.NewReader(s.out).ReadString('\n')
	if err != nil {
		s.kill(t)
		t.Fatalf("the server did not start: %v\n%s", err, s.err)
	}
	s.url = strings.TrimSpace(line)
	return s
}

// kill is kill -9, and waits until the process is gone.
func (s *server) kill(t testing.TB) {
	t.Helper()
	if s.cmd.ProcessState != nil {
		return
	}
	if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Error(err)
	}
	s.wait()
}

// wait returns when the process is gone, however it went.
func (s *server) wait() {
	if err := s.cmd.Wait(); err == nil {
		s.err.WriteString("the server ended by itself\n")
	}
}

// fresh makes a ledger folder whose policy has the keys of a test log.
func fresh(t testing.TB, lease ledger.LeasePolicy) (*ledgertest.Log, string) {
	t.Helper()
	l := ledgertest.New(t)
	root := l.Root
	root.Lease = lease
	dir := t.TempDir()
	if err := Init(dir, root, one, Mesh{}, []signer{l.Keys["root"]}, time.Now()); err != nil {
		t.Fatal(err)
	}
	return l, dir
}

// client opens a client of a ledger folder's root.
func client(t testing.TB, dir string, ledgers ...string) *ledger.Client {
	t.Helper()
	root, err := os.ReadFile(dir + "/root.json")
	if err != nil {
		t.Fatal(err)
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: ledgers, KeepEntries: true, HTTP: &http.Client{Timeout: 20 * time.Second}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}
