// SPDX-License-Identifier: Apache-2.0

// Package modules chooses kernel modules and lays them out for an initramfs.
//
// What is wanted stands in tables (sets.go): a name, and whether a kernel may
// lack it. Tree reads a kernel package's modules, follows their dependencies
// through the .modinfo sections, and yields uncompressed files in the order
// in which they can be loaded, plus the text files (modules.dep and friends)
// that the node's init reads to load drivers by modalias.
//
// depmod is not needed: what it would compute stands in the modules.
package modules
