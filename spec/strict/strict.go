// SPDX-License-Identifier: Apache-2.0

// Package strict is one JSON decoder that refuses what JSON leaves open, so
// that two programs can never read one signed document in two ways.
//
// The standard decoder takes the last of two equal keys, matches names in any
// case, leaves absent fields at zero, ignores what follows the document and
// replaces broken UTF-8. Each of these lets a signer see something else than a
// node does. Decode refuses them all, and names the field:
//
//	machines[0].vcpus: is a float, only whole numbers are allowed
//
// The Go type is the whole schema: every struct field must be there exactly
// once under its json name, and nothing else may. The types that a document
// may be built of are structs, slices, map[string]T, string, bool, int64 and
// []byte (base64). Values are not checked for meaning; that is the caller's.
package strict

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Error is a refusal: which field of the document, and why. Field is "" when
// it concerns the document as a whole.
type Error struct {
	Field, Reason string
}

func (e *Error) Error() string {
	if e.Field == "" {
		return "the document " + e.Reason
	}
	return e.Field + ": " + e.Reason
}

// Errorf makes an Error.
func Errorf(field, format string, args ...any) error {
	return &Error{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// Join appends a member name to a field path.
func Join(path, name string) string {
	switch {
	case !plain(name):
		return path + "[" + strconv.QuoteToASCII(name) + "]"
	case path == "":
		return name
	}
	return path + "." + name
}

// Index appends a list index to a field path.
func Index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

// plain says whether a name can stand in a path without quotes.
func plain(name string) bool {
	if name == "" || len(name) > 64 {
		return false
	}
	for _, c := range []byte(name) {
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}

// Decode reads the one document in b, of at most limit bytes, into v, which
// points to a value of the types above. What v held before is gone, never
// merged; on error v is untouched. Lists and maps are never nil afterwards.
// Refusals are of type *Error.
func Decode(b []byte, v any, limit int) error {
	into := reflect.ValueOf(v)
	if into.Kind() != reflect.Pointer || into.IsNil() {
		return fmt.Errorf("strict: cannot decode into %T", v)
	}
	fresh := reflect.New(into.Type().Elem()).Elem()
	if err := document(b, limit, func(d *decoder) error { return d.value("", fresh) }); err != nil {
		return err
	}
	into.Elem().Set(fresh)
	return nil
}

// document reads the one value that b may hold.
func document(b []byte, limit int, read func(d *decoder) error) error {
	if len(b) > limit {
		return Errorf("", "has %d bytes, at most %d are allowed", len(b), limit)
	}
	if bytes.HasPrefix(b, []byte("\xef\xbb\xbf")) {
		return Errorf("", "starts with a byte order mark")
	}
	d := decoder{in: b}
	err := read(&d)
	if err != nil {
		// Again, to say where: nearly all documents need no paths.
		d = decoder{in: b, paths: true}
		if err = read(&d); err != nil {
			return err
		}
	}
	if d.skip(); d.pos != len(b) {
		return Errorf("", "has trailing data %s", d.where())
	}
	return nil
}

// decoder walks the bytes and the Go value together; the type, not the
// input, bounds its depth.
type decoder struct {
	in    []byte
	pos   int
	paths bool // know the path of each value, for errors
}

func (d *decoder) join(path, name string) string {
	if !d.paths {
		return ""
	}
	return Join(path, name)
}

// joinKey is join of a name that nobody needs as a string else.
func (d *decoder) joinKey(path string, name []byte) string {
	if !d.paths {
		return ""
	}
	return Join(path, string(name))
}

func (d *decoder) index(path string, i int) string {
	if !d.paths {
		return ""
	}
	return Index(path, i)
}

// skip passes over white space.
func (d *decoder) skip() {
	for d.pos < len(d.in) && strings.IndexByte(" \t\r\n", d.in[d.pos]) >= 0 {
		d.pos++
	}
}

// peek returns the next byte after white space, 0 at the end.
func (d *decoder) peek() byte {
	if d.skip(); d.pos < len(d.in) {
		return d.in[d.pos]
	}
	return 0
}

// where names the current position for people.
func (d *decoder) where() string {
	before := d.in[:d.pos]
	return fmt.Sprintf("at line %d, column %d", bytes.Count(before, []byte("\n"))+1, d.pos-bytes.LastIndexByte(before, '\n'))
}

// syntax is the refusal of bytes that are no JSON here.
func (d *decoder) syntax(path, want string) error {
	if d.pos >= len(d.in) {
		return Errorf(path, "is cut off %s: want %s", d.where(), want)
	}
	return Errorf(path, "is not valid JSON %s: found %q, want %s", d.where(), d.in[d.pos], want)
}

func (d *decoder) value(path string, v reflect.Value) error {
	c, want := d.peek(), kindName(v.Type())
	found := found(c)
	switch {
	case want == "":
		return fmt.Errorf("strict: %s: no JSON form is defined for Go type %s", path, v.Type())
	case found == "":
		return d.syntax(path, want)
	case found == "null":
		return Errorf(path, "is null, want %s", want)
	case found != want && !(found == "a string" && want == "base64 text"):
		return Errorf(path, "is %s, want %s", found, want)
	}
	switch v.Kind() {
	case reflect.Struct:
		return d.structure(path, v)
	case reflect.Map:
		return d.mapping(path, v)
	case reflect.Slice:
		if want == "base64 text" {
			return d.bytes(path, v)
		}
		return d.list(path, v)
	case reflect.String:
		s, err := d.text(path)
		if err != nil {
			return err
		}
		v.SetString(s)
	case reflect.Bool:
		for _, word := range []string{"true", "false"} {
			if bytes.HasPrefix(d.in[d.pos:], []byte(word)) {
				d.pos += len(word)
				v.SetBool(word == "true")
				return nil
			}
		}
		return d.syntax(path, "true or false")
	default:
		return d.integer(path, v)
	}
	return nil
}

// kindName says in JSON's words what a Go type takes; "" for types that have
// no place in a document.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct:
		return "an object"
	case reflect.Map:
		if t.Key().Kind() == reflect.String {
			return "an object"
		}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "base64 text"
		}
		return "a list"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a boolean"
	case reflect.Int64:
		return "a number"
	}
	return ""
}

// found says what a value that starts with c is.
func found(c byte) string {
	switch {
	case c == '{':
		return "an object"
	case c == '[':
		return "a list"
	case c == '"':
		return "a string"
	case c == 't', c == 'f':
		return "a boolean"
	case c == 'n':
		return "null"
	case c == '-', c >= '0' && c <= '9':
		return "a number"
	}
	return ""
}

// field is one member that a struct must have.
type field struct {
	name  string
	index int
}

// layouts are the fields of the types seen so far, for taking a type apart costs
// more than reading a value of it. What is in it follows from the type alone.
var layouts sync.Map // reflect.Type to []field

// fields lists the members of a struct type in order.
func fields(t reflect.Type) ([]field, error) {
	if known, ok := layouts.Load(t); ok {
		return known.([]field), nil
	}
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("json")
		if !f.IsExported() || f.Anonymous || !plain(name) || name == "-" {
			return nil, fmt.Errorf("strict: field %s of Go type %s needs a plain json tag, without options", f.Name, t)
		}
		all = append(all, field{name, i})
	}
	layouts.Store(t, all)
	return all, nil
}

func (d *decoder) structure(path string, v reflect.Value) error {
	all, err := fields(v.Type())
	if err != nil {
		return err
	}
	var few [32]bool
	seen := few[:]
	if len(all) > len(few) {
		seen = make([]bool, len(all))
	}
	next := 0 // the field that follows the last one: most documents have them in order
	err = d.members(path, func(key []byte, at string) error {
		i := next
		if i >= len(all) || all[i].name != string(key) {
			i = slices.IndexFunc(all, func(f field) bool { return f.name == string(key) })
		}
		if i < 0 {
			return unknown(all, string(key), at)
		}
		if seen[i] {
			return Errorf(at, "is there twice")
		}
		seen[i], next = true, i+1
		return d.value(at, v.Field(all[i].index))
	})
	if err != nil {
		return err
	}
	for i, f := range all {
		if !seen[i] {
			return Errorf(d.join(path, f.name), "is absent")
		}
	}
	return nil
}

// unknown refuses a member that a struct does not have.
func unknown(all []field, key, at string) error {
	for _, f := range all {
		if strings.EqualFold(f.name, key) {
			return Errorf(at, "is an unknown field; case counts: want %q", f.name)
		}
	}
	return Errorf(at, "is an unknown field")
}

func (d *decoder) mapping(path string, v reflect.Value) error {
	v.Set(reflect.MakeMap(v.Type()))
	return d.members(path, func(key []byte, at string) error {
		k := reflect.ValueOf(string(key)).Convert(v.Type().Key())
		if v.MapIndex(k).IsValid() {
			return Errorf(at, "is there twice")
		}
		e := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(at, e); err != nil {
			return err
		}
		v.SetMapIndex(k, e)
		return nil
	})
}

// members walks an object and calls member with each key, which is good until it
// returns, and its path, the position being at the value.
func (d *decoder) members(path string, member func(key []byte, at string) error) error {
	d.pos++ // the brace that value saw
	if d.peek() == '}' {
		d.pos++
		return nil
	}
	for {
		if d.peek() != '"' {
			return d.syntax(path, "a member name")
		}
		key, err := d.chars(path)
		if err != nil {
			return err
		}
		if d.peek() != ':' {
			return d.syntax(d.joinKey(path, key), `":"`)
		}
		d.pos++
		if err := member(key, d.joinKey(path, key)); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			return nil
		default:
			return d.syntax(path, `"," or "}"`)
		}
	}
}

func (d *decoder) list(path string, v reflect.Value) error {
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	return d.items(path, func(at string) error {
		n := v.Len()
		v.Grow(1)
		v.SetLen(n + 1)
		v.Index(n).SetZero()
		return d.value(at, v.Index(n))
	})
}

// items walks a list and calls item with the path of each entry, the
// position being at it.
func (d *decoder) items(path string, item func(at string) error) error {
	d.pos++ // the bracket that the caller saw
	if d.peek() == ']' {
		d.pos++
		return nil
	}
	for i := 0; ; i++ {
		if err := item(d.index(path, i)); err != nil {
			return err
		}
		switch d.peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return nil
		default:
			return d.syntax(path, `"," or "]"`)
		}
	}
}
