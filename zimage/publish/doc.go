// SPDX-License-Identifier: Apache-2.0

// Package publish brings an image from a store to where nodes can get it,
// and sends only what is not there yet.
//
// Names are hashes, so a name that is there has the right content, or one
// that nodes refuse. A file of the length that is to be there is taken for the
// right one; one of another length is replaced, and with Check one with other
// bytes too. Who packed the same chunks with another compressor finds other
// lengths, and replaces good files by good ones. The order is chunks,
// then the manifest, then the hint: whoever finds a manifest finds all of its
// chunks. A hint is read and compared, since its name does not follow from its content. A start pack (package zimage/pack) is sent last, and on demand: its name
// follows from the image's, and what is there is replaced. A publication that broke off is simply made again; it goes on where
// it stopped.
//
// A Bucket is where it goes: Folder for a folder that a web server serves,
// and package zimage/s3 for a server that speaks S3.
package publish
