// SPDX-License-Identifier: Apache-2.0

// Package phase is the table of what a deployment goes through on a node, in
// order, and the runner that goes through it.
//
// Each phase is timed and reported, also the one that was not begun any more
// because the run was ended. The first failure ends the run: what was
// begun, the failed phase included, is undone in reverse, and each undoing is
// reported too. A phase's Undo therefore copes with a half-done Do, and with
// having been called before (a restarted agent undoes from a state file).
package phase

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Name is a phase as it stands in records; the words are stable.
type Name string

// The phases in the order in which every deployment goes through them.
const (
	Detect          Name = "detect"
	Match           Name = "match"
	Claim           Name = "claim"
	Retrieve        Name = "retrieve"
	VerifySignature Name = "verify-signatures"
	VerifyResources Name = "verify-resources"
	VerifyNetwork   Name = "verify-network"
	FetchMetadata   Name = "fetch-metadata"
	FetchContent    Name = "fetch-content"
	Plan            Name = "plan"
	Network         Name = "network"
	Volumes         Name = "volumes"
	Start           Name = "start"
	PostVerify      Name = "post-verify"
	Running         Name = "running"
)

// Order lists all phases.
func Order() []Name {
	return []Name{Detect, Match, Claim, Retrieve, VerifySignature, VerifyResources, VerifyNetwork,
		FetchMetadata, FetchContent, Plan, Network, Volumes, Start, PostVerify, Running}
}

// Index is the place of a phase in Order, or -1.
func Index(n Name) int {
	for i, o := range Order() {
		if o == n {
			return i
		}
	}
	return -1
}

// Result words of a record.
const (
	OK     = "ok"
	Failed = "failed"
	Undone = "undone"
)

// Report is what one phase, or the undoing of one, has to say.
type Report struct {
	Phase   Name
	Result  string
	Started time.Time
	Took    time.Duration
	Bytes   int64
	Digests map[string]string
	Detail  string
	Err     error
}

// Out collects what a phase found while it runs.
type Out struct {
	Bytes   int64
	Digests map[string]string
	Detail  string
}

// Digest notes a digest that was checked or made.
func (o *Out) Digest(name, value string) {
	if o.Digests == nil {
		o.Digests = map[string]string{}
	}
	o.Digests[name] = value
}

// Step is one phase with its deed and its undoing. Undo is nil where there is
// nothing to undo.
type Step struct {
	Phase Name
	Do    func(context.Context, *Out) error
	Undo  func(context.Context) error
}

// Sink takes reports; it must not block on the ledger.
type Sink func(Report) error

// Runner runs the steps of one deployment.
type Runner struct {
	Now   func() time.Time
	Sink  Sink
	Begin func(Name) error // called before a phase starts; persists that it did
	// UndoTimeout bounds each undo: it runs also when the run's context is over.
	UndoTimeout time.Duration
}

// Error says which phase ended a deployment.
type Error struct {
	Phase Name
	Err   error
}

func (e *Error) Error() string { return fmt.Sprintf("%s: %v", e.Phase, e.Err) }
func (e *Error) Unwrap() error { return e.Err }

// ErrOrder says that steps do not follow the table.
var ErrOrder = errors.New("phases out of order")

// Check holds steps against the table: same order, none twice.
func Check(steps []Step) error {
	last := -1
	for _, s := range steps {
		i := Index(s.Phase)
		if i <= last {
			return fmt.Errorf("%w: %s", ErrOrder, s.Phase)
		}
		last = i
	}
	return nil
}

// Run does the steps. When one fails it reports the failure, undoes all that
// was begun, and returns an *Error (joined with what went wrong in undoing).
func (r *Runner) Run(ctx context.Context, steps []Step) error {
	if err := Check(steps); err != nil {
		return err
	}
	for i, s := range steps {
		if err := r.one(ctx, s); err != nil {
			failed := &Error{Phase: s.Phase, Err: err}
			return errors.Join(append([]error{failed}, r.Undo(ctx, steps[:i+1])...)...)
		}
	}
	return nil
}

func (r *Runner) one(ctx context.Context, s Step) error {
	if over := ctx.Err(); over != nil {
		// Said too: else nobody could tell a node that ended here from one that
		// keeps silent.
		err := fmt.Errorf("not begun: %w", over)
		if cause := context.Cause(ctx); cause != over {
			err = fmt.Errorf("%w: %w", err, cause)
		}
		return r.report(Report{Phase: s.Phase, Result: Failed, Started: r.Now(), Err: err})
	}
	if r.Begin != nil {
		if err := r.Begin(s.Phase); err != nil {
			return fmt.Errorf("note the beginning: %w", err)
		}
	}
	started := r.Now()
	var out Out
	err := s.Do(ctx, &out)
	rep := Report{Phase: s.Phase, Result: OK, Started: started, Took: r.Now().Sub(started),
		Bytes: out.Bytes, Digests: out.Digests, Detail: out.Detail, Err: err}
	if err != nil {
		rep.Result = Failed
	}
	return r.report(rep)
}

// report tells how a phase went and returns its error. What cannot be reported
// has not happened: a phase without a record would be a check that nobody can
// see.
func (r *Runner) report(rep Report) error {
	if serr := r.Sink(rep); serr != nil {
		return errors.Join(rep.Err, fmt.Errorf("report %s: %w", rep.Phase, serr))
	}
	return rep.Err
}

// Undo undoes steps from the last to the first, all of them whatever fails,
// and reports each that had something to undo.
func (r *Runner) Undo(ctx context.Context, steps []Step) []error {
	var errs []error
	for i := len(steps) - 1; i >= 0; i-- {
		s := steps[i]
		if s.Undo == nil {
			continue
		}
		started := r.Now()
		// The run's context may be why the run ended; undoing has its own time.
		uctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.UndoTimeout)
		err := s.Undo(uctx)
		cancel()
		rep := Report{Phase: s.Phase, Result: Undone, Started: started, Took: r.Now().Sub(started), Err: err}
		if err != nil {
			errs = append(errs, fmt.Errorf("undo %s: %w", s.Phase, err))
		}
		if serr := r.Sink(rep); serr != nil {
			errs = append(errs, fmt.Errorf("report undoing %s: %w", s.Phase, serr))
		}
	}
	return errs
}
