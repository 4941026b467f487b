// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/zos-node/zos/init/disks"
	"github.com/zos-node/zos/init/trust"
	"github.com/zos-node/zos/kernel/partition"
)

// vouch says what vouches for this boot, and what does not.
func (n *node) vouch() {
	s := trust.Look(trust.EFIVars, trust.TPM)
	n.log.Info("boot trust", "secureBoot", s.SecureBoot, "tpm", s.TPM, "pcr11", s.PCR11, "pcr12", s.Words())
	n.board.lack(s.Lacks())
	for _, l := range s.Lacks() {
		n.log.Warn("this node cannot promise all", "lacks", l)
	}
	if err := os.WriteFile(trust.Told, []byte(s.Text()), 0o644); err != nil {
		n.log.Error("tell the agent what vouches for this boot", "err", err)
	}
}

// twins refuses to guess which of two look-alike disks is the node's.
func (n *node) twins() error {
	return fault("DISKS", "the node's own disk", "one disk with this image",
		"Remove one of the disks named above, or write another image onto it: the stick that the node was installed from, most often.", disks.Check(partition.Sys, partition.Dev))
}
