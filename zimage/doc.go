// SPDX-License-Identifier: Apache-2.0

// Package zimage makes and serves what runs: one OCI image as one verified
// read-only disk, cut into content-addressed chunks.
//
// The disk is an EROFS file system (4 KiB blocks, no compression) followed by
// its dm-verity tree. The same OCI manifest, platform and Format give the
// same bytes for anybody.
package zimage
