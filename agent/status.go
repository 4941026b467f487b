// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/agent/initlink"
	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/ledger"
)

const (
	statusEvery = time.Second
	// statusFirst is how long the first waits for the ledger to be reached.
	statusFirst = 5 * time.Second
	// statusAgain is when an unchanged status is said again: init tells an agent
	// that has nothing new from one that hangs.
	statusAgain = 5 * time.Second
	// statusMost bounds each list of it.
	statusMost = 20
)

// status is what init shows on the consoles; init/console is the other end.
type status struct {
	Name      string   `json:"name"`
	ID        string   `json:"id"`
	Link      string   `json:"link"`
	Addresses []string `json:"addresses"`
	Ledger    position `json:"ledger"`
	Guests    []guest  `json:"guests"`
	Waiting   []string `json:"waiting"`
}

type position struct {
	Entries  int64  `json:"entries"`
	Time     string `json:"time"`
	SilentMs int64  `json:"silentMs"`
}

type guest struct {
	Name  string `json:"name"`
	Phase string `json:"phase"`
}

// who the node is, as far as that is known.
type who struct {
	name, id string
	acted    func() ledger.Acted
}

func (n *node) known(w who) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.who = w
}

// tell keeps init up to date until ctx is over.
func (n *node) tell(ctx context.Context, board *wait.Board) {
	if !n.link.Present() {
		return
	}
	var last []byte
	var at time.Time
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for began := time.Now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		// The first says more than that the agent is there: a panel stands on a
		// console for a while.
		if last == nil && !n.heard() && time.Since(began) < statusFirst {
			continue
		}
		s, err := json.Marshal(n.status(time.Now(), board))
		if err == nil && (!bytes.Equal(s, last) || time.Since(at) >= statusAgain) {
			last, at = s, time.Now()
			err = n.link.Send(initlink.Status + string(s))
		}
		if err != nil {
			n.log.Warn("the console is not up to date", "err", err)
		}
	}
}

// heard says whether there is a position in the ledger.
func (n *node) heard() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.synced.IsZero()
}

func (n *node) status(now time.Time, board *wait.Board) status {
	n.mu.Lock()
	up, synced, block, who := n.up, n.synced, n.block, n.who
	n.mu.Unlock()
	s := status{Name: who.name, ID: who.id, Link: up.Link, Addresses: []string{}, Guests: []guest{}, Waiting: board.Now(now)}
	for _, a := range up.Addresses {
		s.Addresses = append(s.Addresses, a.String())
	}
	if !synced.IsZero() {
		s.Ledger = position{who.acted().Size, block.UTC().Format(time.RFC3339), now.Sub(synced).Milliseconds()}
		if s.Ledger.SilentMs < 2*statusAgain.Milliseconds() {
			s.Ledger.SilentMs = 0 // as usual, and no reason to draw anew
		}
	}
	states, err := deploy.States(runDir)
	if err != nil {
		s.Waiting = append(s.Waiting, "the list of guests: "+err.Error())
	}
	for _, d := range states {
		phase := string(d.Phase)
		switch {
		case d.Ending != nil:
			phase = "ends: " + d.Ending.Reason
		case d.Running:
			phase = "running"
		}
		s.Guests = append(s.Guests, guest{d.Name, phase})
	}
	s.Guests, s.Waiting = s.Guests[:min(len(s.Guests), statusMost)], s.Waiting[:min(len(s.Waiting), statusMost)]
	return s
}
