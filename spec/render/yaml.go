// SPDX-License-Identifier: Apache-2.0

package render

import (
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/strict"
)

// parseYAML reads the part of YAML in which a text has one reading: no
// anchors, aliases, merge keys, tags, several documents, numbers other than
// plain decimal ones, nor nulls.
func parseYAML(in []byte) (any, error) {
	var doc yaml.Node
	if err := yaml.Load(in, &doc, yaml.WithUniqueKeys()); err != nil {
		return nil, strict.Errorf("", "is not valid YAML: %s", strings.TrimSpace(err.Error()))
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, strict.Errorf("", "is empty")
	}
	return walk("", doc.Content[0], reflect.TypeFor[spec.Deployment]())
}

// refuse names the line, which the author looks for in a YAML file.
func refuse(at string, n *yaml.Node, reason string) error {
	return strict.Errorf(at, "%s (line %d)", reason, n.Line)
}

// walk turns a node into the tree of strict.Tree. The Go type that the
// signed form has at this place, where known, tells unknown fields, and lets
// text stay text: `PORT: 8080` in an environment is the text that was written.
func walk(at string, n *yaml.Node, t reflect.Type) (any, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return nil, refuse(at, n, "is an alias: write the value out")
	case n.Anchor != "":
		return nil, refuse(at, n, "has an anchor: write values out where they stand")
	case n.Style&yaml.TaggedStyle != 0:
		return nil, refuse(at, n, "has the tag "+n.Tag+": tags are not allowed")
	}
	switch n.Kind {
	case yaml.MappingNode:
		return mapping(at, n, t)
	case yaml.SequenceNode:
		list := []any{}
		for i, c := range n.Content {
			v, err := walk(strict.Index(at, i), c, elem(t, reflect.Slice))
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	}
	return scalar(at, n, t)
}

func mapping(at string, n *yaml.Node, t reflect.Type) (any, error) {
	m := map[string]any{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		here := strict.Join(at, k.Value)
		switch {
		case k.ShortTag() == "!!merge":
			return nil, refuse(at, k, "has a merge key: write the fields out")
		case k.Kind != yaml.ScalarNode || k.Anchor != "" || k.Style&yaml.TaggedStyle != 0:
			return nil, refuse(at, k, "has a key that is no plain text")
		}
		if _, twice := m[k.Value]; twice {
			return nil, refuse(here, k, "is there twice")
		}
		below := elem(t, reflect.Map)
		if t != nil && t.Kind() == reflect.Struct {
			f, near := member(t, k.Value)
			if f == nil && near != "" {
				return nil, refuse(here, k, "is an unknown field; case counts: want "+strconv.Quote(near))
			}
			if f == nil {
				return nil, refuse(here, k, "is an unknown field")
			}
			below = f
		}
		value, err := walk(here, v, below)
		if err != nil {
			return nil, err
		}
		m[k.Value] = value
	}
	return m, nil
}

// elem is the type of the entries of t, nil when t is not of that kind.
func elem(t reflect.Type, kind reflect.Kind) reflect.Type {
	if t == nil || t.Kind() != kind {
		return nil
	}
	return t.Elem()
}

// member finds the type of a field by its json name, or a name that differs
// in case only.
func member(t reflect.Type, name string) (reflect.Type, string) {
	near := ""
	for i := range t.NumField() {
		tag := t.Field(i).Tag.Get("json")
		if tag == name {
			return t.Field(i).Type, ""
		}
		if strings.EqualFold(tag, name) {
			near = tag
		}
	}
	return nil, near
}

func scalar(at string, n *yaml.Node, t reflect.Type) (any, error) {
	plain := n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
	switch {
	case !utf8.ValidString(n.Value):
		return nil, refuse(at, n, "is not valid UTF-8")
	case strings.ContainsRune(n.Value, 0):
		return nil, refuse(at, n, "has a NUL character")
	case !plain:
		return n.Value, nil
	case n.ShortTag() == "!!null":
		return nil, refuse(at, n, "is null: leave the field out, or write \"\"")
	case leadingZero(n.Value):
		return nil, refuse(at, n, "is "+n.Value+": a number with a leading zero reads as octal here and as decimal there; put text in quotes")
	case t != nil && t.Kind() == reflect.String:
		return n.Value, nil
	}
	switch n.ShortTag() {
	case "!!bool":
		if n.Value == "true" || n.Value == "false" {
			return n.Value == "true", nil
		}
		return nil, refuse(at, n, "is "+n.Value+", want true or false")
	case "!!int":
		i, err := strconv.ParseInt(n.Value, 10, 64)
		if err != nil || strconv.FormatInt(i, 10) != n.Value {
			return nil, refuse(at, n, "is "+n.Value+", want a plain decimal number of at most 64 bits")
		}
		return i, nil
	case "!!float":
		return nil, refuse(at, n, "is a float, only whole numbers are allowed")
	}
	return n.Value, nil
}

// leadingZero says whether s is all digits and starts with a zero that
// another one follows.
func leadingZero(s string) bool {
	s = strings.TrimLeft(s, "+-")
	return len(s) > 1 && s[0] == '0' && strings.Trim(s, "0123456789_") == ""
}
