// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// TestDemoPortTaken: the message is of zos ledger demo and its flags, not of
// the validator that it would have started, and nothing was made.
func TestDemoPortTaken(t *testing.T) {
	t.Setenv("ZOS_TEST_RUN", "1") // a validator that is started all the same is one, and not these tests again
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "demo")
	_, errs := zos(t, exitFailed, "ledger", "demo", "--port", port, "--dir", dir)
	contains(t, errs, "127.0.0.1:"+port, "not free", "--port")
	if strings.Contains(errs, "--listen") || strings.Contains(errs, "{") {
		t.Errorf("speaks of what it started: %s", errs)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a ledger was made all the same: %v", err)
	}
}

func TestDemoPortRange(t *testing.T) {
	t.Setenv("ZOS_TEST_RUN", "1") // a validator that is started all the same is one, and not these tests again
	for _, c := range []struct{ validators, port int }{{1, -1}, {1, 65536}, {4, 65533}} {
		_, errs := zos(t, exitUsage, "ledger", "demo", "--validators", strconv.Itoa(c.validators), "--port", strconv.Itoa(c.port))
		contains(t, errs, "--port is "+strconv.Itoa(c.port))
	}
}

// TestChildSays: logs go on, in whole lines; the error is kept.
func TestChildSays(t *testing.T) {
	var out bytes.Buffer
	c := &childSays{to: &out}
	for _, part := range []string{"level=INFO msg=one\nlevel=IN", "FO msg=two\n{\"error\":\"disk", " full\",\"exit\":1}\n", "{\"other\":1}\n"} {
		if n, err := c.Write([]byte(part)); err != nil || n != len(part) {
			t.Fatal(n, err)
		}
	}
	if got := out.String(); got != "level=INFO msg=one\nlevel=INFO msg=two\n{\"other\":1}\n" {
		t.Errorf("%q", got)
	}
	ended := errors.New("exit status 1")
	if err := c.reason(ended); !errors.Is(err, ended) || err.Error() != "disk full (exit status 1)" {
		t.Errorf("%v", err)
	}
	if err := c.reason(nil); err != nil {
		t.Errorf("ended in order: %v", err)
	}
	if err := (&childSays{}).reason(ended); err != ended {
		t.Errorf("said nothing: %v", err)
	}
}
