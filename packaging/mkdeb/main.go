// SPDX-License-Identifier: Apache-2.0

// Command mkdeb writes the Debian package zos-ledger from a program that was
// built for its architecture, the runbook, and the time of the commit that both
// come from. `make deb` runs it; what is in the package says package packaging.
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/zos-node/zos/packaging"
)

func main() {
	arch := flag.String("arch", "amd64", "Debian's name of the architecture")
	version := flag.String("version", "", "version of the package")
	program := flag.String("program", "", "cmd/zos, built for it")
	runbook := flag.String("runbook", "docs/ledger.md", "the runbook")
	when := flag.Int64("time", 0, "time of every file, Unix seconds (SOURCE_DATE_EPOCH)")
	out := flag.String("o", "", "file to write")
	flag.Parse()
	if err := run(*arch, *version, *program, *runbook, *out, *when); err != nil {
		fmt.Fprintln(os.Stderr, "mkdeb:", err)
		os.Exit(1)
	}
}

func run(arch, version, program, runbook, out string, when int64) error {
	if version == "" || program == "" || out == "" || when <= 0 {
		return errors.New("--version, --program, --time and -o are needed")
	}
	tool, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("program: %w", err)
	}
	text, err := os.ReadFile(runbook)
	if err != nil {
		return fmt.Errorf("runbook: %w", err)
	}
	p, err := packaging.Ledger(arch, version, tool, text, time.Unix(when, 0))
	if err != nil {
		return err
	}
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		return err
	}
	if err := os.WriteFile(out, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("write the package: %w", err)
	}
	fmt.Printf("%x  %s\n", sha256.Sum256(b.Bytes()), out)
	return nil
}
