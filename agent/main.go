// SPDX-License-Identifier: Apache-2.0

// Command agent is the node's one program that decides and does: it follows
// the ledger, claims what fits, and runs what was signed. init starts it; it
// takes orders from nothing but the ledger.
//
// The parts are the sub-packages, each one concern. node.go puts them
// together; this file only starts and ends the process. Under the name imaged
// the program is another one: the process that serves images while they arrive
// (package imaged). One file in the image is less than two.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/agent/imaged/serve"
	"github.com/zos-node/zos/agent/wait"
)

// memoryLimit is what the garbage collector aims at: the budget of the
// agent's resident memory is 60 MB, code and stacks included.
const memoryLimit = 40 << 20

func main() {
	if filepath.Base(os.Args[0]) == imaged.Name {
		os.Exit(serve.Main())
	}
	debug.SetMemoryLimit(memoryLimit)
	board := wait.NewBoard()
	log := slog.New(board.Handler(slog.NewTextHandler(os.Stdout, nil)))
	if err := run(context.Background(), log, board); err != nil {
		log.Error("agent ends", "part", "agent", "err", err)
		fmt.Fprintln(os.Stderr, "agent:", err)
		os.Exit(1)
	}
}
