// SPDX-License-Identifier: Apache-2.0

package strict

import "reflect"

// maxDepth bounds a document without a type, which bounds nothing itself.
const maxDepth = 32

// Tree reads a document whose type is not known yet, with the same refusals
// as Decode. The result is made of map[string]any, []any, string, int64 and
// bool.
func Tree(b []byte, limit int) (any, error) {
	var tree any
	err := document(b, limit, func(d *decoder) (err error) {
		tree, err = d.tree("", 0)
		return err
	})
	return tree, err
}

// tree reads any value.
func (d *decoder) tree(path string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, Errorf(path, "is nested more than %d deep", maxDepth)
	}
	switch what := found(d.peek()); what {
	case "":
		return nil, d.syntax(path, "a value")
	case "null":
		return nil, Errorf(path, "is null; leave the field out instead")
	case "an object":
		m := map[string]any{}
		return m, d.members(path, func(name []byte, at string) error {
			key := string(name)
			if _, twice := m[key]; twice {
				return Errorf(at, "is there twice")
			}
			v, err := d.tree(at, depth+1)
			m[key] = v
			return err
		})
	case "a list":
		l := []any{}
		err := d.items(path, func(at string) error {
			v, err := d.tree(at, depth+1)
			l = append(l, v)
			return err
		})
		return l, err
	case "a string":
		return d.text(path)
	case "a boolean":
		var v bool
		err := d.value(path, reflect.ValueOf(&v).Elem())
		return v, err
	default:
		var v int64
		err := d.value(path, reflect.ValueOf(&v).Elem())
		return v, err
	}
}
