// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bft

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// size builds a program with net/http alone and one with our client beside it.
func (b *bench) size(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	build := func(code string) float64 {
		dir, err := os.MkdirTemp(filepath.Join(root, "ledger", "bft"), "size-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(code), 0o644); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(t.TempDir(), "program")
		cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, ".")
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
		if text, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, text)
		}
		info, err := os.Stat(out)
		if err != nil {
			t.Fatal(err)
		}
		return float64(info.Size()) / 1e6
	}
	plain := build("package main\n\nimport \"net/http\"\n\nfunc main() { resp, err := http.Get(\"https://x\"); println(resp, err) }\n")
	with := build("package main\n\nimport (\n\t\"context\"\n\t\"net/http\"\n\n\t\"github.com/zos-node/zos/ledger\"\n)\n\nfunc main() {\n\tresp, err := http.Get(\"https://x\")\n\tprintln(resp, err)\n\tc, err := ledger.OpenClient(ledger.ClientConfig{})\n\tprintln(err, c.Sync(context.Background()))\n}\n")
	agent := build("package main\n\nimport (\n\t\"log/slog\"\n\t\"net/http\"\n\t\"os\"\n\n\t\"github.com/zos-node/zos/sign\"\n\t\"github.com/zos-node/zos/spec\"\n)\n\nfunc main() {\n\tslog.New(slog.NewTextHandler(os.Stderr, nil)).Info(\"x\")\n\tresp, err := http.Get(\"https://x\")\n\tprintln(resp, err)\n\td, err := spec.Decode(nil)\n\te, err2 := sign.DecodeEnvelope(nil)\n\tk, err3 := e.Keys()\n\tprintln(d, err, err2, len(k), err3)\n}\n")
	b.add(benchRow{What: "client's share of the agent, which has slog, spec and sign", Value: with - agent, Unit: "MB", Anchor: agent, Goal: "<= 1 MB", Met: yes(with-agent <= 1), Note: "anchor: net/http, log/slog, spec and sign"})
	b.add(benchRow{What: "client's share of a program", Value: with - plain, Unit: "MB", Anchor: plain, Goal: "<= 1 MB", Met: yes(with-plain <= 1), Note: "anchor: net/http alone; with spec and sign, which the agent has anyway"})
}
