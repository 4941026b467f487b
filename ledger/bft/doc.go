// SPDX-License-Identifier: Apache-2.0

// Package bft orders the entries of a ledger with CometBFT, in this process,
// and writes what was ordered as static tiles (package tiles). Nodes never
// link it: they read the tiles.
//
// A block is one call of ledger.State.Apply. Nothing but the log itself holds
// the state: at a start the log is folded again, from its newest snapshot on,
// and CometBFT replays the few blocks that came after the last leaf.
//
// # Time
//
// CometBFT gives a block the median time of the votes for the block before
// it. On a ledger that makes no empty blocks that may be hours ago, and
// leases live by ledger time. So every block begins with one transaction that
// the proposer adds: its clock in milliseconds. The others accept a proposal
// only if that is not before the ledger's time (or stands still at it), at
// most 5 s ahead of their own clock, and at most 30 s behind. After that
// everybody takes the value from the block: FinalizeBlock never looks at a
// clock. The 30 s are not held against blocks that a restart replays from the
// write-ahead log; those were decided, or signed, when they were new.
// Nor are they once blocks of one height have been proposed for 30 s: validators
// that signed a block are bound to it, and a ledger that stood still since may be
// able to decide that one alone, however old its time is by then.
//
// # Blocks without leaves
//
// A block in which nothing was accepted and nothing became due adds no leaf
// and leaves the app hash as it is. CometBFT makes one more block whenever the
// app hash changed, to have the change signed; were that one to change it
// again, an idle ledger would never be silent. Nobody's receipt waits for that
// block. So a height begins when there are entries for it, or after a little while
// without (pacer): whoever submits one after the other gets a block for each, not
// two. A validator that waits so hears the others, and goes along with one that
// has entries. It must not wait inside of the app: CometBFT calls that under the
// lock that it needs for each message of a peer.
//
// # Checkpoints of several validators
//
// After a block each validator has the same tree on its own disk. It signs
// that tree and tells the others (statement, on a channel of the mesh beside
// CometBFT's), again every second. Whoever has signatures of enough of them
// writes the checkpoint (collector): more than two thirds, under the root of
// trust with which that tree ends. So a checkpoint is final twice: CometBFT
// decided the block, and a quorum has its leaves fsynced. A validator never
// signs what is not decided, so it never signs two trees of one size.
//
// A rotation of the root of trust changes who votes (validatorUpdates) and who
// cosigns. It is refused at the door while a validator that it newly names has
// not signed the present tree, or fewer have than the next checkpoint needs
// (canServe); Apply itself does not know who is there, so that it stays pure. The first checkpoint after it already
// needs the new quorum.
//
// Too few validators: nothing is ordered or published, Submit says so
// (ledger.Busy, with who is missing), everything stays readable, and it goes
// on by itself when they are back.
//
// # Who joins
//
// begins with entry 0 and gets the blocks from its peers, applies every one,
// and signs like the others; its signatures count once a root names it. Or it
// begins with a snapshot and with where consensus stood then (base); so does
// one that is restored from a backup. p2p knows the peers of mesh.json and
// nobody else: no discovery, no strangers.
//
// # Receipts
//
// Submit returns when a cosigned checkpoint covers the entry: the block is in
// CometBFT's store, and the tiles are on the disk, fsynced with their folders.
// Writing them begins in FinalizeBlock: by then the block is decided and stored,
// and CometBFT saves what came of it at the same time. The checkpoint gets its name
// in Commit, after both, and others hear of our signature no earlier.
// So are the bytes of the checkpoint; its name follows within a second. A power
// cut in that second brings back the checkpoint before. Then CometBFT's blocks
// make the same tree again, and its checkpoint, before anybody is served.
package bft
