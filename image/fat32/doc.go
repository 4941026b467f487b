// SPDX-License-Identifier: Apache-2.0

// Package fat32 writes and reads the file system of an EFI system partition:
// FAT32 as Microsoft's fatgen103 and the UEFI specification describe it, with
// long names, in sectors of 512 or 4096 bytes.
//
//	[boot sector, FSInfo, copies] [table] [table] [clusters: root, folders, files]
//
// A volume is written once, from a list of files, so every file and folder
// lies in one piece and the whole is a pure function of the list: no dates but
// the first day that FAT knows, no free space in between, zeros never written.
// Libraries that imitate a live file system leave clocks and gaps behind, and
// cannot write for disks whose sectors have 4096 bytes.
package fat32
