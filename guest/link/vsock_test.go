// SPDX-License-Identifier: Apache-2.0

package link

import (
	"errors"
	"os"
	"regexp"
	"runtime"
	"testing"
)

// TestUndisturbed: no signal reaches the thread that dials, and the mask is
// what it was afterwards.
func TestUndisturbed(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	blocked := func() string {
		b, err := os.ReadFile("/proc/thread-self/status")
		if err != nil {
			t.Fatal(err)
		}
		return regexp.MustCompile(`SigBlk:\s+([0-9a-f]+)`).FindStringSubmatch(string(b))[1]
	}
	before, sentinel := blocked(), errors.New("of the call")
	var during string
	if err := undisturbed(func() error { during = blocked(); return sentinel }); !errors.Is(err, sentinel) {
		t.Errorf("error %v", err)
	}
	// All but SIGKILL, SIGSTOP and what the C library keeps for itself can be blocked.
	if during != "fffffffffffbfeff" || before == during {
		t.Errorf("blocked %s, before %s", during, before)
	}
	if after := blocked(); after != before {
		t.Errorf("blocked %s afterwards, before %s", after, before)
	}
}
