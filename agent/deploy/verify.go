// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/zos-node/zos/agent/vm"
)

// answer is the hypervisor's word about a VM.
type answer struct {
	have vm.Running
	err  error
}

// verify compares what runs with the plan: the hypervisor's word and the
// guest's own report.
func (l *Life) verify(ctx context.Context, m *machine) error {
	var a answer
	if m.asked != nil {
		a, m.asked = <-m.asked, nil // of now, or of a moment ago; post-verify asks anew
	} else {
		a = ask(ctx, m.vm)
	}
	if a.err != nil {
		return fmt.Errorf("ask the hypervisor: %w", a.err)
	}
	if err := errors.Join(CompareVM(m.plan.VM, a.have), CompareGuest(m.plan, a.have.CmdlineAdded, m.report)); err != nil {
		return err
	}
	m.hardening, m.verified = a.have.Hardening, true
	return nil
}

// unverified is the failure of a machine that verify does not vouch for. One
// whose hypervisor said nothing in time ends as well, but nobody has seen it be
// other than what was signed: it may start again as its rule says.
func unverified(m *machine, err error) *failure {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
		return &failure{kind: IncidentMute, machine: m, detail: err.Error()}
	}
	return &failure{kind: IncidentMeasurement, machine: m, detail: err.Error(), hard: true}
}

func ask(ctx context.Context, v vm.VM) (a answer) {
	ctx, cancel := context.WithTimeout(ctx, infoTimeout)
	defer cancel()
	a.have, a.err = v.Info(ctx)
	return a
}
