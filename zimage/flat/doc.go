// SPDX-License-Identifier: Apache-2.0

// Package flat merges the layers of an OCI image into one tree, straight
// from the tar streams.
//
// Nothing is ever unpacked into a directory: a host's file system would add
// its own umask, owners, time stamps and limits to an image that must come
// out the same everywhere, and a tar entry could walk out of the directory.
// Here names live in memory only, so there is no outside to walk to. File
// contents go to one spool file.
//
// The rules, which are part of zimage.Format 4:
//
//   - ".wh.NAME" removes NAME, and ".wh..wh..opq" everything, that lower
//     layers put into the directory, wherever in its layer it stands. Other
//     ".wh..wh." names are bookkeeping of AUFS and are dropped.
//   - A parent that is a symlink is followed inside the image; a missing
//     parent becomes a directory 0755 of root with time 0.
//   - A hard link joins the inode of its target, also one of a lower layer;
//     what its own header says of owner and mode is ignored.
//   - Of extended attributes user.*, trusted.*, security.* and the POSIX ACLs
//     are kept, as SCHILY.xattr.* records have them; others, and ACLs written
//     as text, are dropped and listed.
//   - Device nodes are dropped (the guest makes its own /dev) and listed, and
//     what stood in their place is gone, and so are further names that hard links
//     give them; FIFOs, setuid and setgid stay.
//   - A symlink keeps the mode that its header says. Unpacked, each has 0777: Linux
//     has no other, and asks none of them before it follows one. Nearly all layers
//     say 0777 too; of another mode only lstat knows in a guest.
//   - Times have the nanoseconds that the layer says, and may lie before 1970.
//   - Names are bytes. A leading "/" means the image's root; "..", a NUL, or
//     a name longer than 255 bytes is refused.
//   - A directory over a directory changes its attributes and keeps its
//     entries; anything else replaces what was there.
package flat
