// SPDX-License-Identifier: Apache-2.0

package network

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"
	"sync"
)

// Kernel is what a Manager does its work with.
type Kernel interface {
	Apply(Ruleset) error
	Up(*Plan) error
	Down(*Plan) error
	Open(Tap) (*os.File, error)
}

// Linux is the real Kernel.
type Linux struct{}

// Apply implements Kernel.
func (Linux) Apply(r Ruleset) error { return r.Apply() }

// Up implements Kernel.
func (Linux) Up(p *Plan) error { return p.Up() }

// Down implements Kernel.
func (Linux) Down(p *Plan) error { return p.Down() }

// Open implements Kernel.
func (Linux) Open(t Tap) (*os.File, error) { return t.Open() }

// Manager holds the networks of all deployments on the node: each change puts
// the rules of all of them in force.
type Manager struct {
	kernel  Kernel
	mu      sync.Mutex
	armed   bool // Base was called: from here on, changes take effect
	uplink  string
	address []netip.Prefix
	plans   map[int64]*Plan
	// reserved are the networks of deployments that are about to be claimed:
	// nothing is made for them yet, but nobody else may plan the same.
	reserved map[int64]*Plan
}

// NewManager starts with no deployment and no uplink, and changes nothing
// before Base.
func NewManager(k Kernel) *Manager {
	return &Manager{kernel: k, plans: map[int64]*Plan{}, reserved: map[int64]*Plan{}}
}

// Keep notes a deployment that runs already, so that Base does not cut it off.
func (m *Manager) Keep(deployment int64, p *Plan) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plans[deployment] = p
}

// Base puts the rules in force: those of a node without deployments, or with
// the ones that were kept.
func (m *Manager) Base() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.armed = true
	return m.apply(m.uplink)
}

// SetUplink tells which link is the outside and what addresses it has. After
// an error the uplink is what it was, so that the same call can be tried again.
func (m *Manager) SetUplink(link string, addresses []netip.Prefix) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.address = slices.Clone(addresses)
	if m.uplink == link {
		return nil
	}
	if err := m.apply(link); err != nil {
		return err
	}
	m.uplink = link
	return nil
}

// Reserve holds the networks and ports of a deployment from before its claim
// until Free, or says why they cannot stand beside those of others.
func (m *Manager) Reserve(deployment int64, p *Plan) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.conflict(deployment, p); err != nil {
		return err
	}
	m.reserved[deployment] = p
	return nil
}

// Free ends a reservation; one that is not there is no error.
func (m *Manager) Free(deployment int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.reserved, deployment)
}

// Conflict says why a plan cannot stand beside those of other deployments.
func (m *Manager) Conflict(deployment int64, p *Plan) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conflict(deployment, p)
}

func (m *Manager) conflict(deployment int64, p *Plan) error {
	var others []*Plan
	for _, held := range []map[int64]*Plan{m.plans, m.reserved} {
		for id, o := range held {
			if id != deployment {
				others = append(others, o)
			}
		}
	}
	if len(p.Gateways) > 0 && m.uplink == "" {
		return errors.New("there are gateways, but the node has no uplink")
	}
	return p.Conflict(m.address, others)
}

// Set makes the network of a deployment: rules first, so that no tap is ever
// there without them. On an error nothing of it is left.
func (m *Manager) Set(deployment int64, p *Plan) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.conflict(deployment, p); err != nil {
		return err
	}
	m.plans[deployment] = p
	err := m.apply(m.uplink)
	if err == nil {
		err = m.kernel.Up(p)
	}
	if err != nil {
		return errors.Join(err, m.remove(deployment, p))
	}
	return nil
}

// Adopt takes up the network of a deployment that runs already: it was checked
// when it was made, and what is missing of it is made again.
func (m *Manager) Adopt(deployment int64, p *Plan) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.plans[deployment] = p
	if err := m.apply(m.uplink); err != nil {
		return err
	}
	return m.kernel.Up(p)
}

// Remove takes the network of a deployment away; one that is not there is no
// error.
func (m *Manager) Remove(deployment int64, p *Plan) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.remove(deployment, p)
}

// remove takes the links away before the rules that hold them. While a link
// is left its rules stay, and its subnet and ports stay taken.
func (m *Manager) remove(deployment int64, p *Plan) error {
	if err := m.kernel.Down(p); err != nil {
		return err
	}
	delete(m.plans, deployment)
	return m.apply(m.uplink)
}

// Open opens a tap of a deployment by name.
func (m *Manager) Open(deployment int64, name string) (*os.File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.plans[deployment]; p != nil {
		for _, n := range p.Networks {
			for _, t := range n.Taps {
				if t.Name == name {
					return m.kernel.Open(t)
				}
			}
		}
	}
	return nil, fmt.Errorf("deployment %d has no tap %s", deployment, name)
}

func (m *Manager) apply(uplink string) error {
	if !m.armed {
		return nil
	}
	var plans []*Plan
	for _, id := range slices.SortedFunc(maps.Keys(m.plans), cmp.Compare[int64]) {
		plans = append(plans, m.plans[id])
	}
	return m.kernel.Apply(Rules(uplink, plans))
}
