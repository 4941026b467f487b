// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"github.com/zos-node/zos/spec"
)

// applyDeployment takes the entries that people sign about deployments.
func (s *State) applyDeployment(a at, e *Entry, keys []string) (func(), error) {
	switch p := e.Payload.(type) {
	case *spec.Deployment:
		return s.applyRegister(a, e, p, keys)
	case *Stop:
		return s.applyStop(a, p, keys)
	}
	return nil, refuse("payloadType", "is %s, which has no rule", e.Type)
}

// applyRegister makes a deployment known. A name that is there already is an
// update: the next version, agreed by those who had to agree to the version
// before, under the root of then, and by those of now.
func (s *State) applyRegister(a at, e *Entry, d *spec.Deployment, keys []string) (func(), error) {
	root := s.Root()
	filled, err := root.Fill("deployment", keys, d.Security.RequiredRoles)
	if err != nil {
		return nil, refusal("signatures", err)
	}
	roles, err := fingerprints(filled)
	if err != nil {
		return nil, err
	}
	name, version := d.Metadata.Name, d.Metadata.Version
	old := s.DeploymentByName(name)
	switch {
	case old == nil && version != 1:
		return nil, refuse("payload.metadata.version", "is %d, but %q is not on the ledger yet, so want 1", version, name)
	case old != nil && version != old.Version+1:
		return nil, refuse("payload.metadata.version", "is %d, but %q has version %d, so want %d", version, name, old.Version, old.Version+1)
	case old != nil:
		if err := s.rootAt(old.RootVersion).check("deployment", keys, old.Spec.Security.RequiredRoles); err != nil {
			return nil, refuse("signatures", "do not satisfy the policy under which version %d was registered (root version %d): %v", old.Version, old.RootVersion, err)
		}
	}
	now := Deployment{
		ID: a.index, Name: name, Version: version, Digest: spec.Digest(e.Envelope.Payload), Entry: HashEntry(e.Raw), RootVersion: root.Version, Roles: roles,
		RegisteredMs: a.timeMs, SinceMs: a.timeMs, Stopped: -1, Replaced: -1, Spec: d, Envelope: e.Raw,
	}
	return func() {
		s.deployments.put(a.index, now)
		s.newest[name] = a.index
		if old != nil {
			replaced := *old
			replaced.Replaced = a.index
			s.deployments.put(old.ID, replaced)
		}
	}, nil
}

// applyStop ends a deployment; its nodes take it down and close their claims.
func (s *State) applyStop(a at, p *Stop, keys []string) (func(), error) {
	if err := s.Root().check("stop", keys, nil); err != nil {
		return nil, refusal("signatures", err)
	}
	d := s.deployments.get(p.Deployment)
	switch {
	case d == nil:
		return nil, refuse("payload.deployment", "is %d, where no deployment was registered", p.Deployment)
	case d.Name != p.Name:
		return nil, refuse("payload.name", "is %q, but entry %d registered %q", p.Name, p.Deployment, d.Name)
	case d.Stopped >= 0:
		return nil, refuse("payload.deployment", "is %d, which entry %d stopped already", p.Deployment, d.Stopped)
	case d.Replaced >= 0:
		return nil, refuse("payload.deployment", "is %d, which entry %d replaced: stop that one", p.Deployment, d.Replaced)
	}
	stopped := *d
	stopped.Stopped, stopped.StopReason = a.index, p.Reason
	return func() { s.deployments.put(d.ID, stopped) }, nil
}
