// SPDX-License-Identifier: Apache-2.0

package trial

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestBegun(t *testing.T) {
	dir := t.TempDir()
	if Begun(dir) || Begun(filepath.Join(dir, "none")) {
		t.Error("a trial without the loader's variable")
	}
	if err := os.WriteFile(filepath.Join(dir, counted), []byte("\x06\x00\x00\x00\\\x00"), 0o600); err != nil {
		t.Fatal(err)
	}
	if !Begun(dir) {
		t.Error("no trial")
	}
}

func TestOver(t *testing.T) {
	for _, c := range []struct {
		starts int
		since  time.Duration
		says   string
	}{
		{0, 0, ""}, {1, time.Minute, ""}, {Starts, Limit, ""}, {Starts + 1, time.Minute, "ended 5 times"}, {1, Limit + 1, "no verdict after 15m"},
	} {
		if why := Over(c.starts, c.since); (why == "") != (c.says == "") || !strings.Contains(why, c.says) {
			t.Errorf("%d starts, %s: %q", c.starts, c.since, why)
		}
	}
}
