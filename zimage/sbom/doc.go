// SPDX-License-Identifier: Apache-2.0

// Package sbom says what is inside an image: an SPDX 2.3 document in JSON,
// and what is missing in it.
//
// The document's digest stands in the image's manifest, so its bytes follow
// from the image alone and are part of zimage.Format: no clock, no machine,
// no library whose next release finds other things. That is why the readers
// of package databases are here and not a scanner's.
//
// What is read: the databases of dpkg (also its split form, status.d) and
// apk; what Go programs say of themselves; Python's METADATA, installed npm
// packages and package-lock.json, Cargo.lock, poetry.lock, uv.lock,
// Gemfile.lock and composer.lock. A database that is seen but not read (rpm,
// yarn, pnpm, or one that is broken) is listed as Unread: silence about it
// would say that there is nothing.
//
// Then the dynamic linker is followed: each executable's interpreter and
// needed shared objects, and theirs, with the search rules of ld.so, inside
// the image. What does not resolve is listed as Missing, and each link that
// does is a relationship in the document.
package sbom
