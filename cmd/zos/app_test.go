// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
)

func TestUnknownCommands(t *testing.T) {
	for _, args := range []string{"bogus", "ledger bogus", "image verfiy x", "node start"} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(args), &out, &errs); code != exitUsage || !strings.Contains(errs.String(), "there is no command") {
			t.Errorf("zos %s: exit %d, %q, %q", args, code, out.String(), errs.String())
		}
	}
	for _, args := range []string{"ledger", "image", "node", "--help"} {
		var out, errs bytes.Buffer
		if code := run(context.Background(), strings.Fields(args), &out, &errs); code != exitOK || !strings.Contains(out.String(), "Usage:") {
			t.Errorf("zos %s: exit %d, %q, %q", args, code, out.String(), errs.String())
		}
	}
}

func TestHarmless(t *testing.T) {
	if got := harmless("a\x1b[2Jb\r\n7: forged"); got != "a·[2Jb· | 7: forged" {
		t.Errorf("%q", got)
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

func TestResultThatNobodyGot(t *testing.T) {
	var errs bytes.Buffer
	if code := run(context.Background(), []string{"render", "--defaults"}, full{}, &errs); code != exitFailed || !strings.Contains(errs.String(), "no space left") {
		t.Errorf("exit %d, %q", code, errs.String())
	}
}
