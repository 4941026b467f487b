// SPDX-License-Identifier: Apache-2.0

// Package ledger says what was agreed, in which order: entries, the one
// deterministic Apply that decides what may enter, static tiles and cosigned
// checkpoints (C2SP tlog-tiles), and the client that believes nothing that it
// did not check. Sub-package bft holds the engine that orders entries.
package ledger
