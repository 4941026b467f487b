// SPDX-License-Identifier: Apache-2.0

// Package ledger says what was agreed, in which order: entries, the one
// deterministic Apply that decides what may enter, static tiles and cosigned
// checkpoints (C2SP tlog-tiles), and the client that believes nothing that it
// did not check. Sub-package bft holds the engine that orders entries, tiles
// the files, audit the replay of one deployment, ledgertest ledgers for tests.
//
// # The life of a deployment
//
// A register entry makes it known; nodes that fit are ranked, and the one
// whose turn it is claims it (rank.go). Claiming reserves what it needs. While
// it holds the claim the node renews the lease and writes records, each
// chained to the one before. A claim ends in one of three ways:
//
//   - close: nothing of it runs any more. "failed" is final for the deployment:
//     what is known not to work is not tried again. "stopped" and "replaced"
//     answer a stop entry and a next version.
//   - release: the node gives it back, and another may try (attempt+1; the node
//     itself ranks last).
//   - the lease runs out: as with a release, and the node gets nothing new
//     until it is heard from.
//
// After a release or a lost lease the node may still write records, and close
// ("released" where nothing failed, as when it was shut down), so that its part
// of the story has an end. A new version does not evict the
// old one: the node that has the old one closes it as "replaced", which frees
// its place.
//
// What a node does while it is cut off (onPartition) is no rule here. The ledger
// sees silence alone, and the node sees no ledger time: it goes by its own clock
// since the last renewal that it has seen. The lease runs out all the same.
//
// # Saying the same again
//
// An entry is known by its type, its payload and who signed it, however it is
// wrapped. The same again is not a second entry: the server answers with the
// old receipt. A renewal therefore has to act on a newer state than the one
// before it, and while leases run there always is one (expire.go).
//
// # Keys that are lost
//
// A revoke entry, which the root's roles sign, takes a key out of use from its
// place in the log on. Nothing that was signed before becomes invalid, so old
// proofs hold for ever; what runs because of a compromised key ends.
//
// # One validator and several
//
// The root of trust lists the validators (LogPolicy), and the next root may
// list others: origin, tree and old proofs stay, and a reader with any older
// root walks the chain of roots up to the present one, however many there are
// (up to 100,000). The root of trust that
// counts for a checkpoint is the newest one in the log that it covers. Where a
// validator's copy is read (Validator.Mirror) stands there for people, signed; a
// Client asks only those that it was given.
//
// # What one operator can do
//
// With one validator the operator can show different logs to clients that have
// seen nothing yet. Whoever has seen a checkpoint notices (ErrFork), also after
// a restart (StateFile), and every entry of a node names the state that it
// acted on, which the other log refuses.
package ledger
