// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bft

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger/ledgertest"
)

// reads compares our server with nginx on the same files. Each is a process of
// its own, so that its processor time can be told from that of the readers.
func (b *bench) reads(t *testing.T) {
	l := ledgertest.New(t)
	for i := range 20 {
		var block [][]byte
		for j := range 20 {
			block = append(block, l.Register(fmt.Sprintf("d%d-%d", i, j), 1, nil))
		}
		l.Must(block...)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "ZOS_TEST_FILES="+l.Dir, "ZOS_TEST_LISTEN="+port)
	ours, cpu := readsOf(t, cmd, port)
	rate := benchRow{What: "static reads, checkpoint and full tile", Value: ours, Unit: "requests/s", Goal: ">= 0.8 x"}
	cost := benchRow{What: "static reads, server's processor time", Value: cpu, Unit: "us"}
	nginx := os.Getenv("ZOS_NGINX")
	if nginx == "" {
		nginx, _ = exec.LookPath("nginx")
	}
	if nginx == "" {
		rate.Note = "nginx is not installed (ZOS_NGINX=/path/to/nginx names one): not compared"
		b.add(rate)
		b.add(cost)
		return
	}
	dir := t.TempDir()
	port = freePort(t)
	conf := fmt.Sprintf("daemon off; pid %[1]s/pid; error_log %[1]s/error; worker_processes 2; events {} http { access_log off; client_body_temp_path %[1]s/a; proxy_temp_path %[1]s/b; fastcgi_temp_path %[1]s/c; uwsgi_temp_path %[1]s/d; scgi_temp_path %[1]s/e; keepalive_requests 1000000; server { listen %[2]s; root %[3]s; } }\n", dir, port, l.Dir)
	if err := os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{l.Dir, filepath.Dir(l.Dir), filepath.Dir(filepath.Dir(l.Dir))} {
		_ = os.Chmod(d, 0o755) // nginx's workers read as somebody else
	}
	rate.Anchor, cost.Anchor = readsOf(t, exec.Command(nginx, "-c", filepath.Join(dir, "nginx.conf"), "-p", dir, "-e", filepath.Join(dir, "error")), port)
	rate.Met, rate.Note = yes(ours >= 0.8*rate.Anchor), "load generator on the same processors; anchor: nginx"
	cost.Note = "per request; of the process and its workers"
	b.add(rate)
	b.add(cost)
}

// readsOf starts a server and reads from it for 4 s: requests per second, and
// microseconds of its processor time for each.
func readsOf(t *testing.T, cmd *exec.Cmd, address string) (perSecond, cpu float64) {
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64}}
	waitFor(t, "the server", func() bool {
		resp, err := web.Get("http://" + address + "/checkpoint")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	var done atomic.Int64
	var all sync.WaitGroup
	begin := time.Now()
	for range 32 {
		all.Go(func() {
			buf := make([]byte, 1<<16)
			for time.Since(begin) < 4*time.Second {
				for _, path := range []string{"/checkpoint", "/tile/0/000"} {
					resp, err := web.Get("http://" + address + path)
					if err != nil {
						t.Error(err)
						return
					}
					for err == nil {
						_, err = resp.Body.Read(buf)
					}
					resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						t.Errorf("%s: %s", path, resp.Status)
						return
					}
					done.Add(1)
				}
			}
		})
	}
	all.Wait()
	perSecond = float64(done.Load()) / time.Since(begin).Seconds()
	web.CloseIdleConnections()
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was ended
	return perSecond, float64((cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Microseconds()) / float64(done.Load())
}
