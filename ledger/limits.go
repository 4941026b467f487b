// SPDX-License-Identifier: Apache-2.0

package ledger

// limits are what a client bears. Tests have smaller ones.
type limits struct {
	roots int // of trust, after the trusted one
}

func usualLimits() limits { return limits{roots: maxRoots} }
