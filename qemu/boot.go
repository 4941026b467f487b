// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Up matches the first line that the node's PID 1 writes once it has started
// a program, or the screen on which it says why it does not.
var Up = regexp.MustCompile(`msg="program started"|ZOS STOPPED`)

// firstWord is how long an emulated machine may be without a word of its kernel.
// It takes seconds of a processor's time, of which a busy machine has little.
const firstWord = 5 * time.Minute

// spoke matches what a kernel, or the PID 1 that it has started, writes; no
// firmware does.
const spoke = `^\[ *\d+\.\d+\]|^time=\S+ level=`

// ErrHung says that nothing was heard of a kernel, twice: the emulator hangs, or
// there is none that starts.
var ErrHung = errors.New("not a word of the kernel")

// Boot starts a machine and waits for a line that matches up; one without a
// serial port is up when its fault program answers. A machine that the emulator
// broke, be it that its kernel died of the race or that it hangs before its
// kernel says anything, is started once more; Retries tells, so that a report
// can count it.
func Boot(ctx context.Context, o Options, up *regexp.Regexp) (*Machine, error) {
	for retries := 0; ; retries++ {
		m, err := Start(o)
		if err != nil {
			return nil, err
		}
		m.Retries = retries
		if err = m.comesUp(ctx, o, up); err == nil {
			return m, nil
		}
		again := retries == 0 && ctx.Err() == nil && (errors.Is(err, ErrHung) || m.EmulatorFault())
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

// comesUp waits for the first word, and then for up.
func (m *Machine) comesUp(ctx context.Context, o Options, up *regexp.Regexp) error {
	first := ctx
	if o.Accel.Name == "tcg" {
		patience := o.FirstWord
		if patience == 0 {
			patience = firstWord
		}
		var stop func()
		first, stop = context.WithTimeout(ctx, patience)
		defer stop()
	}
	var err error
	if o.NoSerial {
		err = m.answers(first)
	} else {
		_, _, _, err = m.Console.Expect(first, 0, regexp.MustCompile(up.String()+"|"+spoke))
	}
	if err != nil && first.Err() != nil && ctx.Err() == nil {
		return fmt.Errorf("%w: %w", ErrHung, err)
	}
	if err != nil || o.NoSerial {
		return err
	}
	_, _, _, err = m.Console.Expect(ctx, 0, up)
	return err
}

// answers waits for the fault program.
func (m *Machine) answers(ctx context.Context) error {
	for {
		err := m.Fault(ctx, map[string]any{"do": "list", "file": "/init"}, nil)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the fault program: %w: %w", ctx.Err(), err)
		case <-m.done:
			return ErrConsoleEnded
		case <-time.After(time.Second):
		}
	}
}
