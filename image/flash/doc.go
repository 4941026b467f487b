// SPDX-License-Identifier: Apache-2.0

// Package flash writes a disk image onto a disk, in two steps that do not mix:
// Look collects what there is and decides, and changes nothing; Write does what
// the plan says, and reads everything back.
//
// The wrong disk is the commonest and the worst mistake. A disk that is not
// empty is only written when its exact serial number was named; one that is
// in use is never written.
package flash
