// SPDX-License-Identifier: Apache-2.0

package main

import "github.com/zos-node/zos/init/trust"

// vouch says what vouches for this boot, and what does not.
func (n *node) vouch() {
	s := trust.Look(trust.EFIVars, trust.TPM)
	n.log.Info("boot trust", "secureBoot", s.SecureBoot, "tpm", s.TPM, "pcr11", s.PCR11)
	for _, l := range s.Lacks() {
		n.log.Warn("this node cannot promise all", "lacks", l)
	}
}
