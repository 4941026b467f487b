// SPDX-License-Identifier: Apache-2.0

// Package erofs writes EROFS images: read-only, uncompressed, 4096-byte
// blocks, and the same bytes for the same tree, always.
//
// Determinism is what the package exists for. A verity root stands in a
// signed document and anybody must be able to make it again, so nothing here
// depends on the clock, on the machine, or on the order in which a tree was
// built. The choices that make it so, and that together are the layout of
// zimage.Format 4:
//
//   - Block 0 holds the superblock and nothing else. UUID, volume name and
//     build time are zero; the superblock checksum is set.
//   - From block 1 on, inode records in depth-first order, names sorted as
//     bytes. Every inode has the 64-byte extended form. A record is the
//     inode, its extended attributes, and what is stored inline; a record
//     that fits one block never crosses a block border.
//   - Directories and symlinks keep their last partial block inline where it
//     fits, and so do regular files below InlineBelow. Larger files are
//     whole blocks, so that their bytes can be shared between images.
//   - Then the blocks of directories, then the blocks of files, both in the
//     order of their inodes.
//
// Times have nanoseconds, and may lie before 1970. Of extended attributes there
// are user.*, trusted.*, security.* and the two POSIX ACLs. What an image does
// not need is not written: no compression, no shared extended attributes, no device table.
package erofs
