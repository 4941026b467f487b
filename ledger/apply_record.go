// SPDX-License-Identifier: Apache-2.0

package ledger

// applyRecord appends to the story of a claim: the next number, chained to
// the record before. A claim whose lease ended may still tell its end.
func (s *State) applyRecord(a at, p *Record, node *Node, raw []byte) (func(), error) {
	g, err := s.grantOf(p.Claim, node)
	if err != nil {
		return nil, err
	}
	if g.Closed() {
		return nil, refuse("payload.claim", "is %d, which was closed", p.Claim)
	}
	if p.Seq != g.Records {
		return nil, refuse("payload.seq", "is %d, want %d", p.Seq, g.Records)
	}
	if p.Previous != g.LastRecord {
		return nil, refuse("payload.previous", "is %q, but record %d has digest %q", p.Previous, g.Records-1, g.LastRecord)
	}
	if err := s.hadState(p.Acted); err != nil {
		return nil, err
	}
	g.Records, g.LastRecord = g.Records+1, HashEntry(raw)
	g.Phase, g.Result = p.Phase, p.Result
	switch {
	case p.Result == "failed":
		g.Running, g.Error = false, p.Phase+": "+p.Error
	case p.Phase == PhaseRunning:
		g.Running = g.State == GrantActive && p.Result == "ok"
	case p.Result == "undone":
		g.Running = false
	}
	return func() {
		s.claims.put(g.Index, g)
		s.records[g.Index] = append(s.records[g.Index], Recorded{a.index, a.timeMs, p})
	}, nil
}

// applyIncident notes what should not have happened.
func (s *State) applyIncident(a at, p *Incident, node *Node) (func(), error) {
	var g Grant
	if p.Claim >= 0 {
		var err error
		if g, err = s.grantOf(p.Claim, node); err != nil {
			return nil, err
		}
		g.Incidents++
	}
	if err := s.hadState(p.Acted); err != nil {
		return nil, err
	}
	return func() {
		if p.Claim >= 0 {
			s.claims.put(g.Index, g)
		}
		s.incidents = append(s.incidents, Reported{a.index, a.timeMs, node.ID, p})
	}, nil
}

// applyClose ends the story of a claim. "failed" also ends the deployment's
// place on this node for good: nobody tries again what is known not to work.
// Whoever wants another node to try sends a release instead.
func (s *State) applyClose(a at, p *Close, node *Node) (func(), error) {
	g, err := s.grantOf(p.Claim, node)
	if err != nil {
		return nil, err
	}
	if g.Closed() {
		return nil, refuse("payload.claim", "is %d, which was closed already", p.Claim)
	}
	if p.Records != g.Records {
		return nil, refuse("payload.records", "is %d, but the ledger has %d records of claim %d", p.Records, g.Records, p.Claim)
	}
	d := *s.deployments.get(g.Deployment)
	switch {
	case p.Result == "stopped" && d.Stopped < 0:
		return nil, refuse("payload.result", "is stopped, but nobody stopped deployment %d", d.ID)
	case p.Result == "replaced" && d.Replaced < 0:
		return nil, refuse("payload.result", "is replaced, but nothing replaced deployment %d", d.ID)
	case p.Result == "released" && g.State == GrantActive:
		return nil, refuse("payload.result", "is released, but claim %d was not given back", g.Index)
	}
	if err := s.hadState(p.Acted); err != nil {
		return nil, err
	}
	held := g.State == GrantActive
	if held {
		node.Used = node.Used.minus(g.Index, needs(d.Spec))
		g.State, g.EndedMs = GrantClosed, a.timeMs
		if p.Result == "failed" {
			d.Failed++
		}
	}
	g.Running, g.CloseResult, g.CloseReason = false, p.Result, p.Reason
	return func() {
		s.claims.put(g.Index, g)
		delete(s.active, g.Index)
		if held {
			s.deployments.put(d.ID, d)
		}
	}, nil
}
