// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// TPM is a software TPM 2.0 (swtpm) beside a machine. Its state stays in its
// folder; the program ends when its machine lets go of it.
type TPM struct {
	Socket string // for UEFI.TPM
	cmd    *exec.Cmd
	done   chan error
}

// StartTPM starts swtpm on the state in dir, which it makes when it is new.
func StartTPM(ctx context.Context, dir string) (*TPM, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("TPM: %w", err)
	}
	t := &TPM{Socket: filepath.Join(dir, "ctrl"), done: make(chan error, 1)}
	if err := os.Remove(t.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("TPM: %w", err)
	}
	t.cmd = exec.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+dir, "--ctrl", "type=unixio,path="+t.Socket, "--terminate")
	t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := t.cmd.Start(); err != nil {
		return nil, fmt.Errorf("TPM: %w", err)
	}
	go func() { t.done <- t.cmd.Wait() }()
	for {
		if _, err := os.Stat(t.Socket); err == nil {
			return t, nil
		}
		select {
		case err := <-t.done:
			return nil, fmt.Errorf("TPM: swtpm ended at once: %w", err)
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("TPM: %w", ctx.Err()), t.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Close ends it, if its machine has not.
func (t *TPM) Close() error {
	if err := t.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("end swtpm: %w", err)
	}
	<-t.done
	return nil
}
