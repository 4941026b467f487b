// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// limits are what a client bears. Tests have smaller ones.
type limits struct {
	roots   int           // of trust, after the trusted one
	silence time.Duration // how long nothing may come
	rate    int64         // bytes a second that have to come, beside one silence
	soon    time.Duration // a snapshot that takes longer is asked of others first
}

// A request has no time in all: what is large takes long on a slow link, and a node
// there has to start as well. But a server that lets a drop fall now and then holds
// nobody up for ever: all that is waited for together is at most one silence, and a
// second for each 8 KiB that came, as a line of 64 kbit/s brings them. What is small,
// as everything but a snapshot and a bundle is, so has little more than the silence.
func usualLimits() limits {
	return limits{roots: maxRoots, silence: time.Minute, rate: 8 << 10, soon: 5 * time.Minute}
}

// errSlow says that something was given up since it took too long to come.
var errSlow = errors.New("too slow")

// waiting is the answer of a server, and what was waited for it.
type waiting struct {
	ctx    context.Context
	end    context.CancelCauseFunc
	limits *limits
	what   string
	body   io.ReadCloser // nil as long as there is none
	waited time.Duration
	came   int64
}

func newWaiting(ctx context.Context, l *limits) *waiting {
	w := &waiting{limits: l}
	w.ctx, w.end = context.WithCancelCause(ctx)
	return w
}

// wait does what waits for the server; that takes no longer than it may. What its
// reader does between two reads is nobody's fault.
func (w *waiting) wait(do func() error) error {
	came, waited := w.came, w.waited
	least := time.Duration(float64(came) / float64(w.limits.rate) * float64(time.Second))
	longest := min(w.limits.silence, w.limits.silence+least-waited)
	t := time.AfterFunc(longest, func() {
		why := fmt.Errorf("%w: nothing came for %s", errSlow, w.limits.silence)
		if longest < w.limits.silence {
			why = fmt.Errorf("%w: %d bytes came in %s, which is less than %d a second", errSlow, came, waited+longest, w.limits.rate)
		}
		w.end(why)
	})
	begin := time.Now()
	err := do()
	t.Stop()
	w.waited += time.Since(begin)
	if err != nil && !errors.Is(err, io.EOF) {
		if why := context.Cause(w.ctx); errors.Is(why, errSlow) {
			return why
		}
	}
	return err
}

func (w *waiting) Read(b []byte) (n int, err error) {
	err = w.wait(func() (err error) {
		n, err = w.body.Read(b)
		return err
	})
	w.came += int64(n)
	if err != nil && err != io.EOF {
		err = fmt.Errorf("%w: read %s: %w", ErrUnreachable, w.what, err)
	}
	return n, err
}

func (w *waiting) Close() error {
	defer w.end(nil)
	if w.body == nil {
		return nil
	}
	return w.body.Close()
}
