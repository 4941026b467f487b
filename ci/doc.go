// SPDX-License-Identifier: Apache-2.0

// Package ci holds what CI runs and the tests that hold the structure of the
// repository: the direction of imports, what may be linked into the node's
// programs, and the form that every file has.
package ci
