// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/zos-node/zos/agent/guestlink"
)

// kill ends the VM of a machine at once; nothing of this start is heard again.
func (l *Life) kill(m *machine) error {
	m.gen++
	m.gone, m.healthy = true, false
	if m.quit != nil {
		close(m.quit)
		m.quit = nil
	}
	var errs []error
	if m.link != nil {
		errs = append(errs, m.link.Close())
		m.link = nil
	}
	if m.vm != nil {
		// Killing has its own time: whatever made it necessary may have used
		// up the caller's.
		ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
		defer cancel()
		err := m.vm.Kill(ctx)
		if err != nil && m.disk != nil {
			// It may hang in a read that nobody answers.
			hctx, cancel := context.WithTimeout(context.Background(), killTimeout)
			defer cancel()
			err = errors.Join(m.disk.Kill(hctx), m.vm.Kill(hctx))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("kill VM of machine %s: %w", m.plan.Name, err))
		} else {
			m.vm = nil
		}
	}
	return errors.Join(errs...)
}

// undoStart leaves nothing of any VM, whichever agent started it.
func (l *Life) undoStart(ctx context.Context) error {
	p := l.planned()
	if p == nil {
		return nil
	}
	var errs []error
	for i := range p.Machines {
		m := l.machine(&p.Machines[i])
		if err := l.clearMachine(ctx, m); err != nil {
			errs = append(errs, err)
			continue // its files tell where it is
		}
		for _, f := range guestlink.Files(l.outputPath(m)) {
			if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// clearMachine leaves nothing of a VM, whichever agent started it.
func (l *Life) clearMachine(ctx context.Context, m *machine) error {
	cfg := m.plan.VM
	errs := []error{l.kill(m)}
	if left, err := l.world.Driver.Adopt(ctx, cfg); err == nil {
		errs = append(errs, left.Kill(ctx))
	} else if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, fmt.Errorf("look for what is left of machine %s: %w", m.plan.Name, err))
	}
	if err := errors.Join(append(errs, killCgroup(filepath.Join(l.world.Cgroups, cfg.ID)))...); err != nil {
		return err
	}
	return os.RemoveAll(cfg.Dir)
}

// killCgroup ends what a VMM left that no state file tells of: an agent may
// die between the start of the process and the writing of the file.
func killCgroup(path string) error {
	err := os.WriteFile(filepath.Join(path, "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("end what is left in %s: %w", path, err)
	}
	return nil
}
