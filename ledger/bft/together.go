// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cometbft/cometbft/p2p"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// repeat is how often a server says again where it stands.
const repeat = time.Second

// together is the loop of what validators do beside CometBFT: tell each other
// what they signed, publish what enough of them signed, and know who is there.
func (e *Engine) together() {
	again := time.NewTicker(repeat)
	defer again.Stop()
	for n := 1; ; {
		e.app.publish()
		select {
		case <-e.heard:
		case <-e.poke:
			e.mesh.broadcast(e.statement)
		case <-again.C:
			e.app.freshen()
			e.mesh.broadcast(e.statement)
			e.meet()
			if n++; n%redial == 0 {
				e.call()
			}
			e.look()
			if err := e.writer.Settle(); err != nil {
				e.fail(fmt.Errorf("publish a checkpoint: %w", err))
			}
		case <-e.stop:
			return
		}
	}
}

// wake makes the loop turn at once.
func (e *Engine) wake() {
	select {
	case e.poke <- struct{}{}:
	default:
	}
}

// hear takes a peer's statement. It does not wait for anything: CometBFT's
// messages are behind it on the same connection.
func (e *Engine) hear(from string, b []byte) {
	if err := e.app.cosign.hear(from, b, time.Now()); err != nil {
		e.log.Warn("a validator says what is no statement", "part", "ledger", "err", err)
		return
	}
	select {
	case e.heard <- struct{}{}:
	default:
	}
}

// statement is what we tell the others now.
func (e *Engine) statement() []byte { return e.app.cosign.message(e.policy()) }

// policy is the present root's.
func (e *Engine) policy() tiles.Policy {
	e.app.mu.RLock()
	defer e.app.mu.RUnlock()
	return e.app.state.Root().Checkpoints()
}

// meet reads the mesh file again, dials whoever is new in it and parts from whoever
// is not in it any more.
func (e *Engine) meet() {
	now, err := LoadMesh(e.dir)
	if err != nil {
		e.log.Warn("the mesh file cannot be used; the one before stays", "part", "ledger", "err", err)
		return
	}
	old := e.peers.Swap(&now)
	var fresh []string
	for _, p := range now.Peers {
		if !slices.Contains(old.Peers, p) {
			fresh = append(fresh, p)
		}
	}
	if e.mesh.Switch == nil {
		return
	}
	if !slices.Equal(now.Peers, old.Peers) { // which takes the place of the ones before
		if err := e.mesh.Switch.AddPersistentPeers(now.Peers); err != nil {
			e.log.Warn("peers on the mesh", "part", "ledger", "err", err)
		}
	}
	e.part(now)
	if len(fresh) == 0 {
		return
	}
	e.log.Info("new peers on the mesh", "part", "ledger", "peers", fresh)
	if err := e.mesh.Switch.DialPeersAsync(fresh); err != nil {
		e.log.Warn("dial new peers", "part", "ledger", "err", err)
	}
}

// part ends the connections of peers that a mesh does not name. It looks at all of
// them each time: one may have been let in just before it was taken out. Nobody
// dials it any more, and admit refuses it when it comes again.
func (e *Engine) part(m Mesh) {
	for _, p := range e.mesh.Switch.Peers().List() {
		if id := string(p.ID()); !m.knows(id) {
			e.log.Info("a peer is not in the mesh file any more", "part", "ledger", "peer", id)
			e.parted.Store(true)
			e.mesh.Switch.StopPeerGracefully(p)
		}
	}
}

// redial is after how many repeats a peer that is not there is dialled again.
const redial = 5

// call dials the peers that are not connected. CometBFT does so too, but can
// forget it: when two dial each other at once, each ends the connection that the
// other has just taken, and whoever sees that while it still counts as dialling
// never dials again.
func (e *Engine) call() {
	if e.mesh.Switch == nil {
		return
	}
	var away []string
	for _, p := range e.peers.Load().Peers {
		if id, _, _ := strings.Cut(p, "@"); !e.mesh.Switch.Peers().Has(p2p.ID(id)) {
			away = append(away, p)
		}
	}
	if len(away) == 0 {
		return
	}
	// It waits up to 3 s, by chance, so that two do not meet again.
	if err := e.mesh.Switch.DialPeersAsync(away); err != nil {
		e.log.Warn("dial peers", "part", "ledger", "err", err)
	}
}

// admit lets only named peers connect.
func (e *Engine) admit(id string) error {
	if !e.peers.Load().knows(id) {
		return fmt.Errorf("peer %s is not in the mesh file", id)
	}
	return nil
}

// look sees which validators are there, and says when that changes.
func (e *Engine) look() {
	p := e.policy()
	now := presence{names: e.app.cosign.present(p, time.Now()), quorum: p.Quorum}
	for _, vkey := range p.Cosigners {
		if name, _, _ := strings.Cut(vkey, "+"); !slices.Contains(now.names, name) {
			now.missing = append(now.missing, name)
		}
	}
	before := e.present.Swap(&now)
	if before == nil || slices.Equal(before.missing, now.missing) && before.quorum == now.quorum {
		return
	}
	if err := e.quorum(); err != nil {
		e.log.Error("the ledger stands still", "part", "ledger", "err", err)
	} else {
		e.log.Info("validators", "part", "ledger", "there", now.names, "missing", now.missing)
	}
}

// quorum says whether enough validators are there to go on.
func (e *Engine) quorum() error {
	p := e.present.Load()
	if p == nil || len(p.names) >= p.quorum {
		return nil
	}
	return fmt.Errorf("the ledger stands still: %d of %d validators answer, %d are needed; nothing was heard from %s",
		len(p.names), len(p.names)+len(p.missing), p.quorum, strings.Join(p.missing, ", "))
}

// gather gives the validators a moment to be heard, as after a start or a
// rotation, and then says whether there are enough.
func (e *Engine) gather(ctx context.Context) error {
	for range 12 {
		if e.quorum() == nil {
			return nil
		}
		select {
		case <-time.After(repeat / 4):
		case <-ctx.Done():
			return ctx.Err()
		}
		e.look()
	}
	return e.quorum()
}

// catchUp waits a while for the blocks that an entry acts on: its node has
// seen the checkpoint of a validator that is further than this one.
func (e *Engine) catchUp(ctx context.Context, entry *ledger.Entry) error {
	late := time.NewTimer(silence)
	defer late.Stop()
	for {
		e.app.mu.RLock()
		news, ahead, size := e.app.news, e.app.state.Ahead(entry), e.app.state.Size()
		e.app.mu.RUnlock()
		if !ahead {
			return nil
		}
		select {
		case <-news:
		case <-late.C:
			return &ledger.Busy{Reason: fmt.Sprintf("the entry acts on a state of the log that this server has not come to yet, it has %d entries; ask another one", size), After: silence}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// turn is how long this validator lets others ask first for a block that is
// due, so that not all of them ask at once.
func (e *Engine) turn() time.Duration {
	s, ok := e.app.cosign.own()
	if !ok || len(s.Own) == 0 {
		return 0
	}
	p := e.policy()
	own := strings.Join(s.Own, "\n")
	for i, vkey := range p.Cosigners {
		if name, _, _ := strings.Cut(vkey, "+"); strings.Contains(own, "— "+name+" ") {
			return time.Duration(i) * 500 * time.Millisecond
		}
	}
	return time.Duration(len(p.Cosigners)) * 500 * time.Millisecond
}
