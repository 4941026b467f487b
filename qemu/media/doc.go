// SPDX-License-Identifier: Apache-2.0

// Package media boots real images from every medium, over every bus, under
// every firmware setting that the table in matrix_test.go lists. A row is
// shown by what the node says on its console: where its seed came from (a boot
// partition that its own drivers read, or SMBIOS when there is no disk), so
// both the firmware's and the kernel's way to the medium were used.
//
// `go test` runs the rows that are marked fast; ZOS_BOOT=all (make test-boot)
// runs all and prints the table.
package media
