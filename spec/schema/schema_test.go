// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"flag"
	"os"
	"testing"
)

// TestSchemasAreCurrent compares the committed schemas with what the types
// give today. go generate ./spec/schema brings them up to date.
func TestSchemasAreCurrent(t *testing.T) {
	source, err := os.ReadFile("../types.go")
	if err != nil {
		t.Fatal(err)
	}
	for path, generate := range map[string]func([]byte) ([]byte, error){"../schema.json": Signed, "../schema.author.json": Author} {
		want, err := generate(source)
		if err != nil {
			t.Fatal(err)
		}
		if update := flag.Lookup("update"); update.Value.String() == "true" {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the types give: go generate ./spec/schema", path)
		}
	}
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the schemas instead of comparing them")
	os.Exit(m.Run())
}
