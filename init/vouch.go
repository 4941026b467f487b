// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"

	"github.com/zos-node/zos/init/trust"
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
