// SPDX-License-Identifier: Apache-2.0

// Package spec defines what a deployment says: the types, the one strict
// decoder that the signer's tool, the ledger and the node all use, the
// renderer that turns an author's YAML into the exact bytes that are signed,
// and the JSON Schema generated from the types.
package spec
