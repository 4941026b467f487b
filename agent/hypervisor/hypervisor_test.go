// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestHypervisorIsHeldAgainstItsDescription(t *testing.T) {
	dir := t.TempDir()
	program, about := filepath.Join(dir, "vmm"), filepath.Join(dir, "hypervisor.json")
	if err := os.WriteFile(program, []byte("vmm"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256([]byte("vmm"))
	text := fmt.Sprintf(`{"name":"qemu","version":"10","digest":"sha256:%s","source":"debian","path":%q}`, hex.EncodeToString(sum[:]), program)
	if err := os.WriteFile(about, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if h, err := Read(about); err != nil || h.Name != "qemu" || h.Path != program {
		t.Fatal(h, err)
	}
	if err := os.WriteFile(program, []byte("VMM"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(about); err == nil {
		t.Error("another program was taken")
	}
}
