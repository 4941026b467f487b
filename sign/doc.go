// SPDX-License-Identifier: Apache-2.0

// Package sign says who agreed to a document: DSSE envelopes whose signatures
// are SSHSIGs, and policies of roles with thresholds that count distinct
// public keys.
//
// One envelope format serves every document type, those that people sign and
// those that nodes sign. The payload type fixes the SSHSIG namespace, so a
// signature can never be moved from one type to another.
package sign
