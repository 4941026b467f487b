// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"os/exec"
	"strings"
	"testing"
)

// TestNodeHasNoRegistryClient: the node's agent links this package; what
// reads OCI registries stays in package oci.
func TestNodeHasNoRegistryClient(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v: %s", err, out)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for _, bad := range []string{"go-containerregistry", "docker", "aws-sdk-go", "zos/ledger", "zos/zimage/oci", "zos/zimage/publish"} {
			if strings.Contains(dep, bad) {
				t.Errorf("zimage imports %s", dep)
			}
		}
	}
}
