// SPDX-License-Identifier: Apache-2.0

package schema

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/render"
	"github.com/zos-node/zos/spec/spectest"
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

// compiled is a committed schema in the hands of another implementation.
func compiled(t *testing.T, path string) *jsonschema.Schema {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource(path, doc); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func validate(t *testing.T, s *jsonschema.Schema, doc string) error {
	t.Helper()
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(doc))
	if err != nil {
		t.Fatal(err)
	}
	return s.Validate(v)
}

func TestSignedForm(t *testing.T) {
	s := compiled(t, "../schema.json")
	shop, err := os.ReadFile("../render/testdata/shop.spec.json")
	if err != nil {
		t.Fatal(err)
	}
	full, err := spectest.Full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{string(shop), string(full)} {
		if err := validate(t, s, good); err != nil {
			t.Errorf("refused: %v", err)
		}
	}
	good := string(full)
	for name, pair := range map[string][2]string{
		"absent field":    {`"replicas":2,`, ``},
		"absent list":     {`"dependsOn":[],`, ``},
		"unknown field":   {`"replicas":2`, `"replicas":2,"zone":"a"`},
		"wrong case":      {`"replicas"`, `"Replicas"`},
		"float":           {`"replicas":2`, `"replicas":2.5`},
		"null":            {`"dependsOn":[]`, `"dependsOn":null`},
		"tag":             {spectest.Digest("1"), "nginx:latest"},
		"word":            {`"onPartition":"keep"`, `"onPartition":"maybe"`},
		"range":           {`"port":8080`, `"port":80800`},
		"name":            {`"name":"shop"`, `"name":"Shop"`},
		"mode":            {`"mode":"0644"`, `"mode":"644"`},
		"address":         {`"address":"10.42.0.2"`, `"address":"10.42.0"`},
		"capability":      {`CAP_NET_BIND_SERVICE`, `net_bind`},
		"number as text":  {`"vcpus":1`, `"vcpus":"1"`},
		"label as number": {`"site":"demo"`, `"site":1`},
		"image as text":   {`"image":{`, `"image":"oci:dir","x":{`},
	} {
		bad := strings.Replace(good, pair[0], pair[1], 1)
		if bad == good {
			t.Fatalf("%s: %q is not in the document", name, pair[0])
		}
		if err := validate(t, s, bad); err == nil {
			t.Errorf("%s: the schema takes it", name)
		}
		if _, err := spec.Decode([]byte(bad)); err == nil {
			t.Errorf("%s: spec.Decode takes it", name)
		}
	}
}

// TestAuthorsForm: an author's document in full and in short is fine, one
// that lacks what has no default is not.
func TestAuthorsForm(t *testing.T) {
	s := compiled(t, "../schema.author.json")
	full, err := spectest.Full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	const machine = `"machines":[{"name":"a","kernel":"file:vmlinuz","initramfs":"file:initramfs","image":"oci:dir"}]`
	short := `{"metadata":{"name":"shop"},` + machine + `}`
	for _, good := range []string{string(full), short} {
		if err := validate(t, s, good); err != nil {
			t.Errorf("refused: %v", err)
		}
	}
	for name, bad := range map[string]string{
		"no name":       `{"metadata":{},` + machine + `}`,
		"no machines":   `{"metadata":{"name":"shop"}}`,
		"no kernel":     strings.Replace(short, `"kernel":"file:vmlinuz",`, "", 1),
		"no image":      strings.Replace(short, `,"image":"oci:dir"`, "", 1),
		"empty image":   strings.Replace(short, `oci:dir`, "", 1),
		"kernel's name": strings.Replace(short, `file:vmlinuz`, "vmlinuz", 1),
		"unknown field": strings.Replace(short, `"name":"a"`, `"name":"a","nmae":"a"`, 1),
	} {
		if err := validate(t, s, bad); err == nil {
			t.Errorf("%s: the schema takes it", name)
		}
	}
}

// anything resolves every reference.
type anything struct{}

func (anything) File(string) (string, error) { return spectest.Digest("a"), nil }

func (anything) Image(_, platform string) (render.ResolvedImage, error) {
	return render.ResolvedImage{Args: []string{"/app"}, Image: spec.Image{
		OCI: spectest.Digest("b"), Platform: platform, ID: spectest.Digest("c"), VerityRoot: strings.Repeat("d", 64)}}, nil
}

// TestExamples: the documents that people start from satisfy the author's
// schema as their editor sees them, and what render makes of them satisfies
// the schema of the signed form.
func TestExamples(t *testing.T) {
	before, after := compiled(t, "../schema.author.json"), compiled(t, "../schema.json")
	for _, path := range []string{"../render/testdata/shop.yaml", "../../examples/shop/app.yaml"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var doc any
		if err := yaml.Load(text, &doc); err != nil {
			t.Fatal(err)
		}
		asJSON, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		if err := validate(t, before, string(asJSON)); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		signed, err := render.Deployment(text, anything{})
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if err := validate(t, after, string(signed)); err != nil {
			t.Errorf("%s, rendered: %v", path, err)
		}
	}
}
