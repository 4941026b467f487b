// SPDX-License-Identifier: Apache-2.0

package zimage

// Format is the number of the exact bytes that Convert makes. Any change of a
// byte of any image or document is a new number. Number 2 names an SPDX
// document, and a device node replaces what lower layers have in its place.
// Number 3 reads more for that document: rpm, yarn, pnpm, bun, Pipenv, PDM; and
// names more of what is not read. The disks of numbers 2 and 3 are alike.
// Number 4 keeps what a file has of time and attributes (nanoseconds, times
// before 1970, POSIX ACLs, trusted.* and all of security.*), and the document
// leaves out more of what is too large to be read. What was refused and no longer is,
// as a hard link to a device node, is no new number: it had no bytes.
const Format = 4

// OldestFormat is the first number that nodes start. What they read of an image
// is the same since: a node that learns a new number goes on with what it runs.
const OldestFormat = 3

// Manifest describes one Zero-Image. Its canonical JSON (fields in this
// order, no spaces, no trailing newline) hashes to the image id.
type Manifest struct {
	Format   int64    `json:"format"`
	OCI      OCI      `json:"oci"`
	DataSize int64    `json:"dataSize"` // bytes of EROFS, a multiple of 4096
	DiskSize int64    `json:"diskSize"` // DataSize and the verity tree
	Verity   Verity   `json:"verity"`
	Chunks   []Chunk  `json:"chunks"` // in disk order, without gap or overlap
	SBOM     string   `json:"sbom"`   // digest of the SPDX document of what is inside, see package sbom
	Config   Defaults `json:"config"`
}

// OCI is where the image came from.
type OCI struct {
	Manifest string `json:"manifest"` // digest of the image manifest for Platform
	Platform string `json:"platform"` // "linux/amd64"
	Config   string `json:"config"`   // digest of the image configuration
}

// Verity holds the dm-verity parameters: version 1, SHA-256, 4096-byte data
// and hash blocks, empty salt, no superblock, tree right behind the data.
type Verity struct {
	Root      string `json:"root"`      // 64 hex digits
	HashStart int64  `json:"hashStart"` // in 4096-byte blocks; equals DataSize/4096
}

// Chunk is a piece of the disk: ID is the SHA-256 of its plain bytes.
type Chunk struct {
	ID   string `json:"id"` // 64 hex digits
	Off  int64  `json:"off"`
	Size int64  `json:"size"`
}

// Defaults is what the OCI configuration says of the process; render fills
// the spec from it.
type Defaults struct {
	Entrypoint []string `json:"entrypoint"`
	Cmd        []string `json:"cmd"`
	Env        []string `json:"env"`
	WorkingDir string   `json:"workingDir"`
	User       string   `json:"user"` // resolved to "uid:gid"
	StopSignal string   `json:"stopSignal"`
}
