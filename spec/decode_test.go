// SPDX-License-Identifier: Apache-2.0

package spec_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/spectest"
)

func encode(t testing.TB, d *spec.Deployment) []byte {
	t.Helper()
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// refused checks that err is a refusal of a field, for a reason.
func refused(t *testing.T, err error, field, reason string) {
	t.Helper()
	var e *spec.FieldError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a refusal of %q", err, field)
	}
	if e.Field != field || !strings.Contains(e.Reason, reason) {
		t.Errorf("refused %q because it %q, want %q because of %q", e.Field, e.Reason, field, reason)
	}
}

func TestRoundTrip(t *testing.T) {
	b := encode(t, spectest.Full())
	d, err := spec.Decode(b)
	if err != nil || !reflect.DeepEqual(d, spectest.Full()) {
		t.Fatalf("came back as %+v, %v", d, err)
	}
	if again := encode(t, d); !bytes.Equal(b, again) {
		t.Error("encoded twice, in two ways")
	}
	if got := spec.Digest([]byte("abc")); got != "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("digest %s", got)
	}
}

// TestBadInput is the table: each line changes the signed form in one
// place.
func TestBadInput(t *testing.T) {
	good := string(encode(t, spectest.Full()))
	replace := func(old, new string) string {
		if strings.Count(good, old) == 0 {
			t.Fatalf("%q is not in the document", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	oci := spectest.Digest("1")
	for name, c := range map[string]struct{ in, field, reason string }{
		"absent field":         {replace(`"replicas":2,`, ``), "placement.replicas", "is absent"},
		"absent list":          {replace(`"dependsOn":[],`, ``), "machines[0].dependsOn", "is absent"},
		"absent in list":       {replace(`"subnet":"10.43.0.0/29",`, ``), "networks[1].subnet", "is absent"},
		"unknown field":        {replace(`"replicas":2`, `"replicas":2,"zone":"a"`), "placement.zone", "unknown field"},
		"duplicate key":        {replace(`"replicas":2`, `"replicas":2,"replicas":3`), "placement.replicas", "is there twice"},
		"duplicate label":      {replace(`"site":"demo"`, `"site":"demo","site":"x"`), "placement.labels.site", "is there twice"},
		"wrong case":           {replace(`"replicas"`, `"Replicas"`), "placement.Replicas", `case counts: want "replicas"`},
		"trailing data":        {good + ` {}`, "", "has trailing data"},
		"trailing text":        {good + `x`, "", "has trailing data"},
		"float":                {replace(`"replicas":2`, `"replicas":2.0`), "placement.replicas", "is a float"},
		"exponent":             {replace(`"replicas":2`, `"replicas":2e0`), "placement.replicas", "is a float"},
		"null":                 {replace(`"dependsOn":[]`, `"dependsOn":null`), "machines[0].dependsOn", "is null"},
		"UTF-8":                {replace(`sales`, "\xff"), "metadata.labels.team", "UTF-8"},
		"NUL":                  {replace(`events {}`, `\u0000`), "machines[1].files[0].content", "NUL"},
		"tag for digest":       {replace(oci, "nginx:latest"), "machines[0].image.oci", "is a tag, want sha256:<64 hex>"},
		"tag and digest":       {replace(oci, "nginx@"+oci), "machines[0].image.oci", "is a tag, want sha256:<64 hex>"},
		"short digest":         {replace(oci, oci[:70]), "machines[0].image.oci", "want sha256:<64 hex>"},
		"digest in capitals":   {replace(spectest.Digest("d"), "sha256:"+strings.Repeat("D", 64)), "machines[0].image.id", "want sha256:<64 hex>"},
		"kernel is a path":     {replace(spectest.Digest("a"), "file:/boot/vmlinuz"), "machines[0].kernel", "want sha256:<64 hex>"},
		"author's short form":  {replace(`"image":{`, `"image":"oci:dir","x":{`), "machines[0].image", "is a string, want an object"},
		"a list of one person": {replace(`"requiredRoles":["owner"]`, `"requiredRoles":"owner"`), "security.requiredRoles", "is a string, want a list"},
		"number as text":       {replace(`"vcpus":1`, `"vcpus":"1"`), "machines[0].vcpus", "is a string, want a number"},
		"too long":             {good + strings.Repeat(" ", spec.MaxBytes), "", "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := spec.Decode([]byte(c.in))
			refused(t, err, c.field, c.reason)
		})
	}
}

// leaf is one place in a deployment and a way to change it.
type leaf struct {
	path   string
	change func(d *spec.Deployment)
}

// leaves lists changes of every scalar, list and map of a type, found by
// reflection: a field that is added to the types is here without being named.
func leaves(path string, at func(d *spec.Deployment) reflect.Value, v reflect.Value) []leaf {
	var all []leaf
	add := func(what string, change func(v reflect.Value)) {
		all = append(all, leaf{path + what, func(d *spec.Deployment) { change(at(d)) }})
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			all = append(all, leaves(path+"."+v.Type().Field(i).Name, func(d *spec.Deployment) reflect.Value { return at(d).Field(i) }, v.Field(i))...)
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, leaves(fmt.Sprintf("%s[%d]", path, i), func(d *spec.Deployment) reflect.Value { return at(d).Index(i) }, v.Index(i))...)
		}
		if v.Len() > 0 {
			add(" less one", func(v reflect.Value) { v.Set(v.Slice(0, v.Len()-1)) })
			add(" first twice", func(v reflect.Value) { v.Set(reflect.Append(v, v.Index(0))) })
		}
	case reflect.Map:
		add(" one more", func(v reflect.Value) { v.SetMapIndex(reflect.ValueOf("MORE"), reflect.ValueOf("more")) })
		add(" one more, small", func(v reflect.Value) { v.SetMapIndex(reflect.ValueOf("more"), reflect.ValueOf("more")) })
		for _, k := range v.MapKeys() {
			add(" without "+k.String(), func(v reflect.Value) { v.SetMapIndex(k, reflect.Value{}) })
			add(" other "+k.String(), func(v reflect.Value) { v.SetMapIndex(k, reflect.ValueOf("other")) })
		}
	case reflect.String:
		add(" longer", func(v reflect.Value) { v.SetString(v.String() + "x") })
		add(" empty", func(v reflect.Value) {
			if v.String() == "" {
				v.SetString("x")
			} else {
				v.SetString("")
			}
		})
	case reflect.Int64:
		add(" + 1", func(v reflect.Value) { v.SetInt(v.Int() + 1) })
		add(" - 1", func(v reflect.Value) { v.SetInt(v.Int() - 1) })
	case reflect.Bool:
		add(" not", func(v reflect.Value) { v.SetBool(!v.Bool()) })
	default:
		panic("leaves: " + v.Kind().String())
	}
	return all
}

// TestEveryFieldCounts changes each field alone: the digest changes, or the
// deployment is refused. A field that is zero everywhere in the full
// deployment would not be tested, and is an error.
func TestEveryFieldCounts(t *testing.T) {
	digests := map[string]string{spec.Digest(encode(t, spectest.Full())): "the unchanged one"}
	all := leaves("", func(d *spec.Deployment) reflect.Value { return reflect.ValueOf(d).Elem() }, reflect.ValueOf(spectest.Full()).Elem())
	var accepted, refusals int
	for _, l := range all {
		d := spectest.Full()
		l.change(d)
		b, err := d.Encode()
		if err != nil {
			var e *spec.FieldError
			if !errors.As(err, &e) {
				t.Errorf("%s: refused without a field: %v", l.path, err)
			}
			refusals++
			continue
		}
		accepted++
		digest := spec.Digest(b)
		if same, ok := digests[digest]; ok {
			t.Errorf("%s: has the digest of %s", l.path, same)
		}
		digests[digest] = l.path
		if back, err := spec.Decode(b); err != nil || !reflect.DeepEqual(back, d) {
			t.Errorf("%s: the change is lost on the way", l.path)
		}
	}
	if accepted < 100 || refusals < 100 {
		t.Errorf("%d changes accepted, %d refused: the walk does not reach everything", accepted, refusals)
	}
	zero(t, "", reflect.ValueOf(*spectest.Full()))
}

// zero reports fields that no part of the full deployment uses.
func zero(t *testing.T, path string, values ...reflect.Value) {
	t.Helper()
	used := false
	var below []reflect.Value
	for _, v := range values {
		used = used || !v.IsZero()
		if v.Kind() == reflect.Slice {
			for i := range v.Len() {
				below = append(below, v.Index(i))
			}
			used = used && v.Len() > 0 || len(below) > 0
		}
	}
	if !used {
		t.Errorf("%s is zero everywhere in spectest.Full", path)
		return
	}
	if values[0].Kind() == reflect.Slice {
		zero(t, path+"[]", below...)
	}
	if values[0].Kind() != reflect.Struct {
		return
	}
	for i := range values[0].NumField() {
		var fields []reflect.Value
		for _, v := range values {
			fields = append(fields, v.Field(i))
		}
		zero(t, path+"."+values[0].Type().Field(i).Name, fields...)
	}
}

// TestRemovingAnyKey takes each member out of each object of the JSON: a
// field must be missed, a label or variable must change the digest.
func TestRemovingAnyKey(t *testing.T) {
	good := encode(t, spectest.Full())
	var walk func(path string, v any, without func() []byte)
	removed := 0
	walk = func(path string, v any, whole func() []byte) {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				walk(path+"."+k, e, whole)
				delete(v, k)
				b := whole()
				v[k] = e
				removed++
				free := strings.HasSuffix(path, ".labels") || strings.HasSuffix(path, ".env")
				_, err := spec.Decode(b)
				var e *spec.FieldError
				switch {
				case free && err == nil && spec.Digest(b) == spec.Digest(good):
					t.Errorf("%s.%s is gone, and the digest is the same", path, k)
				case !free && !errors.As(err, &e):
					t.Errorf("%s.%s is gone: got %v, want a refusal", path, k, err)
				case !free && ("."+e.Field != path+"."+k || e.Reason != "is absent"):
					t.Errorf("%s.%s is gone: refused %q, %q", path, k, e.Field, e.Reason)
				}
			}
		case []any:
			for i, e := range v {
				walk(fmt.Sprintf("%s[%d]", path, i), e, whole)
			}
		}
	}
	var tree any
	if err := json.Unmarshal(good, &tree); err != nil {
		t.Fatal(err)
	}
	walk("", tree, func() []byte {
		b, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		return b
	})
	if removed < 150 {
		t.Errorf("removed only %d keys", removed)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, spectest.Full()))
	f.Add([]byte(`{"apiVersion":"zos/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := spec.Decode(b)
		if err != nil {
			var e *spec.FieldError
			if !errors.As(err, &e) {
				t.Fatalf("refused without a field: %v", err)
			}
			return
		}
		out, err := d.Encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		back, err := spec.Decode(out)
		if err != nil || !reflect.DeepEqual(d, back) {
			t.Fatalf("%+v came back as %+v, %v", d, back, err)
		}
	})
}
