// SPDX-License-Identifier: Apache-2.0

package reap

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The test program is its own child: it exits with a code, or leaves an
// orphan behind.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv("REAP_EXIT") != "":
		code, err := strconv.Atoi(os.Getenv("REAP_EXIT"))
		if err != nil {
			code = 99
		}
		os.Exit(code)
	case os.Getenv("REAP_ORPHAN") != "":
		attr := &syscall.ProcAttr{Env: []string{"REAP_EXIT=7"}}
		if _, err := syscall.ForkExec("/proc/self/exe", []string{"orphan"}, attr); err != nil {
			os.Exit(98)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func TestReaper(t *testing.T) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	orphans := make(chan Status, 10)
	r := New(func(s Status) { orphans <- s })
	sig := make(chan os.Signal, 8)
	signal.Notify(sig, syscall.SIGCHLD)
	go r.Run(sig, func(err error) { t.Error(err) })

	// Children that end at once: none of their statuses may get lost.
	for i := range 40 {
		pid, end, err := r.Start("/proc/self/exe", []string{"child"}, &syscall.ProcAttr{Env: []string{"REAP_EXIT=" + strconv.Itoa(i)}})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-end:
			if s.PID != pid || s.Status.ExitStatus() != i {
				t.Fatalf("child %d of pid %d: %+v", i, pid, s)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("the end of child %d was lost", i)
		}
	}
	_, end, err := r.Start("/proc/self/exe", []string{"parent"}, &syscall.ProcAttr{Env: []string{"REAP_ORPHAN=1"}})
	if err != nil {
		t.Fatal(err)
	}
	<-end
	select {
	case s := <-orphans:
		if s.Status.ExitStatus() != 7 {
			t.Errorf("orphan: %s", s)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the orphan was not collected")
	}
}
