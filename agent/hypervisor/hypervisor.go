// SPDX-License-Identifier: Apache-2.0

// Package hypervisor brings the hypervisor out of the node's image: it unpacks
// the archive that the image has it in, which nobody needs before the node
// follows the ledger, and holds the program against what the image says of it.
// Package vm drives it.
package hypervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/zos-node/zos/ledger"
)

// Description is what the image says of the hypervisor that it carries.
type Description struct {
	ledger.Hypervisor
	Path string `json:"path"`
}

// Read reads the description and holds the program against it: the
// digest on the ledger is that of the file that runs.
func Read(path string) (Description, error) {
	var h Description
	b, err := os.ReadFile(path)
	if err != nil {
		return h, fmt.Errorf("hypervisor: %w", err)
	}
	if err := json.Unmarshal(b, &h); err != nil {
		return h, fmt.Errorf("hypervisor: %s: %w", path, err)
	}
	f, err := os.Open(h.Path)
	if err != nil {
		return h, fmt.Errorf("hypervisor: %w", err)
	}
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	if err := errors.Join(err, f.Close()); err != nil {
		return h, fmt.Errorf("hypervisor: %w", err)
	}
	if got := "sha256:" + hex.EncodeToString(sum.Sum(nil)); got != h.Digest {
		return h, fmt.Errorf("hypervisor: %s has digest %s, the image says %s", h.Path, got, h.Digest)
	}
	return h, nil
}
