// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

// Up matches the first line that the node's PID 1 writes once it has started
// a program, or the screen on which it says why it does not.
var Up = regexp.MustCompile(`msg="program started"|ZOS STOPPED`)

// Boot starts a machine and waits for a line that matches up. A machine whose
// kernel died of the emulator's race is started once more; Retries tells, so
// that a report can count it.
func Boot(ctx context.Context, o Options, up *regexp.Regexp) (*Machine, error) {
	for retries := 0; ; retries++ {
		m, err := Start(o)
		if err != nil {
			return nil, err
		}
		m.Retries = retries
		_, _, _, err = m.Console.Expect(ctx, 0, up)
		if err == nil {
			return m, nil
		}
		again := retries == 0 && ctx.Err() == nil && m.EmulatorFault()
		if cerr := m.Close(); cerr != nil {
			return nil, errors.Join(err, cerr)
		}
		switch {
		case again:
		case errors.Is(err, ErrConsoleEnded):
			return nil, fmt.Errorf("boot: the machine was off before the node was up; the end of its console:\n%s%w", m.Console.Tail(30), errors.Join(ErrConsoleEnded, m.err))
		default:
			return nil, fmt.Errorf("boot: %w", err)
		}
	}
}
