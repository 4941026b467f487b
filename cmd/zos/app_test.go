// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
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

// TestStopped: a signal takes nothing away from what a command says of the state
// that it leaves.
func TestStopped(t *testing.T) {
	own := errors.New("no space left")
	if got := stopped(own); got != own {
		t.Errorf("what is no signal's doing: %v", got)
	}
	const words = "stopped by a signal, before the end"
	for want, err := range map[string]error{
		words: context.Canceled,
		"get x: " + words + "; the old one stays": fmt.Errorf("get x: %w; the old one stays", context.Canceled),
		"part: " + words + "\nclose: full":        errors.Join(fmt.Errorf("part: %w", context.Canceled), fmt.Errorf("part: %w", context.Canceled), errors.New("close: full")),
		words + ": the server said: bye for now":  &codedError{exitUnreachable, quiet{}},
	} {
		if got := stopped(err).Error(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// quiet is an error of a signal with words of its own.
type quiet struct{}

func (quiet) Error() string { return "the server said: bye for now" }
func (quiet) Unwrap() error { return context.Canceled }
