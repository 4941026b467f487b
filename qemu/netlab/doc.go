// SPDX-License-Identifier: Apache-2.0

// Package netlab runs the uplink's tests of links and addresses in a lab (package
// lab): on the node's own kernel, which has bonds and VLANs where the machine that
// builds may have none.
package netlab
