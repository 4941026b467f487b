// SPDX-License-Identifier: Apache-2.0

// Package schema makes JSON Schemas (2020-12) of a deployment, for editors
// and for programs that write deployments. There are two: of the signed form,
// in which every field is required, and of the author's form, in which a field
// with a default is not. Both are made from the Go types, their comments and
// the table of defaults, and committed:
//
//	spec/schema.json          the signed form
//	spec/schema.author.json   what authors write; for an editor, put
//	                          # yaml-language-server: $schema=PATH on the first line
//
// A schema cannot say everything (who refers to whom, which address lies in
// which subnet): spec.Decode decides, the schema helps earlier.
package schema

//go:generate go test -run TestSchemasAreCurrent -update .

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"slices"
	"strings"

	"github.com/invopop/jsonschema"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/render"
)

// Signed returns the schema of the signed form. source is the text of
// spec/types.go, whose comments become the descriptions.
func Signed(source []byte) ([]byte, error) {
	s, err := reflected(source)
	if err != nil {
		return nil, err
	}
	s.ID, s.Title = "urn:zos:deployment:v1", "zos deployment, signed form"
	return encode(s)
}

// Author returns the schema of what render takes.
func Author(source []byte) ([]byte, error) {
	s, err := reflected(source)
	if err != nil {
		return nil, err
	}
	s.ID, s.Title = "urn:zos:deployment:v1:author", "zos deployment, author's form"
	for _, row := range render.Defaults() {
		owner, field := ownerOf(row.Path)
		def := s.Definitions[owner]
		if owner == "Deployment" {
			def = s
		}
		if def == nil {
			return nil, fmt.Errorf("default of %s: no type has this field", row.Path)
		}
		def.Required = slices.DeleteFunc(def.Required, func(r string) bool { return r == field })
	}
	machine := s.Definitions["Machine"].Properties
	for _, name := range []string{"kernel", "initramfs"} {
		p, _ := machine.Get(name)
		p.Pattern = "^(sha256:[0-9a-f]{64}|file:.+)$"
	}
	image, _ := machine.Get("image")
	machine.Set("image", &jsonschema.Schema{
		Description: image.Description,
		AnyOf: []*jsonschema.Schema{{Ref: image.Ref}, {
			Type:        "string",
			MinLength:   new(uint64(1)),
			Description: "a reference: oci:DIR, docker-archive:FILE or registry/name@sha256:<64 hex>",
		}},
	})
	// In a map of texts, render takes `PORT: 8080` as the text that it is.
	plain := &jsonschema.Schema{AnyOf: []*jsonschema.Schema{{Type: "string"}, {Type: "number"}, {Type: "boolean"}}}
	for owner, name := range map[string]string{"Process": "env", "Metadata": "labels", "Placement": "labels"} {
		texts, _ := s.Definitions[owner].Properties.Get(name)
		texts.AdditionalProperties = plain
	}
	return encode(s)
}

// ownerOf finds the Go type that a field of the table belongs to.
func ownerOf(path string) (owner, field string) {
	t := reflect.TypeFor[spec.Deployment]()
	parts := strings.Split(path, ".")
	for _, part := range parts[:len(parts)-1] {
		name := strings.TrimSuffix(part, "[]")
		for i := range t.NumField() {
			if t.Field(i).Tag.Get("json") == name {
				t = t.Field(i).Type
				break
			}
		}
		if t.Kind() == reflect.Slice {
			t = t.Elem()
		}
	}
	return t.Name(), parts[len(parts)-1]
}

func reflected(source []byte) (*jsonschema.Schema, error) {
	texts, err := comments(source)
	if err != nil {
		return nil, err
	}
	r := jsonschema.Reflector{
		Anonymous:      true,
		ExpandedStruct: true,
		LookupComment:  func(t reflect.Type, field string) string { return texts[t.Name()+"."+field] },
	}
	return r.Reflect(&spec.Deployment{}), nil
}

// comments collects what types.go says of its types ("Health.") and fields
// ("Health.Port").
func comments(source []byte) (map[string]string, error) {
	file, err := parser.ParseFile(token.NewFileSet(), "types.go", source, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("read the comments of the types: %w", err)
	}
	texts := map[string]string{}
	for _, d := range file.Decls {
		decl, ok := d.(*ast.GenDecl)
		if !ok || decl.Tok != token.TYPE {
			continue
		}
		t := decl.Specs[0].(*ast.TypeSpec)
		texts[t.Name.Name+"."] = line(decl.Doc.Text())
		for _, f := range t.Type.(*ast.StructType).Fields.List {
			texts[t.Name.Name+"."+f.Names[0].Name] = line(f.Doc.Text() + " " + f.Comment.Text())
		}
	}
	return texts, nil
}

// line makes one line of a comment.
func line(text string) string { return strings.Join(strings.Fields(text), " ") }

func encode(s *jsonschema.Schema) ([]byte, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode the schema: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("indent the schema: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
