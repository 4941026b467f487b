// SPDX-License-Identifier: Apache-2.0

// Package sbom says what is inside an image: an SPDX 2.3 document in JSON,
// and what is missing in it.
//
// The document's digest stands in the image's manifest, so its bytes follow
// from the image alone and are part of zimage.Format: no clock, no machine,
// no library whose next release finds other things. That is why the readers
// of package databases are here and not a scanner's.
//
// What is read: the databases of dpkg (also its split form, status.d), apk and
// rpm (SQLite); what Go programs say of themselves; Python's METADATA
// and installed npm packages; the lock files of npm, yarn (all versions), pnpm
// (5 to 9), bun, Cargo, Poetry, uv, PDM, Pipenv, Bundler and Composer. A
// database that is seen but not read (rpm's Berkeley DB and NDB, pacman, opkg, Nix,
// conda, Java archives and the other lock files of the function foreign), or
// one that is broken, is listed as Unread: silence about it would say that
// there is nothing. So is one that is larger than 64 MiB, that has a line or a
// value of more than a MiB, or whose packages are more than a document holds:
// what is read of an image takes some 20 MiB of memory at most, and a catalog
// that would need more otherwise is refused.
//
// Then the dynamic linker is followed: each executable's interpreter and
// needed shared objects, and theirs, with the search rules of ld.so, inside
// the image. What does not resolve is listed as Missing, and each link that
// does is a relationship in the document.
package sbom
