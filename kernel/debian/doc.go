// SPDX-License-Identifier: Apache-2.0

// Package debian fetches single packages of one Debian release, whatever
// release this machine itself runs.
//
// It writes a private apt root: the machine's own sources with the release's
// name exchanged, the machine's own keyrings and proxy settings, and package
// lists and states of its own. Nothing outside its folder changes, nothing
// gets installed, and no mirror's name stands in our files.
//
// Two things vouch for a package. apt checks every file against the signed
// index. A lock file remembers what was resolved last, by SHA-256, so that a
// later build takes the same bytes or says loudly that it cannot. A file that
// lies in the cache under the locked digest needs no network at all.
package debian
