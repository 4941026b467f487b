// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage"
)

// Life is one deployment on this node. One goroutine runs it; End may be
// called from others.
type Life struct {
	world    *World
	log      *slog.Logger
	runner   phase.Runner
	end      context.CancelCauseFunc
	ended    <-chan struct{} // of the context that end cancels
	cause    func() error
	machines map[string]*machine
	msgs     chan msg

	// of the phases, not persisted
	early     []phase.Report // from before the claim
	spec      *spec.Deployment
	manifests map[string]zimage.Manifest
	left      map[phase.Name]error // what could not be undone yet
	aheadDone context.CancelFunc   // ends what the claim had hashed ahead
	over      <-chan struct{}      // the agent ends

	mu sync.Mutex // guards st
	st State
}

// ErrNotClaimed says that the deployment is not this node's to run.
var ErrNotClaimed = errors.New("not claimed")

func newLife(w *World, st State) *Life {
	l := &Life{world: w, st: st, machines: map[string]*machine{}, msgs: make(chan msg, 64), manifests: map[string]zimage.Manifest{}, left: map[phase.Name]error{}, aheadDone: func() {},
		log: w.Log.With("part", "deploy", "deployment", st.Name)}
	l.runner = phase.Runner{Now: w.Clock.Now, Sink: l.sink, Begin: l.begin, UndoTimeout: undoTimeout}
	ctx, cancel := context.WithCancelCause(context.Background())
	l.end, l.ended, l.cause = cancel, ctx.Done(), func() error { return context.Cause(ctx) }
	return l
}

// New is the life of a deployment that this node wants to claim, or (claim >=
// 0) has claimed already. slot is a number that no other deployment here has.
func New(w *World, d *ledger.Deployment, claim int64, slot int) *Life {
	return newLife(w, State{Deployment: d.ID, Claim: claim, Name: d.Name, Digest: d.Digest, Slot: slot, OnPartition: d.Spec.Placement.OnPartition,
		Phase: phase.Detect})
}

// Deployment is the log index of the deployment.
func (l *Life) Deployment() int64 { return l.st.Deployment }

// Claim is the log index of the claim, -1 before it was granted.
func (l *Life) Claim() int64 { return l.claimed() }

// Slot is the deployment's number on the node.
func (l *Life) Slot() int { return l.st.Slot }

// End asks the deployment to end; the first reason counts.
func (l *Life) End(e *Ending) { l.end(e) }

func (l *Life) steps() []phase.Step {
	steps := []phase.Step{
		{Phase: phase.Detect, Do: l.detect},
		{Phase: phase.Match, Do: l.match},
		{Phase: phase.Claim, Do: l.claim},
		{Phase: phase.Retrieve, Do: l.retrieve},
		{Phase: phase.VerifySignature, Do: l.verifySignatures},
		{Phase: phase.VerifyResources, Do: l.verifyResources},
		{Phase: phase.VerifyNetwork, Do: l.verifyNetwork},
		{Phase: phase.FetchMetadata, Do: l.fetchMetadata},
		{Phase: phase.FetchContent, Do: l.fetchContent, Undo: l.undoContent},
		{Phase: phase.Plan, Do: l.plan},
		{Phase: phase.Network, Do: l.network, Undo: l.undoNetwork},
		{Phase: phase.Volumes, Do: l.volumes, Undo: l.undoVolumes},
		{Phase: phase.Start, Do: l.start, Undo: l.undoStart},
		{Phase: phase.PostVerify, Do: l.postVerify},
		{Phase: phase.Running, Do: l.running},
	}
	for i := range steps {
		if steps[i].Undo != nil {
			steps[i].Undo = l.noting(steps[i].Phase, steps[i].Undo)
		}
	}
	return steps
}

// Run is the whole life. It returns ErrNotClaimed when the deployment is not
// this node's, nil when its story was told to the end, and another error only
// when the node itself is broken. When ctx ends the agent ends: what runs stays as it
// is, for the next agent to adopt.
func (l *Life) Run(ctx context.Context) error {
	run, cancel := l.context(ctx)
	defer cancel()
	defer l.world.Network.Free(l.st.Deployment)
	err := l.runner.Run(run, l.steps())
	l.aheadDone()
	if l.claimed() < 0 {
		return fmt.Errorf("%w: %w", ErrNotClaimed, err)
	}
	if err == nil {
		err = l.live(run)
	} else {
		err = l.clear(l.ending(err))
	}
	l.closeLinks()
	return err
}

// context ends when ctx ends or End was called; its cause is then the Ending.
func (l *Life) context(ctx context.Context) (context.Context, context.CancelFunc) {
	run, cancel := context.WithCancelCause(ctx)
	l.over = ctx.Done()
	done := make(chan struct{})
	go func() {
		select {
		case <-l.ended:
			cancel(l.cause())
		case <-done:
		}
	}()
	return run, func() { close(done); cancel(nil) }
}

// live supervises what runs, and takes it down when that has ended.
func (l *Life) live(run context.Context) error {
	e := l.supervise(run)
	if e == nil {
		return nil // the agent ends, the guests stay
	}
	return l.takeDown(run, e)
}

func (l *Life) claimed() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.st.Claim
}

// update changes the state and writes it. Before the claim there is nothing
// that anybody would have to find again.
func (l *Life) update(f func(*State)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	f(&l.st)
	if l.st.Claim < 0 {
		return nil
	}
	return l.st.save(l.world.RunDir)
}

func (l *Life) begin(n phase.Name) error {
	l.log.Debug("phase begins", "phase", n)
	return l.update(func(s *State) { s.Phase = n })
}

// sink prints and records a report; those from before the claim are kept until
// there is a claim that they can belong to.
func (l *Life) sink(r phase.Report) error {
	attrs := []any{"phase", r.Phase, "result", r.Result, "took", r.Took}
	level := slog.LevelInfo
	if r.Err != nil {
		attrs, level = append(attrs, "err", r.Err), slog.LevelError
	}
	claim := l.claimed()
	if claim < 0 && r.Err != nil {
		level = slog.LevelWarn // nothing was begun
	}
	l.log.Log(context.Background(), level, "phase", attrs...)
	if claim < 0 {
		l.early = append(l.early, r)
		return nil
	}
	if l.world.Records.Closed(claim) {
		return nil // an agent that died had closed it already
	}
	for len(l.early) > 0 {
		if err := l.world.Records.Record(claim, l.early[0]); err != nil {
			return err
		}
		l.early = l.early[1:]
	}
	return l.world.Records.Record(claim, r)
}
