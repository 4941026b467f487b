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

// patience is how long an emulator may do nothing, or how much of a processor's
// time it may take, before its kernel's first word. That needs some seconds of a
// processor, which a busy machine gives it slowly, but gives it; within five times
// as long in any case.
const patience = 2 * time.Minute

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
		if err = m.comesUp(ctx, o, up, m.CPUTime); err == nil {
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

// comesUp waits for the first word, and then for up; used is what the emulator
// had of a processor so far.
func (m *Machine) comesUp(ctx context.Context, o Options, up *regexp.Regexp, used func() time.Duration) error {
	first, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if o.Accel.Name == "tcg" {
		limit := o.Patience
		if limit == 0 {
			limit = patience
		}
		go func() {
			if hangs(first, limit, used) {
				stop(ErrHung)
			}
		}()
	}
	var err error
	if o.NoSerial {
		err = m.answers(first)
	} else {
		_, _, _, err = m.Console.Expect(first, 0, regexp.MustCompile("(?:"+up.String()+")|"+spoke))
	}
	if err != nil && errors.Is(context.Cause(first), ErrHung) {
		return fmt.Errorf("%w: %w", ErrHung, err)
	}
	if err != nil || o.NoSerial {
		return err
	}
	_, _, _, err = m.Console.Expect(ctx, 0, up)
	return err
}

// hangs waits until an emulator has stood still, or worked in vain, for too long,
// and says so; it returns false when ctx ends first.
func hangs(ctx context.Context, limit time.Duration, used func() time.Duration) bool {
	const looks, still, whole = 10, 1000, 5 // it stands still below a thousandth of a processor
	var seen [looks]time.Duration
	for i := range whole * looks {
		select {
		case <-ctx.Done():
			return false
		case <-time.After(limit / looks):
		}
		now := used()
		if now >= limit || i >= looks && now-seen[i%looks] < limit/still {
			return true
		}
		seen[i%looks] = now
	}
	return true
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
