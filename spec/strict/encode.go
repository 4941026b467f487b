// SPDX-License-Identifier: Apache-2.0

package strict

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"unicode/utf8"
)

// Encode writes v in the one form that this project produces: fields in the
// order of the struct, map keys sorted, no white space, no HTML escapes, nil
// lists and maps as [] and {}. Decode takes back whatever Encode wrote.
func Encode(v any) ([]byte, error) {
	in := reflect.ValueOf(v)
	if in.Kind() == reflect.Pointer && !in.IsNil() {
		in = in.Elem()
	}
	if !in.IsValid() {
		return nil, fmt.Errorf("strict: cannot encode %T", v)
	}
	full, err := complete("", in)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(full.Interface()); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}

// complete copies v with nil lists and maps made empty, and refuses strings
// that Decode would not take back as they are.
func complete(path string, v reflect.Value) (reflect.Value, error) {
	out := reflect.New(v.Type()).Elem()
	switch kindName(v.Type()) {
	case "":
		return out, fmt.Errorf("strict: %s: no JSON form is defined for Go type %s", path, v.Type())
	case "a list":
		out.Set(reflect.MakeSlice(v.Type(), v.Len(), v.Len()))
		for i := range v.Len() {
			e, err := complete(Index(path, i), v.Index(i))
			if err != nil {
				return out, err
			}
			out.Index(i).Set(e)
		}
		return out, nil
	case "base64 text":
		out.SetBytes(append([]byte{}, v.Bytes()...))
		return out, nil
	case "a string":
		if err := cleanText(path, v.String()); err != nil {
			return out, err
		}
	}
	switch v.Kind() {
	case reflect.Struct:
		all, err := fields(v.Type())
		if err != nil {
			return out, err
		}
		for _, f := range all {
			e, err := complete(Join(path, f.name), v.Field(f.index))
			if err != nil {
				return out, err
			}
			out.Field(f.index).Set(e)
		}
	case reflect.Map:
		out.Set(reflect.MakeMap(v.Type()))
		for it := v.MapRange(); it.Next(); {
			at := Join(path, it.Key().String())
			if err := cleanText(at, it.Key().String()); err != nil {
				return out, err
			}
			e, err := complete(at, it.Value())
			if err != nil {
				return out, err
			}
			out.SetMapIndex(it.Key(), e)
		}
	default:
		out.Set(v)
	}
	return out, nil
}

func cleanText(path, s string) error {
	if !utf8.ValidString(s) {
		return Errorf(path, "is not valid UTF-8")
	}
	if strings.ContainsRune(s, 0) {
		return Errorf(path, "has a NUL character")
	}
	return nil
}
