// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/zos-node/zos/agent/state"
	"github.com/zos-node/zos/ledger"
)

func TestVouched(t *testing.T) {
	p := filepath.Join(t.TempDir(), "trust")
	s := &state.State{Kind: state.Clear, Lacks: []string{"whoever has the disk"}}
	if b, err := vouched(p, s); err != nil || !reflect.DeepEqual(b, ledger.Boot{SecureBoot: "none", Key: "clear", Lacks: []string{"nothing is known of this boot", "whoever has the disk"}}) {
		t.Errorf("%+v, %v", b, err)
	}
	if err := os.WriteFile(p, []byte("secureBoot setup mode\npcr11 abcd\nlacks a b\nlacks c\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := vouched(p, s); err != nil || !reflect.DeepEqual(b, ledger.Boot{SecureBoot: "setup mode", PCR11: "abcd", Key: "clear", Lacks: []string{"a b", "c", "whoever has the disk"}}) {
		t.Errorf("%+v, %v", b, err)
	}
	for _, k := range []state.Kind{state.Sealed, state.Clear, state.Recovery, state.Memory} {
		found := false
		for _, known := range ledger.BootKeys {
			found = found || known == string(k)
		}
		if !found {
			t.Errorf("the ledger does not know %q", k)
		}
	}
}
