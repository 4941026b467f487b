// SPDX-License-Identifier: Apache-2.0

package ledger

// applyClaim grants a deployment to a node whose turn it is, and reserves
// what the deployment needs in the same step.
func (s *State) applyClaim(a at, p *Claim, node *Node) (func(), error) {
	if err := s.hadState(p.Acted); err != nil {
		return nil, err
	}
	d := s.deployments.get(p.Deployment)
	if d == nil {
		return nil, refuse("payload.deployment", "is %d, where no deployment was registered", p.Deployment)
	}
	if p.Attempt != d.Attempt {
		return nil, refuse("payload.attempt", "is %d, want %d", p.Attempt, d.Attempt)
	}
	from, reasons := s.MayClaim(d, node.ID)
	if len(reasons) > 0 {
		return nil, refuse("payload.deployment", "is %d, which this node cannot claim: %s", p.Deployment, join(reasons))
	}
	if a.timeMs < from {
		return nil, refuse("payload.deployment", "is %d, which this node may claim in %d ms: other nodes rank before it", p.Deployment, from-a.timeMs)
	}
	need := needs(d.Spec)
	need.IDs = []int64{a.index}
	node.Used = node.Used.plus(need)
	g := Grant{
		Index: a.index, Deployment: d.ID, Node: node.ID, Attempt: d.Attempt, State: GrantActive,
		GrantedMs: a.timeMs, ExpiresMs: a.timeMs + s.Root().Lease.LeaseMs, EndedMs: -1,
	}
	claimed := *d
	claimed.Claims = append(claimed.Claims[:len(claimed.Claims):len(claimed.Claims)], a.index)
	return func() {
		if s.turns != nil {
			s.turns[g.Index] = s.turnOf(d, node.ID, a.timeMs)
		}
		s.claims.put(g.Index, g)
		s.active[g.Index] = true
		s.expires(&g)
		s.deployments.put(d.ID, claimed)
	}, nil
}

// applyRenew prolongs a lease. A lease that has run out stays so.
func (s *State) applyRenew(a at, p *Renew, node *Node) (func(), error) {
	g, err := s.grantOf(p.Claim, node)
	if err != nil {
		return nil, err
	}
	if g.State != GrantActive {
		return nil, refuse("payload.claim", "is %d, whose lease is %s", p.Claim, g.State)
	}
	if err := s.hadState(p.Acted); err != nil {
		return nil, err
	}
	g.ExpiresMs = max(g.ExpiresMs, a.timeMs+s.Root().Lease.LeaseMs)
	return func() {
		s.claims.put(g.Index, g)
		s.expires(&g)
	}, nil
}

// applyRelease gives a claim back: the deployment is open for others.
func (s *State) applyRelease(a at, p *Release, node *Node) (func(), error) {
	g, err := s.grantOf(p.Claim, node)
	if err != nil {
		return nil, err
	}
	if g.State != GrantActive {
		return nil, refuse("payload.claim", "is %d, whose lease is %s", p.Claim, g.State)
	}
	if err := s.hadState(p.Acted); err != nil {
		return nil, err
	}
	node.Used = node.Used.minus(g.Index, needs(s.deployments.get(g.Deployment).Spec))
	return func() { s.reopen(g, GrantReleased, a.timeMs) }, nil
}

// reopen ends a lease without ending the deployment: the next attempt begins,
// in which the node that had it ranks last.
func (s *State) reopen(g Grant, state string, now int64) {
	g.State, g.Running, g.EndedMs = state, false, now
	s.claims.put(g.Index, g)
	delete(s.active, g.Index)
	d := *s.deployments.get(g.Deployment)
	d.Attempt++
	d.SinceMs = now
	d.Past = append(d.Past[:len(d.Past):len(d.Past)], g.Node)
	s.deployments.put(d.ID, d)
}
